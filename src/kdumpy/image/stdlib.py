"""Which modules of the standard library a program may import: those its source names, and those these import.

Found by importing them in a Python of its own, so that what counts is what really happens on this machine.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from kdumpy.errors import HostError

FILES = Path(__file__).parent / "files"

ALWAYS = ("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8", "linecache", "runpy",
          "traceback", "warnings")
"""Imported by the interpreter itself: at its start, for a host's name, when it prints a traceback."""

BLOCKED = frozenset({"_hashlib", "_ssl", "bz2", "ctypes", "decimal", "lzma"})
"""Taken by others where it is there, at the price of a library or much code, and not missed when it is not.

hashlib has its own SHA-256 without OpenSSL. What kdumpy's own source names is let through.
"""

NEVER = frozenset({
    "_pydecimal", "_pyio", "asyncio", "bdb", "cmd", "code", "concurrent", "csv", "curses", "difflib", "distutils",
    "doctest", "email", "ensurepip", "getpass", "gettext", "idlelib", "imp", "importlib.metadata", "importlib.readers",
    "importlib.resources", "ipaddress", "lib2to3", "logging", "multiprocessing", "nturl2path", "optparse", "pdb",
    "plistlib", "pprint", "pydoc", "quopri", "readline", "rlcompleter", "sqlite3", "ssl", "statistics", "tarfile",
    "test", "tkinter", "tracemalloc", "turtle", "turtledemo", "unicodedata", "unittest", "uuid", "venv", "webbrowser",
    "xml", "zipfile", "zipimport", "__main__", *BLOCKED})
"""Named inside of functions of the standard library that a capture does not call, and large."""


def interpreter() -> Path:
    """Return the real interpreter, outside of a virtual environment."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return Path(base).resolve()


def modules_of(directory: Path, names: Iterable[str], preload: Path,
               without: Collection[str] = ()) -> dict[str, Path]:
    """Return what importing `names` and everything that their source mentions brings in: name → file.

    Args:
        directory: where the program and its libraries lie.
        names: modules, or `module:name`, that must be there.
        preload: a directory of shared libraries that come before the system's.
        without: modules of the standard library that are not wanted although the source names them.

    Raises:
        HostError: one of `names` cannot be imported.
    """
    own = {name for path in directory.rglob("kdumpy/**/*.py") for name in imports(path)}
    own = {name for name in own if name.split(".")[0] in sys.stdlib_module_names}
    own -= set(without)
    blocked = BLOCKED - own - ({"_ssl"} if "ssl" in own else set())
    wanted = [*(f"!{name}" for name in sorted(blocked)), *names]
    wanted += [f"?{name}" for name in (*ALWAYS, *sorted(own)) if name not in without]
    found = _census(directory, wanted, preload)
    # What a function of the standard library imports only when it is called (strptime, say) counts as well.
    standard = [path for path in found.values() if path.suffix == ".py" and not path.is_relative_to(directory)]
    late = {name for path in standard for name in imports(path) if not {name, name.split(".")[0]} & NEVER}
    late -= set(without)
    late &= {name for name in late if name.split(".")[0] in sys.stdlib_module_names}
    return _census(directory, [*wanted, *(f"?{name}" for name in sorted(late))], preload)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a source file names, absolute ones, those of type checking not."""
    tree = ast.parse(path.read_bytes())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(below for part in node.body for below in ast.walk(part))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def _census(directory: Path, modules: list[str], preload: Path) -> dict[str, Path]:
    command = [str(interpreter()), "-I", "-S", "-B", str(FILES / "census.py"), str(directory), *modules]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(preload)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise HostError("the capture's Python does not import what it needs", where=str(directory),
                        why=lines[-1] if lines else f"exit code {done.returncode}")
    rows = (line.split("\t") for line in done.stdout.splitlines())
    # Frozen modules lie in the interpreter. It finds its library by os, which is one of them, all the same.
    return {name: Path(file) for name, file, origin in rows
            if (origin != "frozen" or name == "os") and name not in ("__main__", "os.path")}
