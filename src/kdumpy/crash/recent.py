"""What was read lately, kept for the next who asks: the threads of a process share most of what commands read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST = 64
"""Values kept: a process's threads mostly have neighbouring numbers."""


class Recent(Generic[Value]):
    """The last values by their keys; a dump does not change, so they stay right."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value], *, keep: Callable[[Value], bool] = lambda value: True
            ) -> Value:
        """Return the value of a key, made when it is not there; kept if `keep` says so."""
        if key in self._values:
            return self._values[key]
        made = make()
        if keep(made):
            if len(self._values) >= self._most:
                del self._values[next(iter(self._values))]
            self._values[key] = made
        return made


class Last(Generic[Value]):
    """What was made of the last thing: the threads of a process follow each other, and share what is shown of them."""

    def __init__(self) -> None:
        self._thing: object = None
        self._value: Value | None = None

    def get(self, thing: object, make: Callable[[], Value]) -> Value:
        """Return what `make` makes of a thing; it is asked for another thing only, not for an equal one."""
        if self._value is None or thing is not self._thing:
            self._thing, self._value = thing, make()
        return self._value
