"""Describe a dump: its format, the kernel, what it holds, and whether it is whole.

The bar shows all memory of the machine, by what its pages were used for: in capitals what the dump holds, in small
letters what was left out.

examples:
  kdumpy info vmcore              from the headers and samples, at once
  kdumpy info --deep vmcore       read every page
  kdumpy info --json vmcore | jq .pages_by_kind.kinds.free

Exits with 1 when the dump is incomplete or damaged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli import progress
from kdumpy.cli.common import add_json, colourful, print_json
from kdumpy.errors import KdumpyError
from kdumpy.units import human_bytes, human_time, printable

if TYPE_CHECKING:
    from kdumpy.capture.census import Census
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.health import Health

# Source: makedumpfile(8), option -d; the bits add up.
LEVELS = {1: "zero pages", 2: "page cache", 4: "page cache of private pages", 8: "user data", 16: "free pages"}
_RANGES = 4
"""Ranges of lost memory that are printed; JSON has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("vmcore", type=Path, metavar="VMCORE", help="the dump: ELF, kdump-compressed or flattened")
    parser.add_argument("--deep", action="store_true", help="read every page, to be sure that each can be read")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the description; 1 when the dump is not whole."""
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.health import State, health

    with open_dump(arguments.vmcore) as dump:
        state = health(dump, deep=arguments.deep, progress=_progress(dump.page_size) if arguments.deep else None)
        found = describe(dump, arguments.vmcore, state)
        lost = _lost(dump) if state.state is not State.COMPLETE else []
        kinds = _kinds(dump)
    if arguments.json:
        print_json({**found, "lost_ranges": [[address, size] for address, size in lost],
                    "pages_by_kind": kinds.as_json() if kinds else None})
    else:
        _show(found, lost)
        if kinds:
            _show_kinds(kinds, sum(size for _address, size in lost))
    return 0 if state.state is State.COMPLETE else 1


def _kinds(dump: Dump) -> Census | None:
    """Return the pages by kind; None where the dump's own tables cannot be read, which its health has told."""
    from kdumpy.capture.census import census

    try:
        return census(dump)
    except KdumpyError:
        return None


def _lost(dump: Dump) -> list[tuple[int, int]]:
    """Return (physical address, bytes) of what a dump that is not whole has lost."""
    from kdumpy.dumpfile.rebuild import lost_extents

    try:
        return lost_extents(dump)
    except KdumpyError:
        return []


def describe(dump: Dump, path: Path, state: Health) -> dict[str, object]:
    """Return what there is to say of a dump; a value that the dump does not tell is None."""
    from kdumpy.dumpfile.kdumpwriter import erase_information

    try:
        names = dump.utsname
    except KdumpyError:
        names = None
    info = dump.vmcoreinfo
    level = dump.dump_level
    return {
        "path": str(path),
        "format": dump.format,
        "compression": dump.compression,
        "file_bytes": sum(part.source.file_size for part in getattr(dump, "parts", ())) or dump.source.file_size,
        "machine": dump.machine.name.lower() if hasattr(dump.machine, "name") else str(dump.machine),
        "release": info.osrelease or (names.release if names else None),
        "version": names.version if names else None,
        "hostname": names.nodename if names else None,
        "build_id": info.build_id or None,
        "crash_time": dump.crash_time,
        "cpus": len(dump.prstatus) or None,
        "page_size": dump.page_size,
        "pages": dump.pages_present,
        "pages_bytes": dump.pages_present * dump.page_size,
        "dump_level": level,
        "left_out": [words for bit, words in LEVELS.items() if level and level & bit],
        "erased": erase_information(dump).decode("utf-8", "replace").splitlines(),
        "symbols_in_dump": "SYMBOL(kallsyms_names)" in info,
        "health": state.as_json(),
    }


def _show(found: dict[str, object], ranges: list[tuple[int, int]]) -> None:
    health = found["health"]
    assert isinstance(health, dict)
    when = found["crash_time"]
    level, left_out = found["dump_level"], found["left_out"]
    assert isinstance(left_out, list)
    lines = {
        "format": found["format"],
        "compression": found["compression"],
        "file": f"{human_bytes(_int(found['file_bytes']))}",
        "kernel": found["release"] or "unknown",
        "version": found["version"],
        "machine": found["machine"],
        "hostname": found["hostname"],
        "crashed": human_time(when) if isinstance(when, int) else None,
        "build id": found["build_id"],
        "CPUs": found["cpus"],
        "page size": found["page_size"],
        "pages": f"{found['pages']} ({human_bytes(_int(found['pages_bytes']))})",
        "left out": f"{', '.join(left_out) or 'nothing'} (-d {level})" if level is not None else None,
        "health": _coloured(str(health["state"])),
    }
    for name, value in lines.items():
        if value is not None:
            print(f"{name:>12}  {value if name == 'health' else printable(str(value))}")
    lost = f"{health['pages_lost']} of {health['pages']} pages"
    for reason in health["reasons"]:
        where = str(reason["where"])
        offset = f" (at {where})" if where.startswith("0x") else f"; the first: {where}" if where else ""
        print(f"{'':>12}  {printable(reason['what'] + offset)}")
    if health["pages_lost"] and not any(lost in reason["what"] for reason in health["reasons"]):
        print(f"{'':>12}  {lost} cannot be had")
    for address, size in ranges[:_RANGES]:
        print(f"{'':>12}  lost: physical {address:#x} to {address + size - 1:#x}, {human_bytes(size)}")
    if len(ranges) > _RANGES:
        print(f"{'':>12}  and {len(ranges) - _RANGES:,} ranges more (--json has all)")
    if ranges or health["state"] == "damaged":
        print(f"{'':>12}  kdumpy repair makes a dump of what is left")
    erased = found["erased"]
    assert isinstance(erased, list)
    for line in erased:
        print(f"{'erased' if line is erased[0] else '':>12}  {printable(line.removeprefix('erase '))}")


def _show_kinds(kinds: Census, lost: int) -> None:
    from kdumpy.cli import kindbar

    unit = kinds.page_size
    text = f"{human_bytes(kinds.memory * unit)}, of which "
    text += f"{human_bytes(kinds.held * unit)} are held" if kinds.memory > kinds.held else "all is held"
    if lost:
        text += f" by its own account, and {human_bytes(lost)} of that are lost"
    print(f"{'memory':>12}  {text}")
    for line in kindbar.lines(kinds, colour=colourful()):
        print(f"{'':>12}  {line}")
    if kinds.not_judged:
        print(f"{'':>12}  what the pages were used for cannot be told: {printable(kinds.not_judged)}")
    if kinds.unreadable:
        print(f"{'':>12}  {kinds.unreadable:,} pages are of unknown use (counted as the kernel's): "
              "the kernel notes nothing of them, or the dump lacks it")


def _coloured(state: str) -> str:
    if not colourful():
        return state
    return f"\033[{'32' if state == 'complete' else '31'}m{state}\033[m"


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _progress(unit: int) -> Callable[[int, int], None] | None:
    """Return what draws a bar for pages of `unit` bytes on standard error; None where that is no terminal."""
    draw = progress.bar(unit)
    return (lambda done, total: draw(done, total, 0)) if draw else None
