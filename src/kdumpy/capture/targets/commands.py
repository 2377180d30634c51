"""Programs that targets need: mount, ssh. One gateway: with a time limit, without a shell, their words in the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from kdumpy.errors import HostError

SECONDS = 120
"""What a program may take, unless its caller says otherwise."""


def environment() -> Mapping[str, str]:
    """Return this process's environment with messages in English: some are looked at."""
    return {**os.environ, "LC_ALL": "C"}


def run(command: Sequence[str], what: str, *, seconds: float = SECONDS, data: bytes | bytearray | None = None) -> bytes:
    """Run a program and return what it printed; `data` is its standard input.

    Raises:
        HostError: it is missing, takes too long, or exits with another status than 0.
    """
    try:
        # Without data the program gets no terminal to ask on: nobody would answer.
        done = subprocess.run(command, input=data, stdin=subprocess.DEVNULL if data is None else None,
                              capture_output=True, timeout=seconds, env=environment(), check=False)
    except FileNotFoundError:
        raise missing(command[0], what) from None
    except subprocess.TimeoutExpired:
        raise HostError(what, where=command[0], why=f"no answer within {seconds:.0f} s") from None
    except OSError as error:
        raise HostError(what, where=command[0], why=error.strerror or str(error)) from error
    if done.returncode:
        raise HostError(what, where=command[0], why=last_words(done.stderr, done.returncode))
    return done.stdout


def missing(program: str, what: str) -> HostError:
    """Return the error for a program that is not there."""
    return HostError(what, where=program, why="the program is not here",
                     mend="build the capture image again: it takes in what the targets need")


def last_words(stderr: bytes, status: int) -> str:
    """Return the last lines that a program complained with, or its status."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or (f"killed by signal {-status}" if status < 0 else f"exit status {status}")
