"""`extend`: commands of the user's own, out of Python files."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from kdumpy.crash import registry
from kdumpy.crash.command import Arg, Command, Line, Options, TextCommand
from kdumpy.crash.session import Session
from kdumpy.errors import KdumpyError, UsageError


def folder() -> Path:
    """Return where extensions are looked for (XDG configuration directory)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kdumpy" / "extensions"


class Extend(TextCommand):
    """Load commands out of Python files; without a file, list those that are loaded.

    A file holds commands as kdumpy's own are written: a subclass of kdumpy.crash.command.Command, and its object
    as COMMAND, or several in COMMANDS. Files in ~/.config/kdumpy/extensions are loaded when the shell starts, and so
    are the commands of installed packages (entry points kdumpy.crash_commands).
    crash's extensions are shared objects for crash itself, and cannot be loaded.

    Example:
        crash> extend -s
        ~/.config/kdumpy/extensions: nothing there
    """

    names = ("extend",)
    example = "extend -s"
    args = (
        Arg("files", nargs="*", metavar="FILE", help="Python files"),
        Arg("-u", dest="unload", action="store_true", help="forget the commands of these files, or of all"),
        Arg("-s", dest="show", action="store_true", help="the files that could be loaded"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Load or unload; yield what there is."""
        session.load_packages()
        if options.show:
            found = sorted(folder().glob("*.py")) if folder().is_dir() else []
            yield from (Line(str(path)) for path in found)
            if not found:
                yield Line(f"{folder()}: nothing there")
            return
        for text in options.files or (list(_loaded()) if options.unload else []):
            path = text if text in _loaded() else str(_found(text))
            if options.unload:
                gone = [name for name, origin in registry.EXTENSIONS.items() if origin[0] == path]
                if not gone:
                    raise UsageError("nothing of this file is loaded", where=path)
                for name in gone:
                    del registry.EXTENSIONS[name]
                yield Line(f"{path}: forgotten: {' '.join(gone)}")
            else:
                yield Line(f"{path}: loaded: {' '.join(load(Path(path)))}")
        if not options.files and not options.unload:
            loaded = _loaded()
            yield from (Line(f"{path}: {' '.join(names)}") for path, names in loaded.items())
            if not loaded:
                yield Line("no extension is loaded")


def load(path: Path) -> list[str]:
    """Load the commands of a file; return their names.

    Raises:
        UsageError: it is no Python file, has no command, or one with the name of another.
        KdumpyError: it fails.
    """
    if path.suffix != ".py":
        raise UsageError("extensions are Python files", where=str(path),
                         why="crash's shared objects are made for crash itself", mend="see 'help extend'")
    spec = importlib.util.spec_from_file_location(f"kdumpy_extension_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError("this is no Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module     # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:          # of whatever kind: it is somebody else's code
        raise KdumpyError("the extension fails", where=str(path), why=f"{type(error).__name__}: {error}") from error
    return add(module, str(path))


def add(module: object, origin: str) -> list[str]:
    """Make the commands of a module (or a command itself) known; return their names.

    Raises:
        UsageError: it has no command, or one with the name of another.
    """
    commands = [module] if isinstance(module, Command) else \
        [*getattr(module, "COMMANDS", ()), *([module.COMMAND] if hasattr(module, "COMMAND") else ())]
    if not commands or not all(isinstance(command, Command) for command in commands):
        raise UsageError("the file has no command", where=origin, mend="it needs COMMAND or COMMANDS")
    names = [name for command in commands for name in command.names]
    taken = [name for name in names if name in registry.COMMANDS or name in registry.LEAVING]
    if taken:
        raise UsageError(f"{taken[0]!r} is a command already", where=origin)
    for command in commands:
        for name in command.names:
            registry.EXTENSIONS[name] = (origin, command)
    return names


def _found(text: str) -> Path:
    path = Path(text).expanduser()
    for place in (path, folder() / text, folder() / f"{text}.py"):
        if place.is_file():
            return place.resolve()
    raise UsageError("no such file", where=text, mend=f"extensions can lie in {folder()}")


def _loaded() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, (path, _) in registry.EXTENSIONS.items():
        found.setdefault(path, []).append(name)
    return found


COMMAND = Extend()
