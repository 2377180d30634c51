"""crash with the kernel's DWARF on a dump, asked many commands in one session."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

import lab
from kdumpy.vm.paths import laboratory_home

_MARK = "=== command === "
_SECONDS = 300


@cache
def vmlinux(release: str) -> Path | None:
    """Return the kernel's file with DWARF where the laboratory has it; it is never fetched for a test."""
    found = sorted((laboratory_home() / "debug").glob(f"*/*/usr/lib/debug/**/vmlinux-{release}"))
    return found[0] if found else None


def release_of(path: Path) -> str:
    return path.parent.parent.name


class Truth:
    """What crash says."""

    def __init__(self, path: Path, debug: Path, commands: Sequence[str]) -> None:
        script = "set scroll off\n" + "".join(f"!echo '{_MARK}{line}'\n{line}\n" for line in commands) + "q\n"
        done = subprocess.run(["crash", "-s", str(debug), str(path)], input=script, capture_output=True, text=True,
                              errors="replace", timeout=_SECONDS)
        self.sections: dict[str, list[str]] = {}
        for part in done.stdout.split(_MARK)[1:]:
            name, _, text = part.partition("\n")
            self.sections[name] = [line for line in text.splitlines() if line.strip()]
        if set(commands) - set(self.sections):
            pytest.skip(f"crash cannot read this dump: {(done.stderr or done.stdout).strip()[-200:]}")

    def __call__(self, command: str) -> list[str]:
        """Return the lines of an answer."""
        return self.sections[command]


def words(lines: Sequence[str]) -> list[str]:
    """Return lines without what spacing differs in, empty ones left out."""
    return [" ".join(line.split()) for line in lines if line.strip()]


def truth(kernel: str, fault: str, commands: Sequence[str]) -> Truth:
    """Ask crash.

    The test is skipped where crash or the kernel's DWARF is not there.
    """
    if not shutil.which("crash"):
        pytest.skip("crash is not installed")
    path = lab.dump(kernel, fault).path
    debug = vmlinux(release_of(path))
    if debug is None:
        pytest.skip(f"no vmlinux with DWARF of {release_of(path)}: python -m kdumpy.vm debug {kernel}")
    return Truth(path, debug, tuple(commands))


def addresses(lines: Sequence[str]) -> list[str]:
    """Return the kernel addresses in lines, in order."""
    return re.findall(r"\bf[0-9a-f]{15}\b", "\n".join(lines))
