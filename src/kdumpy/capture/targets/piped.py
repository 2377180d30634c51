"""A stream into a program's standard input: ssh's, or what encrypts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Sequence

from kdumpy.capture.targets.commands import environment, last_words, missing
from kdumpy.capture.targets.files import write_all
from kdumpy.errors import HostError, NoSpace

FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "disk full")
"""What programs say of a full disk, in English."""

_PIPE_BYTES = 1 << 20
_END_SECONDS = 600
"""The other side may have to write out what it holds in memory."""


class PipedStream:
    """Writes to a program; when it ends early, its last words are the error."""

    def __init__(self, command: Sequence[str], where: str, *, stdout: int = subprocess.DEVNULL) -> None:
        self.where = where
        self._name = command[0]
        # Not a pipe: nobody reads while the dump is written.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            # A session of its own: a signal that ends us must let it finish.
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=self._errors,
                                            bufsize=0, env=environment(), start_new_session=True)
        except FileNotFoundError:
            raise missing(command[0], "cannot save") from None
        except OSError as error:
            raise HostError("cannot start a program", where=command[0], why=error.strerror or str(error)) from error
        assert self.process.stdin is not None
        self._input = self.process.stdin.fileno()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._input, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it."""
        try:
            write_all(self._input, data)
        except BrokenPipeError:
            self._end()
            raise self._failure() from None
        except OSError as error:
            raise HostError("cannot write", where=self.where, why=error.strerror or str(error)) from error

    def finish(self) -> None:
        """Close the pipe and wait for the program; HostError when it failed."""
        self._end()
        if self.process.returncode:
            raise self._failure()
        self._errors.close()

    def abort(self) -> None:
        """Kill the program."""
        self.process.kill()
        self._end()
        self._errors.close()

    def _end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _failure(self) -> HostError:
        self._errors.seek(0, os.SEEK_SET)
        why = last_words(self._errors.read(65536), self.process.returncode)
        kind = NoSpace if any(words in why for words in FULL_WORDS) else HostError
        return kind(f"{self._name} ended early", where=self.where, why=why)
