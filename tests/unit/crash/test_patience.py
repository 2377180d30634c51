"""The sign of life: on terminals only, after a second only, and gone when something comes out."""

from __future__ import annotations

import io
import time

import pytest

from kdumpy.crash import patience
from kdumpy.crash.patience import Patience


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AFTER", 0.02)


def wait_for(stream: io.StringIO, words: str) -> None:
    end = time.monotonic() + 10
    while words not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.01)


def test_what_takes_long_is_told_and_taken_away_at_the_first_line() -> None:
    stream = Terminal()
    watched = Patience(stream)
    with watched.watching("search 1"):
        wait_for(stream, "search 1 … ")
        watched.heard()
        assert stream.getvalue().endswith("\r\033[K")
        said = stream.getvalue()
        time.sleep(0.05)
    assert stream.getvalue() == said
    with watched.watching("kmem -p"):       # and again for the next
        wait_for(stream, "kmem -p … ")
    assert stream.getvalue().endswith("\r\033[K")


def test_what_is_quick_and_what_is_no_terminal_stays_silent() -> None:
    stream = Terminal()
    with Patience(stream).watching("ps"):
        pass
    assert stream.getvalue() == ""
    plain = io.StringIO()
    with Patience(plain).watching("ps"):
        time.sleep(0.1)
    assert plain.getvalue() == ""
