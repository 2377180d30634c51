"""zipl of s390: sections of /etc/zipl.conf (Debian, Ubuntu), or boot loader entries (RHEL, Fedora).

zipl writes the parameters into the boot record, so it runs after each change. SUSE starts GRUB from it, see grub.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import entries, grub, parameters
from kdumpy.host.bootloaders.files import changed, one_line, text_of
from kdumpy.host.changes import Change, Command, FileChange
from kdumpy.host.system import System

CONFIGURATIONS = ("/run/zipl/zipl.conf", "/etc/zipl.conf", "/lib/s390-tools/zipl.conf",
                  "/usr/lib/s390-tools/zipl.conf")
"""The first that is there counts: zipl.conf(5)."""

ENTRIES = "/boot/loader/entries"
NEW_KERNELS = "/etc/kernel/cmdline"

HEADING = re.compile(r"\s*(?:\[([^\]]+)\]|:(\S+))\s*(?:#.*)?$")
ASSIGNED = re.compile(r"""(\s*(\w[\w-]*)\s*=\s*)(?:(["'])(.*?)\3|([^#\n]*?))(\s*(?:\#.*)?)$""")

WHY = "parameters that zipl writes into the boot record"


@dataclass(frozen=True, slots=True)
class Setting:
    """`name = value` in a section."""

    section: str
    """A menu's name starts with `:`."""
    name: str
    value: str
    line: int
    start: int
    """Where the value starts in its line, within its quotes."""
    quote: str


class Zipl:
    """zipl, with a configuration, entries, or both."""

    name = "zipl"

    def next_cmdline(self, system: System) -> str | None:
        """Return the parameters of the default section, or of the first entry."""
        path = configuration(system)
        read = list(settings(text_of(system, path) or "", path)) if path else []
        found = {(one.section, one.name): one.value for one in read}
        section = found.get(("defaultboot", "default"), "")
        menu = found.get(("defaultboot", "defaultmenu"))
        if menu is not None:
            section = found.get((f":{menu}", found.get((f":{menu}", "default"), "1")), "")
        own = [one.section for one in read if one.name in ("image", "kernel")]
        section = section if section in own else next(iter(own), "")
        if section:
            return _of_section(system, section, found)
        bls = entries.read(system, ENTRIES)
        return bls[0].options if bls else None

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to sections, parameter files and entries, and zipl's run."""
        done: list[FileChange] = []
        path = configuration(system)
        if path is not None:
            done += _in_configuration(system, path, parameters)
        done += entries.plan(system, entries.read(system, ENTRIES), parameters)
        done += one_line(system, NEW_KERNELS, dict(parameters), "parameters of kernels that are installed later")
        return (*done, Command(("zipl",), "the boot record with the new parameters", ("zipl",))) if done else ()


def configuration(system: System) -> str | None:
    """Return the configuration that zipl reads."""
    return next((path for path in CONFIGURATIONS if system.exists(path)), None)


def settings(text: str, where: str) -> Iterator[Setting]:
    """Yield what a zipl.conf sets.

    Raises:
        HostError: quotes are open.
    """
    section = ""
    for number, line in enumerate(text.splitlines()):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        heading = HEADING.match(line)
        if heading:
            section = heading[1] or f":{heading[2]}"
            continue
        match = ASSIGNED.match(line)
        if match is None:
            continue                    # a bare word, such as defaultauto
        value = match[4] if match[3] else match[5]
        if not match[3] and value[:1] in ('"', "'"):
            raise HostError("the configuration of zipl cannot be read", where=f"{where}, line {number + 1}",
                            why=f"a {value[0]} that is not closed", mend="correct the file; zipl fails on it, too")
        yield Setting(section, match[2], value, number, len(match[1]) + len(match[3] or ""), match[3] or "")


def _of_section(system: System, section: str, found: Mapping[tuple[str, str], str]) -> str | None:
    """Return a section's parameters, which may stand in a file of their own."""
    file = found.get((section, "parmfile"))
    lines = (text_of(system, file) or "").split("\n") if file else []
    return " ".join([*(line.strip() for line in lines if line.strip()), *(
        [found[section, "parameters"].strip()] if (section, "parameters") in found else [])])


def _in_configuration(system: System, path: str, changes: Mapping[str, str | None]) -> Iterator[FileChange]:
    """Yield the changes to sections that start a kernel, and to their parameter files."""
    text = text_of(system, path) or ""
    lines = text.splitlines(keepends=True)
    read = list(settings(text, path))
    sections = dict.fromkeys(one.section for one in read if one.name in ("image", "kernel"))
    files = {}
    for section in sections:
        own = {one.name: one for one in read if one.section == section}
        if "parameters" in own:
            _edit(lines, own["parameters"], changes, path)
        if "parmfile" in own:       # zipl takes both: what the file says goes first
            files[own["parmfile"].value] = "parameters" not in own
        elif "parameters" not in own and (added := _words(changes)):
            head = own.get("image") or own["kernel"]
            lines[head.line] = lines[head.line].rstrip("\n") + f'\nparameters = "{added}"\n'
    yield from changed(system, path, "".join(lines), WHY)
    for file, sole in files.items():
        yield from one_line(system, file, {name: value if sole else None for name, value in changes.items()}, WHY)


def _edit(lines: list[str], one: Setting, changes: Mapping[str, str | None], where: str) -> None:
    value = one.value
    for name, wanted in changes.items():
        value = parameters.edit(value, name, wanted)
    if value == one.value:
        return
    if one.quote and one.quote in value and one.quote not in one.value:
        raise HostError("the parameter cannot be written within these quotes", where=f"{where}, line {one.line + 1}",
                        why=f"its value needs a {one.quote} of its own", mend="set it there by hand")
    line = lines[one.line]
    lines[one.line] = line[:one.start] + value + line[one.start + len(one.value):]


def _words(changes: Mapping[str, str | None]) -> str:
    return " ".join(parameters.spell(name, value) for name, value in changes.items() if value is not None)


def detect(system: System) -> Zipl | None:
    """Return zipl when it is installed and does not start a GRUB."""
    if not system.which("zipl") or grub.configuration(system):
        return None
    return Zipl() if configuration(system) or system.glob(f"{ENTRIES}/*.conf") else None
