"""extlinux.conf, as U-Boot and syslinux read it: made by Debian's u-boot-update, by update-extlinux, or by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kdumpy.host.bootloaders import parameters, shell
from kdumpy.host.bootloaders.files import changed, one_line, text_of
from kdumpy.host.changes import Change, Command, FileChange
from kdumpy.host.system import System

MENUS = ("/boot/extlinux/extlinux.conf", "/boot/extlinux.conf", "/boot/firmware/extlinux/extlinux.conf")

UBOOT_SETTINGS = "/etc/default/u-boot"
UBOOT_SNIPPETS = "/etc/u-boot-menu/conf.d/*.conf"
UBOOT_VARIABLE = "U_BOOT_PARAMETERS"
UBOOT_DEFAULT = "ro quiet"
"""What u-boot-update takes where nothing sets the variable."""

SYSLINUX_SETTINGS, SYSLINUX_VARIABLE = "/etc/update-extlinux.conf", "default_kernel_opts"
"""Alpine's."""

NEW_KERNELS = "/etc/kernel/cmdline"

APPEND = re.compile(r"\s*append\s+", re.IGNORECASE)
LABEL = re.compile(r"\s*label\s+(\S+)", re.IGNORECASE)
DEFAULT = re.compile(r"(default)\s+(\S+)|\s+(menu\s+default)\s*$", re.IGNORECASE)

WHY = "parameters of the boot menu's entries"


class Extlinux:
    """A menu in extlinux.conf."""

    name = "extlinux"

    def next_cmdline(self, system: System) -> str | None:
        """Return what the default label appends, else the first."""
        found: dict[str, str] = {}
        label = default = ""
        for line in (text_of(system, _menu(system) or MENUS[0]) or "").splitlines():
            if match := LABEL.match(line):
                label = match[1]
            elif match := DEFAULT.match(line):
                default = match[2] or label
            elif (match := APPEND.match(line)) and label not in found:
                found[label] = line[match.end():].strip()
        return found.get(default) or next(iter(found.values()), None)

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to what the menu is made of, and the command that makes it; else to the menu itself."""
        if system.which("u-boot-update"):
            return _made(_uboot(system, parameters), ("u-boot-update",))
        if system.which("update-extlinux") and system.exists(SYSLINUX_SETTINGS):
            files = _assigned(system, SYSLINUX_SETTINGS, SYSLINUX_VARIABLE, parameters, "")
            return _made(files, ("update-extlinux",))
        path = _menu(system) or MENUS[0]
        lines = (text_of(system, path) or "").splitlines(keepends=True)
        for at, line in enumerate(lines):
            if match := APPEND.match(line):
                lines[at] = line[:match.end()] + _edited(line[match.end():], parameters)
        return changed(system, path, "".join(lines), WHY)


def _menu(system: System) -> str | None:
    return next((path for path in MENUS if system.exists(path)), None)


def _made(files: tuple[FileChange, ...], words: tuple[str, ...]) -> tuple[Change, ...]:
    return (*files, Command(words, "the boot menu with the new parameters", words)) if files else ()


def _edited(text: str, changes: Mapping[str, str | None]) -> str:
    for name, value in changes.items():
        text = parameters.edit(text, name, value)
    return text


def _uboot(system: System, changes: Mapping[str, str | None]) -> tuple[FileChange, ...]:
    """Return the change to the file that u-boot-update takes the parameters from: the last one that sets them."""
    reads = system.read(system.which("u-boot-update") or "") or ""
    snippets = system.glob(UBOOT_SNIPPETS) if "u-boot-menu/conf.d" in reads else []
    for path in (*reversed(snippets), UBOOT_SETTINGS):
        text = text_of(system, path)
        if text is not None and any(one.name == UBOOT_VARIABLE for one in shell.assignments(text, path)):
            return _assigned(system, path, UBOOT_VARIABLE, changes, "")
    if NEW_KERNELS in reads and system.exists(NEW_KERNELS):
        return one_line(system, NEW_KERNELS, dict(changes), WHY)
    return _assigned(system, UBOOT_SETTINGS, UBOOT_VARIABLE, changes, UBOOT_DEFAULT)


def _assigned(system: System, path: str, variable: str, changes: Mapping[str, str | None],
              default: str) -> tuple[FileChange, ...]:
    """Return the change to a variable of a settings file, or a new line that sets it to its default and more."""
    text = text_of(system, path) or ""
    if any(one.name == variable for one in shell.assignments(text, path)):
        for name, value in changes.items():
            last = [one for one in shell.assignments(text, path) if one.name == variable][-1]
            text = shell.edited(text, last, name, value, path)
    elif (after := _edited(default, changes)) != default:
        text += ("" if not text or text.endswith("\n") else "\n") + f"{variable}={shell.quoted(after)}\n"
    return changed(system, path, text, WHY)


def detect(system: System) -> Extlinux | None:
    """Return it when there is a menu."""
    return Extlinux() if _menu(system) else None
