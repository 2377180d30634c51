"""Trees of files that stand for hosts of other distributions (tests/data/hosts): copied, changed, compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdumpy.host.changes import Change, Command, FileChange
from kdumpy.host.system import System

HOSTS = Path(__file__).parent / "data" / "hosts"


def copy(name: str, to: Path) -> System:
    """Return a host's tree, copied to where it may be changed."""
    shutil.copytree(HOSTS / name, to, symlinks=True, dirs_exist_ok=True)
    return System(to)


def made(to: Path, files: Mapping[str, str | bytes]) -> System:
    """Return a tree of these files; a path that ends in `->` links to its contents."""
    for name, contents in files.items():
        path = to / name.removesuffix("->").strip().lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("->"):
            path.symlink_to(str(contents))
        elif isinstance(contents, bytes):
            path.write_bytes(contents)
        else:
            path.write_text(contents)
    return System(to)


def contents(system: System) -> dict[str, bytes | str]:
    """Return every file's bytes, and where links point to."""
    return {str(path.relative_to(system.root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in sorted(system.root.rglob("*")) if path.is_symlink() or path.is_file()}


def apply(system: System, changes: Iterable[Change]) -> list[tuple[str, ...]]:
    """Write the files of changes; return the commands."""
    commands = []
    for change in changes:
        if isinstance(change, Command):
            commands.append(change.words)
            continue
        assert system.read_bytes(change.path) == change.before
        _write(system, change, change.after)
    return commands


def undo(system: System, changes: Iterable[Change]) -> None:
    """Give the files of changes back."""
    for change in reversed(list(changes)):
        if isinstance(change, FileChange):
            _write(system, change, change.before)


def _write(system: System, change: FileChange, data: bytes | None) -> None:
    path = system.root / change.path.lstrip("/")
    assert not path.is_symlink(), f"{change.path} is a link, which the change would make a file"
    if data is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files(changes: Iterable[Change]) -> dict[str, str]:
    """Return what the changed files hold then; empty for one that goes away."""
    return {change.path: (change.after or b"").decode(errors="surrogateescape")
            for change in changes if isinstance(change, FileChange)}


def commands(changes: Iterable[Change]) -> list[tuple[str, ...]]:
    """Return the programs that are run."""
    return [change.words for change in changes if isinstance(change, Command)]
