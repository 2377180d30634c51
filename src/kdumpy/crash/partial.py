"""The rows of an answer that breaks off: what was read is given, and why it ends is kept for behind it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any


class Partial:
    """Rows of which what can be read is given; an error after the first is kept for the end."""

    def __init__(self, rows: Iterator[Any]) -> None:
        """Take the first row: what raises before it is not to have a header, in which there would be nothing."""
        self._rows = iter(rows)
        self._first = list(itertools.islice(self._rows, 1))
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        try:
            yield from self._rows
        except GeneratorExit:
            raise
        except Exception as error:      # of whatever kind: what was read stands
            if not self._first:
                raise
            self.failure = error
