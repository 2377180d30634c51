"""Make a readable dump of one that was cut short, never finished, or damaged; say exactly what is lost.

Takes kdump-compressed dumps (their end missing, pages never written, damaged headers), flattened streams that end
within a record, and ELF dumps shorter than they say; a missing VMCOREINFO is looked for in the kernel's memory.
Each page is unpacked to see whether it is whole. IN is never changed.

examples:
  kdumpy repair vmcore-incomplete vmcore
  kdumpy repair vmcore.flat vmcore --json | jq .lost
  kdumpy repair vmcore whole --quick        look at the descriptors only, unpack no page

Exits with 0 when nothing was lost, with 1 when something was (the dump is written, and marked incomplete), with 3
when nothing can be made of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.capture import new_file
from kdumpy.cli.common import add_json, print_json
from kdumpy.errors import DamagedDump, KdumpyError
from kdumpy.units import human_bytes, human_seconds, printable

if TYPE_CHECKING:
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.sink import Sink

_SHOWN = 8
"""Ranges of lost memory that are printed; JSON has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="IN", help="the damaged dump")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--quick", action="store_true", help="trust the pages' data: do not unpack it to see")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write what can be had; 1 when something is lost."""
    from kdumpy.dumpfile.damaged import open_damaged

    started = time.monotonic()
    dump, told = open_damaged(arguments.source)
    with dump, new_file(arguments.target, arguments.source, force=arguments.force) as sink:
        found = _rebuild(dump, sink, thorough=not arguments.quick)
    found = {"path": str(arguments.target), **found, "made_good": told, **_what_is_left(arguments.target),
             "seconds": round(time.monotonic() - started, 3)}
    if arguments.json:
        print_json(found)
    else:
        _show(found, arguments.source)
    lost = found["lost"]
    assert isinstance(lost, dict)
    return 1 if lost["bytes"] or lost["other"] or not found["usable"] else 0


def _rebuild(dump: Dump, sink: Sink, *, thorough: bool) -> dict[str, object]:
    from kdumpy.cli.progress import bar
    from kdumpy.dumpfile.elf import ElfDump
    from kdumpy.dumpfile.kdump import KdumpDump

    progress = bar(dump.page_size)
    if isinstance(dump, KdumpDump):
        from kdumpy.dumpfile.rebuild import rebuild_kdump

        copied, losses = rebuild_kdump(dump, sink, thorough=thorough, progress=progress)
        lost = {"pages": losses.pages, "bytes": losses.pages * dump.page_size, "reasons": losses.reasons,
                "ranges": [[address, size] for address, size in losses.extents()], "other": []}
        return {"format": "kdump", "pages": copied.pages, "page_size": dump.page_size,
                "bytes": copied.bytes_written, "lost": lost}
    if not isinstance(dump, ElfDump):
        raise DamagedDump("this format cannot be rebuilt", where=dump.source.name, why=dump.format)
    from kdumpy.dumpfile.rebuildelf import rebuild_elf

    size, gone = rebuild_elf(dump, sink, progress)
    other = []
    if gone.headers:
        other.append(f"{gone.headers} program headers were impossible: the memory that they spoke of is lost")
    if gone.notes:
        other.append(f"{gone.notes} bytes of notes, with registers of CPUs")
    pages = -(-gone.bytes // dump.page_size)
    lost = {"pages": pages, "bytes": gone.bytes, "ranges": [[address, part] for address, part in gone.extents],
            "reasons": {"their data lies beyond the end of the file": pages} if pages else {}, "other": other}
    return {"format": "elf", "pages": max(dump.pages_present - pages, 0), "page_size": dump.page_size,
            "bytes": size, "lost": lost}


def _what_is_left(path: Path) -> dict[str, object]:
    """Open what was written, and tell what of it serves to explain the crash: cheap looks only."""
    from kdumpy.dumpfile import misfiltered
    from kdumpy.dumpfile.dmesg import read_log
    from kdumpy.dumpfile.opening import open_one

    with open_one(path) as dump:
        try:
            log = read_log(dump, allow_salvage=False)
            records, unreadable = len(log.records), log.unreadable
        except KdumpyError:
            records, unreadable = 0, 0
        lacking = [{"what": kind.what, "lost": kind.lacking, "of": kind.looked_at}
                   for kind in misfiltered.lacking_pages(dump)]
        return {"usable": bool(dump.vmcoreinfo) and dump.pages_present > 0, "log_records": records,
                "log_unreadable": unreadable, "lacking": lacking}


def _show(found: dict[str, object], source: Path) -> None:
    path, pages, unit, size, lost = (found[name] for name in ("path", "pages", "page_size", "bytes", "lost"))
    seconds, told, lacking = found["seconds"], found["made_good"], found["lacking"]
    assert isinstance(path, str)
    assert isinstance(pages, int)
    assert isinstance(unit, int)
    assert isinstance(size, int)
    assert isinstance(lost, dict)
    assert isinstance(seconds, float)
    assert isinstance(told, list)
    assert isinstance(lacking, list)
    print(f"{printable(path)}: {found['format']}, {pages:,} pages ({human_bytes(pages * unit)}), {human_bytes(size)} "
          f"in {human_seconds(seconds)}")
    for line in told:
        print(f"  made good: {printable(line)}")
    if not lost["bytes"] and not lost["other"]:
        print(f"  nothing is lost{'' if told else f': {printable(str(source))} was whole'}")
    for why, count in lost["reasons"].items():
        print(f"  lost: {count:,} pages ({human_bytes(count * unit)}): {why}")
    for line in lost["other"]:
        print(f"  lost: {line}")
    ranges = lost["ranges"]
    for address, length in ranges[:_SHOWN]:
        print(f"    physical {address:#x} to {address + length - 1:#x}, {human_bytes(length)}")
    if len(ranges) > _SHOWN:
        print(f"    and {len(ranges) - _SHOWN:,} ranges more (--json has all)")
    records = found["log_records"]
    print(f"  the kernel's log: {f'{records:,} records' if records else 'cannot be read'}"
          f"{', {:,} lost'.format(found['log_unreadable']) if found['log_unreadable'] else ''}")
    for kind in lacking:
        print(f"  of {kind['of']} {kind['what']} that were looked at, {kind['lost']} are lost")
    if not found["usable"]:
        print("  without VMCOREINFO and memory it cannot be analysed")
    print(f"  check it: kdumpy info --deep {printable(path)}; kdumpy report {printable(path)}")
