"""Where a command's output goes: the terminal, a file, a pipeline of the shell (/bin/sh)."""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeVar

from kdumpy.crash.parser import ParsedLine
from kdumpy.errors import UsageError
from kdumpy.units import printable

if TYPE_CHECKING:
    import subprocess

Result = TypeVar("Result")

_NOT_RUNNABLE = (126, 127)
"""What a shell exits with when a program cannot be run or is not there."""
_NO_FAILURE = (0, 1)
"""What a program exits with that did its work; 1 is what grep says where nothing matches, and cmp of what differs."""
_BY_SIGNAL = 128
"""From here on a shell tells of the signal that ended the program: Ctrl-C, or a reader that has read enough."""
_LONG = 1 << 16
"""Characters from which on a text is looked at by numpy, ten times as fast."""
_DELETE = 0x7f


class SafeOutput(io.TextIOBase):
    """A text stream that shows control characters out of the dump and obeys none."""

    def __init__(self, below: IO[str], alive: Callable[[], None] = lambda: None) -> None:
        self.below = below
        self.alive = alive
        """Called for what is written: the command lives."""

    def write(self, text: str) -> int:
        """Write text."""
        self.alive()
        # Most lines have nothing to hide; asking is faster than translating.
        self.below.write(text if _is_printable(text) else printable(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self.below.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream below.

        Raises:
            OSError: it has none.
        """
        return self.below.fileno()

    def writable(self) -> bool:
        """Tell that this is for writing."""
        return True


def _is_printable(text: str) -> bool:
    """Whether there is nothing in a text but printable characters and ends of lines."""
    if len(text) < _LONG or not text.isascii():
        return text.replace("\n", "").isprintable()
    import numpy as np  # whoever writes so much at a time has it loaded

    data = np.frombuffer(text.encode(), np.uint8)
    return not bool((((data < ord(" ")) & (data != ord("\n"))) | (data == _DELETE)).any())


@contextlib.contextmanager
def destination(line: ParsedLine, out: TextIO, pager: str | None) -> Iterator[IO[str]]:
    """Give the stream that a command's output goes to.

    Raises:
        UsageError: the pipeline names a program that is not there.
        OSError: the file cannot be written.
    """
    if line.file is not None:
        with Path(line.file).expanduser().open("a" if line.append else "w") as file:
            yield file
        return
    pipeline = line.pipeline or pager
    if pipeline is None:
        yield out
        return
    import subprocess
    import tempfile

    out.flush()
    with contextlib.ExitStack() as stack:
        direct = _has_descriptor(out)
        answer: IO[str] = out if direct else stack.enter_context(tempfile.TemporaryFile("w+"))
        process = subprocess.Popen(pipeline, shell=True, stdin=subprocess.PIPE, stdout=answer, text=True,
                                   errors="backslashreplace")
        assert process.stdin is not None
        try:
            yield process.stdin
        except BrokenPipeError:         # `| head` has read enough
            pass
        except BaseException:           # of the command; or Ctrl-C, which can come between any two steps
            with contextlib.suppress(KeyboardInterrupt):
                _leave_to_its_user(process)
            raise
        code = _leave_to_its_user(process)
        if not direct:
            answer.seek(0)
            out.write(answer.read())
        if code in _NOT_RUNNABLE:
            raise UsageError("the pipeline cannot be run", where=pipeline, why=f"its shell exited with {code}")
        if line.pipeline and 0 <= code < _BY_SIGNAL and code not in _NO_FAILURE:
            raise UsageError("the pipeline failed", where=pipeline, why=f"its shell exited with {code}")


def _leave_to_its_user(process: subprocess.Popen[str]) -> int:
    """Give a program the rest of its input, wait until it ends, return its code.

    A pager does not end by Ctrl-C, and sets the terminal back only when its user leaves it: whoever went on before
    would fight it for the keys, and would find the terminal without echo. What does end by Ctrl-C has ended.
    """
    assert process.stdin is not None
    for hand_on in (process.stdin.flush, process.stdin.close):
        with contextlib.suppress(BrokenPipeError):
            _in_spite_of_ctrl_c(hand_on)
    return _code_of(process)


def run_in_shell(command: str) -> int:
    """Run what the user has typed, on the user's terminal; return the shell's code."""
    import subprocess

    # Not subprocess.run(), which kills the shell at Ctrl-C and leaves what runs in it with the terminal.
    return _code_of(subprocess.Popen(command, shell=True))


def _code_of(process: subprocess.Popen[Any]) -> int:
    """Wait until a program ends; return its code.

    Raises:
        KeyboardInterrupt: that is what has ended it.
    """
    code = _in_spite_of_ctrl_c(process.wait)
    if code in (-signal.SIGINT, _BY_SIGNAL + signal.SIGINT):
        raise KeyboardInterrupt
    return code


def _in_spite_of_ctrl_c(work: Callable[[], Result]) -> Result:
    """Do what Ctrl-C is not to cut short; it goes to the program that has the terminal too, and is meant for that."""
    while True:
        try:
            return work()
        except KeyboardInterrupt:
            continue


def find_pager() -> str | None:
    """Return the pager that crash would use: less, which leaves when all fits on one screen."""
    import shutil

    return "less -E -X" if shutil.which("less") else None


def _has_descriptor(stream: IO[str]) -> bool:
    try:
        stream.fileno()
    except (OSError, AttributeError, io.UnsupportedOperation):
        return False
    return True
