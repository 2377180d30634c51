"""`mod`: the loaded modules."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.session import Session
from kdumpy.errors import DamagedDump, NotInDump, UsageError

REFUSED = {
    "-d": "symbols come out of the dump, so there is nothing to unload",
    "-D": "symbols come out of the dump, so there is nothing to unload",
    "-r": "it is about gdb's reading of files, and there is no gdb", "-R": "a dump does not load modules anew",
    "-o": "it is about crash's own way to find symbols",
    "-g": "the names of a module's sections are not kept by the kernel; 'sym -m NAME' lists its symbols",
}
"""Options of crash that mean nothing without gdb."""


@dataclass(frozen=True)
class ModuleRow:
    """A module."""

    address: int
    """Address of its struct module."""
    name: str
    base: int
    """Where its code begins."""
    size: int
    """Bytes."""
    object_file: str
    """The file with its DWARF, or empty."""
    taints: str
    """Its taint letters, empty for a module of the kernel's own tree."""
    used_by: tuple[str, ...]
    version: str
    state: str
    """live, loading, unloading."""


class Mod(Command[ModuleRow]):
    """List the loaded modules. Their symbols and types are there already, out of the dump.

    Example:
        crash> mod -t
        NAME   TAINTS
        flaky  OE
    """

    names = ("mod",)
    example = "mod"
    row = ModuleRow
    args = (
        Arg("which", nargs="*", metavar="NAME", help="these modules only"),
        Arg("-t", dest="taints", action="store_true", help="the modules that taint the kernel, and how"),
        Arg("-u", dest="users", action="store_true", help="which modules use each one, its state and version"),
        Arg("-s", dest="load", nargs="+", metavar="NAME [FILE]",
            help="load the DWARF of a module, out of a file if given"),
        *(Arg(name, dest="refused", action="append_const", const=name, help=f"not here: {why}")
          for name, why in REFUSED.items()),
        Arg("-S", dest="load_all", nargs="?", const="", metavar="FOLDER", help="load the DWARF of all modules"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[ModuleRow]:
        """Yield the modules, newest first."""
        for name in options.refused or ():
            raise UsageError(f"{name} has no meaning here", why=REFUSED[name])
        if options.load or options.load_all is not None:
            yield from _loaded(session, options)
            return
        yield from self._listed(session, options)

    @staticmethod
    def _listed(session: Session, options: Options) -> Iterator[ModuleRow]:
        files = {module.name: module.debug_file_path or "" for module in session.prog.modules()}
        found = False
        modules = session.kernel.modules
        problem = session.kernel.problems.get("modules", "")
        if not modules and (problem or session.kernel.debuginfo.missing):
            raise NotInDump("the list of modules cannot be read", why=problem)
        for module in modules:
            if options.which and module.name not in options.which:
                continue
            if options.taints and not module.taints:
                continue
            found = True
            yield ModuleRow(module.address, module.name, module.base, module.size, files.get(module.name, ""),
                            module.taints, module.used_by, module.version, module.state)
        problem = problem or session.kernel.problems.get("modules not read", "")
        if problem:
            raise DamagedDump("not all modules can be read", why=problem)
        if options.which and not found:
            raise NotInDump(f"no module of the name {', '.join(options.which)} was loaded")

    def render(self, rows: Iterable[ModuleRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the modules out as crash does."""
        found = sorted(rows, key=lambda row: row.base)
        if options.taints:
            if not found:
                yield "no tainted modules"
                return
            yield from columns(("NAME", "TAINTS"), ((row.name, row.taints) for row in found), "<<")
        elif options.users:
            yield from columns(("NAME", "STATE", "VERSION", "USED BY"),
                               ((row.name, row.state, row.version or "-", ", ".join(row.used_by) or "-")
                                for row in found), "<<<<")
        else:
            yield from columns(
                ("     MODULE", "NAME", "   TEXT_BASE", "SIZE", "OBJECT FILE"),
                ((f"{row.address:016x}", row.name, f"{row.base:016x}", str(row.size),
                  row.object_file or "(symbols from the dump)") for row in found), "<<<><")


def _loaded(session: Session, options: Options) -> Iterator[ModuleRow]:
    """Load DWARF by drgn's command; yield the modules that have it now.

    Raises:
        NotInDump: none was found.
    """
    words = ["-s", *options.load] if options.load else ["-S", *([options.load_all] if options.load_all else [])]
    with contextlib.suppress(drgn.MissingDebugInfoError):      # of some modules: which have it is asked below
        for _ in session.engine.lines(f"mod {shlex.join(words)}"):
            pass
    options.which = [*options.which, *options.load[:1]] if options.load else options.which
    found = [row for row in COMMAND._listed(session, options) if row.object_file]
    if not found:
        name = options.load[0] if options.load else "any module"
        raise NotInDump(f"no file with the DWARF of {name} was found",
                        why="symbols and types come out of the dump all the same",
                        mend="mod -s NAME FILE, or mod -S FOLDER")
    yield from found


COMMAND = Mod()
