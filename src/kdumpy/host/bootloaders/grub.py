"""GRUB 2 whose menu is made from /etc/default/grub: Debian, Ubuntu, openSUSE, Arch and many others.

Where the distribution's grub-mkconfig reads /etc/default/grub.d, a new parameter goes into a file of ours there, and
no file of the administrator or of a package is touched; else it goes into /etc/default/grub. What is set by hand is
changed where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import grubcfg, parameters, shell
from kdumpy.host.bootloaders.files import changed, text_of
from kdumpy.host.changes import Change, Command, FileChange, remove, write
from kdumpy.host.system import System

SETTINGS = "/etc/default/grub"
SNIPPETS = "/etc/default/grub.d"
OURS = f"{SNIPPETS}/kdumpy.cfg"

PACKAGED = (f"{SNIPPETS}/kdump-tools.cfg",)
"""Snippets that belong to packages (dpkg asks at an upgrade when they were changed): ours comes after them, and of
several crashkernel= the kernel takes the last; but any plain one before `,high`, see `_beside`."""

COMMON, NORMAL = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
"""Parameters of every entry, and those that entries other than the recovery ones get after them (10_linux)."""

HEAD = "# Parameters that kdumpy needs. `kdumpy setup` writes this file, `kdumpy setup --undo` removes it.\n"

CONFIGURATIONS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
ON_ESP = ("boot/efi/EFI/*/grub.cfg", "efi/EFI/*/grub.cfg")
"""Old Fedora, RHEL and CentOS have the whole menu there; now it is a stub that reads the other one."""

MKCONFIG = ("grub-mkconfig", "grub2-mkconfig")

SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")
"""Letters that neither /bin/sh nor GRUB's own language takes for something else."""


class Grub:
    """GRUB with generated menu entries."""

    name = "grub"

    def next_cmdline(self, system: System) -> str | None:
        """Return what the default entry of grub.cfg has."""
        path = configuration(system)
        text = system.read(path) if path else None
        if path is None or text is None:
            return None
        read = grubcfg.menu(text)
        environment = {**read.variables, **environment_of(system, path)}
        entry = grubcfg.chosen(read, environment)
        return grubcfg.expand(entry.cmdline, environment) if entry and entry.cmdline is not None else None

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to the settings, and the command that makes grub.cfg of them."""
        files = Settings(system)
        for name, value in parameters.items():
            files.set(name, value)
        changes = tuple(files.changes())
        return (*changes, update(system)) if changes else ()


class Settings:
    """The files that grub-mkconfig reads, in its order, with the edits that were made."""

    def __init__(self, system: System, *, snippets: bool | None = None) -> None:
        self._system = system
        self.snippets = reads_snippets(system) if snippets is None else snippets
        paths = [SETTINGS, *(system.glob(f"{SNIPPETS}/*.cfg") if self.snippets else ())]
        self._texts = {path: text for path in paths if (text := text_of(system, path)) is not None}
        self._ours = _ours(self._texts.get(OURS))

    def set(self, name: str, value: str | None) -> None:
        """Set a parameter (None: remove it), where it stands by hand, else in our own snippet or in the settings.

        Raises:
            HostError: a file cannot be edited, or one that is not understood decides about the parameter.
        """
        if value is not None and not all(map(SAFE.fullmatch, parameters.each(name, value))):
            raise HostError("GRUB's configuration cannot hold this parameter", where=f"{name}={value}"[:80],
                            why="its tools copy values without quotes")
        left = PACKAGED if value is not None and _beside(value) else ()
        by_hand = [path for path in self._texts if path != OURS and path not in left]
        homes = [(path, one.name) for path in by_hand for one in self._certain(path)
                 if parameters.values(one.text, name)]
        own = [at for at, (path, _) in enumerate(homes) if value is not None and path not in PACKAGED]
        for at, (path, variable) in enumerate(homes):
            if at not in own[-1:]:
                self._edit(path, variable, name, None)
        if own:
            self._edit(*homes[own[-1]], name, value)
        if value is None:
            self._ours.pop(name, None)
        elif self.snippets:
            if self.effective(name, len(parameters.each(name, value)), without_ours=True) != value:
                self._ours[name] = value
            else:
                self._ours.pop(name, None)
        elif not own:
            self._append(name, value)
        self._hold(name, value)

    def _hold(self, name: str, value: str | None) -> None:
        """Make sure that the files say what was meant: another one may come after, or say it in a condition."""
        if self.effective(name, len(parameters.each(name, value or ""))) == value:
            return
        culprit = next((path for path, text in reversed(self._texts.items()) if path != OURS
                        and any(one.name in (COMMON, NORMAL) for one in shell.assignments(text, path))), SETTINGS)
        raise HostError(f"{name} cannot be set in GRUB's configuration", where=culprit,
                        why="it sets the command line itself, in a way that is not understood",
                        mend=f"set {name}{'' if value is None else '=' + value} there by hand, or remove it")

    def effective(self, name: str, count: int = 1, *, without_ours: bool = False) -> str | None:
        """Return the last `count` values of a parameter after all files, with blanks between; None: it is not there.

        An unknown part of the command line is passed over.
        """
        found = parameters.values(self.cmdline(without_ours=without_ours), name)
        return " ".join(value or "" for value in found[-count:]) if found else None

    def cmdline(self, *, without_ours: bool = False) -> str:
        """Return the parameters that the files give a normal entry."""
        variables: dict[str, str] = {}
        texts = {path: text for path, text in self._texts.items() if path != OURS}
        if self._ours and not without_ours:
            texts[OURS] = self.snippet()
        for path in [SETTINGS, *sorted(path for path in texts if path != SETTINGS)]:
            for one in shell.assignments(texts.get(path, ""), path):
                before = variables.get(one.name, "") if one.adds else ""
                variables[one.name] = before + one.expanded(variables)
        return f"{variables.get(COMMON, '')} {variables.get(NORMAL, '')}".strip()

    def snippet(self) -> str:
        """Return our own file's text."""
        added = " ".join(parameters.spell(name, value) for name, value in self._ours.items())
        return f'{HEAD}{NORMAL}="${NORMAL} {added}"\n'

    def changes(self) -> Iterator[FileChange]:
        """Yield the changes that were made."""
        why = "parameters of the next boots"
        for path, text in self._texts.items():
            if path != OURS:
                yield from changed(self._system, path, text, why)
        if self._ours:
            yield from write(self._system, OURS, self.snippet(), why)
        else:
            yield from remove(self._system, OURS, "it is not needed any more")

    def _certain(self, path: str) -> list[shell.Assignment]:
        return [one for one in shell.assignments(self._texts[path], path)
                if one.certain and one.name in (COMMON, NORMAL)]

    def _edit(self, path: str, variable: str, name: str, value: str | None) -> None:
        """Edit the last assignment of a variable in a file that holds the parameter, or the last one at all."""
        found = [one for one in self._certain(path) if one.name == variable]
        holding = [one for one in found if parameters.values(one.text, name)] or found
        self._texts[path] = shell.edited(self._texts[path], holding[-1], name, value, path)

    def _append(self, name: str, value: str) -> None:
        """Add a parameter to /etc/default/grub: to the variable that is used there, else in a line of its own."""
        text = self._texts.setdefault(SETTINGS, "")
        used = {one.name for one in self._certain(SETTINGS)}
        for variable in (NORMAL, COMMON):
            if variable in used:
                self._edit(SETTINGS, variable, name, value)
                return
        end = "" if not text or text.endswith("\n") else "\n"
        self._texts[SETTINGS] = f"{text}{end}{NORMAL}={shell.quoted(parameters.spell(name, value))}\n"


def _beside(value: str) -> bool:
    """Tell whether a value may come after another of its name: the kernel looks for a plain crashkernel= first."""
    return all(one.rpartition(",")[2] not in ("high", "low", "cma") for one in value.split(" "))


def _ours(text: str | None) -> dict[str, str]:
    """Return what our own snippet sets; anybody's edits of it are lost, as its first line says."""
    found: dict[str, str] = {}
    for one in shell.assignments(text or "", OURS):
        for word in parameters.words(one.text):
            if shell.OPAQUE not in word.name:
                also = f"{found[word.name]} " if word.name in found and word.name in parameters.SEVERAL else ""
                found[word.name] = also + (word.value or "")
    return found


def reads_snippets(system: System) -> bool:
    """Tell whether this distribution's grub-mkconfig reads /etc/default/grub.d: Debian's and its kin's do."""
    for program in MKCONFIG:
        path = system.which(program)
        if path is not None:
            return "/default/grub.d/" in (system.read(path) or "")
    return False


def configuration(system: System) -> str | None:
    """Return the grub.cfg that holds the menu."""
    for path in (*CONFIGURATIONS, *(found for pattern in ON_ESP for found in system.glob(pattern))):
        text = system.read(path)
        if text is not None and ("menuentry" in text or "blscfg" in text):
            return path
    return next((path for path in CONFIGURATIONS if system.exists(path)), None)


def environment_of(system: System, path: str) -> dict[str, str]:
    """Return the variables of the environment block beside a grub.cfg."""
    return grubcfg.environment(system.read(f"{path.rpartition('/')[0]}/grubenv"))


def update(system: System) -> Command:
    """Return the command that makes grub.cfg of the settings.

    Raises:
        HostError: there is none, or no menu that it would write.
    """
    why = "GRUB's menu with the new parameters"
    if system.which("update-grub"):
        return Command(("update-grub",), why, ("update-grub",))
    path, program = configuration(system), next((name for name in MKCONFIG if system.which(name)), None)
    if path is None or program is None:
        raise HostError("GRUB's menu cannot be made", why=f"no {'grub.cfg' if program else 'grub-mkconfig'} is here",
                        mend="install GRUB's tools (grub2-common, grub2-tools or grub)")
    return Command((program, "-o", path), why, (program, "-o", path))


def detect(system: System) -> Grub | None:
    """Return GRUB when its menu is here and is not made of boot loader entries."""
    path = configuration(system)
    if path is None or grubcfg.menu(system.read(path) or "").bls:
        return None
    return Grub() if system.exists(SETTINGS) or system.exists(SNIPPETS) else None
