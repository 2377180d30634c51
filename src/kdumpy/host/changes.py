"""What is to be done to a machine: files to write, commands to run; as values, so that they can be shown first."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from kdumpy.host.system import System


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that gets other contents, appears, or goes away."""

    path: str
    """Absolute, without the system's root."""
    before: bytes | None
    """What is there now; None: nothing."""
    after: bytes | None
    """What shall be there; None: nothing."""
    why: str
    """In a few words, for the one who reads the plan."""
    mode: int = 0o644
    """Of a new file; one that is there keeps its own, and its owner."""
    secret: bool = False
    """The plan does not show its contents."""

    def diff(self) -> str:
        """Return the change as a unified diff."""
        if self.secret:
            return f"--- {self.path}\n+++ {self.path}\n(not shown: it holds a secret)\n"
        old, new = (None if data is None else data.decode(errors="replace").splitlines(keepends=True)
                    for data in (self.before, self.after))
        lines = difflib.unified_diff(old or [], new or [], "/dev/null" if old is None else self.path,
                                     "/dev/null" if new is None else self.path, n=2)
        return "".join(line if line.endswith("\n") else line + "\n\\ no newline at the end\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is run, and the one that takes it back."""

    words: tuple[str, ...]
    why: str
    undo: tuple[str, ...] = ()
    """Run by `setup --undo`; empty: nothing is to be done."""
    undo_first: bool = False
    """Run the undo before the files are back (a unit is disabled while its file is there); else after them."""
    seconds: float = 300
    may_fail: bool = False
    """A failure is told and does not stop the setup."""
    makes: tuple[str, ...] = ()
    """Directories that it makes, with those above them: those that were not there are removed by `setup --undo`, if
    nothing else lies in them."""


Change = FileChange | Command


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that belong together, such as all of the boot loader's."""

    title: str
    changes: tuple[Change, ...] = ()
    reboot: bool = False
    """It holds from the next boot on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a setup does, in order."""

    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What the administrator should know: why something is left as it is, what is advised."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return not any(step.changes for step in self.steps)

    @property
    def reboot(self) -> bool:
        """Whether it takes a reboot until all holds."""
        return any(step.reboot and step.changes for step in self.steps)

    def changes(self) -> Iterator[Change]:
        """Yield all changes in order."""
        for step in self.steps:
            yield from step.changes


def write(system: System, path: str, text: str | bytes, why: str, *, mode: int = 0o644,
          secret: bool = False) -> tuple[FileChange, ...]:
    """Return the change that gives a file these contents; nothing when it has them."""
    after = text.encode() if isinstance(text, str) else text
    before = system.read_bytes(path)
    return () if before == after else (FileChange(path, before, after, why, mode, secret),)


def remove(system: System, path: str, why: str) -> tuple[FileChange, ...]:
    """Return the change that removes a file; nothing when it is not there."""
    before = system.read_bytes(path)
    return () if before is None else (FileChange(path, before, None, why),)
