"""Doing what a plan says, and taking it back: each change is noted in a journal before it is made.

`/var/lib/kdumpy/setup.json` names all that was changed since the first setup, `backup/` has what the files were. So
an undo works after several setups, and after one that was cut short.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdumpy.errors import HostError
from kdumpy.host.changes import Command, FileChange, Plan
from kdumpy.host.system import System

HOME = "/var/lib/kdumpy"
JOURNAL = f"{HOME}/setup.json"
BACKUPS = f"{HOME}/backup"

_VERSION = 1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did."""

    restored: tuple[str, ...]
    """Files that are as they were before."""
    removed: tuple[str, ...]
    """Files and directories that were not there before."""
    left: tuple[str, ...]
    """Files that somebody changed after the setup: they are as they were found."""
    failed: tuple[str, ...]
    """Commands that failed, with the reason."""


@dataclass(slots=True)
class _Journal:
    system: System
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path → what it was: `backup` (name, or null: it was not there), `mode`, `owner` (user and group), `made`
    (SHA-256 of what setup wrote last)."""
    directories: list[str] = field(default_factory=list)
    """Those that were made, outer ones first."""
    commands: list[dict[str, Any]] = field(default_factory=list)
    """What takes commands back: `words`, `first`."""
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    """The boot loader's commands that have not ended well yet: its files are written, its menu is not."""

    @classmethod
    def read(cls, system: System) -> _Journal:
        text = system.read(JOURNAL)
        if text is None:
            return cls(system)
        try:
            values = json.loads(text)
            if values["version"] != _VERSION:
                raise HostError("the setup was made by another version of kdumpy", where=JOURNAL,
                                why=f"version {values['version']}", mend="undo it with that one")
            return cls(system, values["files"], values["directories"], values["commands"],
                       values.get("unfinished", []))
        except (ValueError, KeyError, TypeError) as error:
            raise HostError("the journal of the setup is damaged", where=JOURNAL, why=repr(error),
                            mend=f"what the files were lies in {BACKUPS}") from error

    def write(self) -> None:
        values = {"version": _VERSION, "files": self.files, "directories": self.directories,
                  "commands": self.commands, "unfinished": self.unfinished}
        _write(self.system.path(JOURNAL), (json.dumps(values, indent=1) + "\n").encode(), 0o600)

    def add_command(self, command: Command) -> None:
        entry = {"words": list(command.undo), "first": command.undo_first}
        new = [directory for made in command.makes for directory in (*_missing(self.system, made), made)
               if directory not in self.directories and not self.system.exists(directory)]
        self.directories += new
        if command.undo and entry not in self.commands:
            self.commands.append(entry)
        if command.undo or new:
            self.write()

    def begin(self, plan: Plan) -> None:
        self.unfinished = [asdict(change) for step in plan.steps if step.reboot for change in step.changes
                           if isinstance(change, Command)]
        if self.unfinished:
            self.write()

    def end(self, command: Command) -> None:
        left = [entry for entry in self.unfinished if tuple(entry["words"]) != command.words]
        if len(left) != len(self.unfinished):
            self.unfinished = left
            self.write()

    def add_file(self, change: FileChange) -> None:
        known = self.files.get(change.path)
        if known is None:
            backup = None
            if change.before is not None:
                backup = f"{len(self.files):04}"
                _write(self.system.path(f"{BACKUPS}/{backup}"), change.before, 0o600)
            known = self.files[change.path] = {"backup": backup, **_kept(self.system.path(change.path))}
            for directory in _missing(self.system, change.path):
                self.directories.append(directory)
        known["made"] = None if change.after is None else _digest(change.after)
        self.write()


def _kept(path: Path) -> dict[str, Any]:
    """Return what a file has beside its bytes: it may be removed, and comes back with it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return {"mode": status.st_mode & 0o7777, "owner": [status.st_uid, status.st_gid]}


def _missing(system: System, path: str) -> Iterator[str]:
    """Yield the directories above a file that are not there, outer ones first."""
    above = list(Path(path).parents)[:-1]
    for directory in reversed(above):
        if not system.exists(str(directory)):
            yield str(directory)


def was_set_up(system: System) -> bool:
    """Tell whether there is something to undo."""
    return system.read(JOURNAL) is not None


def unfinished(system: System) -> tuple[Command, ...]:
    """Return the boot loader's commands of a setup that was cut short: its files look as if all were done."""
    return tuple(Command(**{**entry, **{name: tuple(entry.get(name, ())) for name in ("words", "undo", "makes")}})
                 for entry in _Journal.read(system).unfinished)


def prepare_home(system: System) -> None:
    """Make the directory of kdumpy's state: it holds images with keys, and copies of configuration files."""
    for name in (HOME, BACKUPS):
        system.path(name).mkdir(mode=0o700, parents=True, exist_ok=True)


def apply(system: System, plan: Plan, say: Say) -> tuple[str, ...]:
    """Do what a plan says, in order; return the failures of commands that may fail.

    Args:
        system: the machine.
        plan: made of the machine as it is now.
        say: told one line for each change.

    Raises:
        HostError: a file was changed since the plan was made, cannot be written, or a command failed. What was done
            until then is in the journal and can be undone.
    """
    prepare_home(system)
    journal = _Journal.read(system)
    journal.begin(plan)
    failures = []
    for change in plan.changes():
        if isinstance(change, FileChange):
            _apply_file(system, journal, change)
            say(f"{'removed' if change.after is None else 'wrote'} {change.path}")
            continue
        journal.add_command(change)
        try:
            system.run(change.words, seconds=change.seconds)
        except HostError as error:
            if not change.may_fail:
                raise HostError(error.what, where=error.where, why=error.why, mend=error.mend or
                                "mend what it says and run the setup again: it goes on from there; `kdumpy setup "
                                "--undo` takes back what was done") from error
            failures.append(f"{' '.join(change.words)}: {error.why or error.what}")
            say(f"failed: {failures[-1]}")
        else:
            journal.end(change)
            say(f"ran {' '.join(change.words)}")
    return tuple(failures)


def _apply_file(system: System, journal: _Journal, change: FileChange) -> None:
    if system.read_bytes(change.path) != change.before:
        raise HostError("the file was changed since the plan was made", where=change.path, mend="run the setup again")
    journal.add_file(change)
    path = system.path(change.path)
    if change.after is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, change.after, change.mode)


def undo(system: System, say: Say, *, force: bool = False) -> Undone:
    """Take all setups back: commands, files byte for byte, directories, and kdumpy's own state.

    Args:
        system: the machine.
        say: told one line for each thing done.
        force: restore files, too, that somebody changed after the setup.

    Raises:
        HostError: nothing was set up, or the journal is damaged.
    """
    if not was_set_up(system):
        raise HostError("there is nothing to undo", where=JOURNAL, why="this host was not set up by kdumpy")
    journal = _Journal.read(system)
    failed = [*_run_undo(system, [entry for entry in reversed(journal.commands) if entry["first"]], say)]
    restored, removed, left = [], [], []
    for path, entry in reversed(journal.files.items()):
        now = system.read_bytes(path)
        if (None if now is None else _digest(now)) != entry["made"] and not force:
            left.append(path)
            say(f"left as it is, it was changed since: {path}")
            continue
        if entry["backup"] is not None:
            before = system.read_bytes(f"{BACKUPS}/{entry['backup']}")
            if before is None:
                raise HostError("the copy of a file is gone", where=f"{BACKUPS}/{entry['backup']}", why=path)
            _write(system.path(path), before, entry.get("mode", 0o644), tuple(entry.get("owner", (-1, -1))))
            restored.append(path)
        elif now is not None:
            system.path(path).unlink()
            removed.append(path)
        say(f"{'restored' if entry['backup'] is not None else 'removed'} {path}")
    failed += _run_undo(system, [entry for entry in journal.commands if not entry["first"]], say)
    for directory in reversed(journal.directories):
        with contextlib.suppress(OSError):        # something else lies in it now
            system.path(directory).rmdir()
            removed.append(directory)
    if left:
        # What they were is still wanted.
        journal.files = {path: journal.files[path] for path in left}
        journal.commands, journal.directories, journal.unfinished = [], [], []
        journal.write()
    else:
        shutil.rmtree(system.path(HOME))
    return Undone(tuple(restored), tuple(removed), tuple(left), tuple(failed))


def _run_undo(system: System, entries: list[dict[str, Any]], say: Say) -> Iterator[str]:
    for entry in entries:
        try:
            system.run(entry["words"], seconds=300)
            say(f"ran {' '.join(entry['words'])}")
        except HostError as error:
            failure = f"{' '.join(entry['words'])}: {error.why or error.what}"
            say(f"failed: {failure}")
            yield failure


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes, mode: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Replace a file in one step, through a link to where it leads; one that is there keeps its mode and owner.

    Args:
        path: the file.
        data: its contents.
        mode: of a new file.
        owner: of a new file, user and group; -1: who runs this.

    Raises:
        HostError: it cannot be written.
    """
    real = path.resolve()
    partial = real.with_name(f".{real.name}.kdumpy")
    try:
        status = real.stat() if real.exists() else None
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), *(owner if status is None else (status.st_uid, status.st_gid)))
            os.fchmod(file.fileno(), mode if status is None else status.st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(real)
        directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise HostError("cannot write the file", where=str(path), why=error.strerror or str(error)) from error
