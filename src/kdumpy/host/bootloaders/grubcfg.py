"""What GRUB reads at boot: grub.cfg and its environment block. Read only, but for the environment's values.

Source: GRUB's manual, "Simple configuration", "Writing full configuration files directly", "The GRUB environment
block"; util/grub.d/00_header.in for how the default is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kdumpy.errors import HostError

HEAD = "# GRUB Environment Block\n"

QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|(\S+)""")
LINUX = re.compile(r"linux(?:16|efi)?\s+(\S+)[ \t]?(.*)")
SET = re.compile(r"""set\s+(\w+)=(?:"([^"]*)"|'([^']*)'|(\S*))""")
EXPANDED = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(slots=True)
class Entry:
    """A menu entry, or a submenu with its own."""

    title: str
    id: str
    cmdline: str | None = None
    """What follows the kernel's path; None: it starts no Linux."""
    entries: list[Entry] = field(default_factory=list)
    submenu: bool = False


@dataclass(frozen=True, slots=True)
class Menu:
    """What a grub.cfg sets and offers."""

    entries: tuple[Entry, ...]
    variables: Mapping[str, str]
    default: str
    """As written, `${saved_entry}` perhaps."""
    bls: bool
    """It reads the entries of /boot/loader/entries, too."""


def menu(text: str) -> Menu:
    """Read a grub.cfg; what is not understood is passed over."""
    top = Entry("", "")
    stack: list[tuple[Entry, int]] = [(top, 0)]
    depth, default = 0, "0"
    variables: dict[str, str] = {}
    bls = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("menuentry ", "submenu ")) and line.endswith("{"):
            entry = _entry(line)
            stack[-1][0].entries.append(entry)
            depth += 1
            stack.append((entry, depth))
        elif line.endswith("{"):
            depth += 1
        elif line == "}":
            if len(stack) > 1 and stack[-1][1] == depth:
                stack.pop()
            depth = max(0, depth - 1)
        elif (match := LINUX.match(line)) and stack[-1][0].cmdline is None and len(stack) > 1:
            stack[-1][0].cmdline = match[2].strip()
        elif match := SET.match(line):
            value = next((group for group in match.groups()[1:] if group is not None), "")
            if match[1] == "default" and "next_entry" not in value:
                default = value
            variables[match[1]] = value
        elif re.match(r"blscfg\b", line):
            bls = True
    return Menu(tuple(top.entries), variables, default, bls)


def _entry(line: str) -> Entry:
    """Read the line that opens an entry: its title, and its id, the word after $menuentry_id_option or --id."""
    words = [next(group for group in match.groups() if group is not None) for match in QUOTED.finditer(line[:-1])][1:]
    title, id_ = (words[0] if words else ""), ""
    for at, word in enumerate(words[:-1]):
        if word in ("$menuentry_id_option", "${menuentry_id_option}", "--id"):
            id_ = words[at + 1]
    return Entry(title, id_, submenu=line.startswith("submenu"))


def chosen(read: Menu, environment: Mapping[str, str]) -> Entry | None:
    """Return the entry that the next boot takes: the one for once, the default, or the first there is."""
    wanted = environment.get("next_entry") or expand(read.default, environment)
    found = _find(read.entries, wanted)
    while found is not None and found.submenu:      # a submenu as default: its first entry
        found = found.entries[0] if found.entries else None
    return found or _first(read.entries)


def _find(entries: tuple[Entry, ...] | list[Entry], wanted: str) -> Entry | None:
    """Return the entry that `0`, `1>2`, a title or an id names."""
    head, deeper, rest = wanted.partition(">")
    for at, entry in enumerate(entries):
        if head in (str(at), entry.id, entry.title) and head:
            return _find(entry.entries, rest) if deeper else entry
    return None


def _first(entries: tuple[Entry, ...] | list[Entry]) -> Entry | None:
    for entry in entries:
        found = _first(entry.entries) if entry.submenu else entry
        if found is not None and found.cmdline is not None:
            return found
    return None


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its variables' values; one that nothing sets is empty."""
    return EXPANDED.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def environment(text: str | None) -> dict[str, str]:
    """Return the variables of an environment block; none when there is no block."""
    values = {}
    for line in (text or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = re.sub(r"\\(.)", r"\1", value)
    return values


def with_value(text: str, name: str, value: str, where: str) -> str:
    """Return an environment block with a variable set; its size stays, as GRUB writes into its blocks on the disk.

    Raises:
        HostError: it is no environment block, or the value does not fit.
    """
    size, body = len(text.encode(errors="surrogateescape")), text.rstrip("#")
    if not text.startswith(HEAD):
        raise HostError("this is no GRUB environment block", where=where)
    escaped = re.sub(r"([\\\n])", r"\\\1", value)
    line = f"{name}={escaped}\n"
    pattern = re.compile(rf"^{re.escape(name)}=.*\n", re.MULTILINE)
    body = pattern.sub(lambda _: line, body, count=1) if pattern.search(body) else body + line
    used = len(body.encode(errors="surrogateescape"))
    if used > size:
        raise HostError("the GRUB environment block is full", where=where, why=f"{used} bytes are needed of {size}",
                        mend="remove parameters from kernelopts, or set them in the boot entries themselves")
    return body + "#" * (size - used)
