"""kexec-dmesg.log: what the capture did, step by step, with the capture kernel's own log behind it.

The steps are kept in a file of the capture kernel's RAM too, so that an attempt that was killed is not forgotten
by the next one, and so that the shell around this program adds its own lines to the same file.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from kdumpy.capture.console import Console
from kdumpy.errors import KdumpyError

DEFAULT_PATH = Path("/run/kdumpy/steps")
"""Where the shell of the capture image writes its steps too."""

_LARGEST_KERNEL_LOG = 1 << 20


class Journal:
    """The steps so far."""

    def __init__(self, console: Console, path: Path | None = None) -> None:
        self.console = console
        self._path = path
        self._lines: list[str] = []
        """What could not be written to the file."""
        if path is not None:
            with contextlib.suppress(OSError):
                path.parent.mkdir(0o700, parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Write one step to the console and keep it."""
        self.console.say(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a line without showing it."""
        line = f"{stamp()} kdumpy: {text}\n"
        if self._path is None or not _append(self._path, line):
            self._lines.append(line)

    def text(self) -> bytes:
        """Return the whole file: the steps, then the capture kernel's log."""
        steps = b""
        if self._path is not None:
            with contextlib.suppress(OSError):
                steps = self._path.read_bytes()
        steps += "".join(self._lines).encode("utf-8", "backslashreplace")
        return (b"# The capture, step by step; times are seconds since the capture kernel started.\n" + steps
                + b"\n# The capture kernel's own log.\n" + kernel_log())


def stamp() -> str:
    """Return the time as the kernel's log shows it: seconds since this kernel started."""
    return f"[{time.clock_gettime(time.CLOCK_BOOTTIME):12.6f}]"


def _append(path: Path, line: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        os.write(descriptor, line.encode("utf-8", "backslashreplace"))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def kernel_log(path: Path = Path("/dev/kmsg")) -> bytes:
    """Return the log of the kernel that runs now, as dmesg prints it; one line with the reason when it cannot be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"(cannot be read: {path}: {error.strerror})\n".encode()
    lines: list[bytes] = []
    size = 0
    try:
        while size < _LARGEST_KERNEL_LOG:
            try:
                record = os.read(descriptor, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # records were overwritten while we read: go on with the oldest left
            if not record:
                break
            lines += _lines_of(record)
            size += len(record)
    except OSError as error:
        lines.append(f"(the rest cannot be read: {error.strerror})".encode())
    finally:
        os.close(descriptor)
    return b"\n".join(lines) + b"\n"


def _lines_of(record: bytes) -> list[bytes]:
    """Return the lines of one record of /dev/kmsg: `6,339,5140900,-;text`.

    Source: Documentation/ABI/testing/dev-kmsg.
    """
    head, semicolon, rest = record.partition(b";")
    fields = head.split(b",")
    text = rest.split(b"\n", 1)[0]  # the lines behind are SUBSYSTEM= and DEVICE=
    if not semicolon or len(fields) < 3 or not fields[2].isdigit():
        return [record.rstrip(b"\n")]
    seconds, rest_us = divmod(int(fields[2]), 1_000_000)
    prefix = f"[{seconds:5}.{rest_us:06}] ".encode()
    # The kernel shows control characters, newlines too, as \xNN.
    return [prefix + line for line in text.split(b"\\x0a")]

def told(error: BaseException) -> str:
    """Return an error in one line; one that nobody expected with the place that raised it."""
    if isinstance(error, KdumpyError) or not isinstance(error, Exception):
        return str(error)
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({Path(frame[0].filename).name}:{frame[0].lineno})" if frame else ""
    return f"{type(error).__name__}: {error}{where}"
