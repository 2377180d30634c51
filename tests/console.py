"""The crash shell for tests: run a line, look at the answer."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from typing import Any

import kdumpy
import lab
from kdumpy.crash.shell import Shell
from kdumpy.kernel import Kernel


@lru_cache(maxsize=len(lab.KERNELS) + 1)
def kernel_of(kernel: str, fault: str) -> Kernel:
    """Open a dump, for several tests in a row; few stay open, each takes 30 MB and more."""
    return kdumpy.open(lab.dump(kernel, fault).path)


class Console:
    """A shell and what it answered."""

    def __init__(self, kernel: Kernel) -> None:
        self.out, self.errors = io.StringIO(), io.StringIO()
        self.kernel = kernel
        self.prog = kernel.prog
        self.shell = Shell(kernel, self.out, self.errors)

    def __call__(self, line: str) -> str:
        """Run a line that must work; return its output."""
        good, text, errors = self.attempt(line)
        assert good, errors
        assert errors == ""
        return text

    def fails(self, line: str) -> str:
        """Run a line that must fail; return the one line that says why."""
        good, _, errors = self.attempt(line)
        assert not good
        assert errors.startswith("kdumpy: ")
        assert errors.count("\n") == 1
        return errors

    def attempt(self, line: str) -> tuple[bool, str, str]:
        for stream in (self.out, self.errors):
            stream.seek(0)
            stream.truncate()
        good = self.shell.run(line)
        return good, self.out.getvalue(), self.errors.getvalue()

    def json(self, line: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self(line))
        return found
