"""Runs in the capture image's own Python when the image is built: a capture of a small dump, whole, there and back.

usage: python3 -I -S -B selftest.py COMPRESSION [CONFIG [DUMP]]
Prints one line and exits with 0; anything that is missing shows as an ImportError here and not in the capture kernel.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from kdumpy.capture.config import load
from kdumpy.capture.pipeline import Options, save
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.sink import FileSink

PAGES, PAGE = 48, 4096
MACHINES = {"x86_64": (62, 112, 27), "aarch64": (183, 112, 34)}
"""e_machine, offset of pr_reg in struct elf_prstatus, registers in it."""


def synthetic() -> bytes:
    """Return a dump like /proc/vmcore, with zero pages, equal pages and one that does not compress."""
    machine, registers_at, count = MACHINES[os.uname().machine]
    info = f"OSRELEASE={os.uname().release}\nPAGESIZE={PAGE}\n".encode()
    prstatus = bytes(registers_at) + bytes(8 * count + 8)
    notes = b"".join(struct.pack("<III", len(name), len(data), kind) + name.ljust(-len(name) % 4 + len(name), b"\0")
                     + data.ljust(-len(data) % 4 + len(data), b"\0")
                     for name, data, kind in ((b"CORE\0", prstatus, 1), (b"VMCOREINFO\0", info, 0)))
    pages = [bytes(PAGE) if number % 3 == 0 else b"kdumpy %2d " % (number % 5) * 400 + bytes(96)
             for number in range(PAGES - 1)]
    pages = [page.ljust(PAGE, b"\0")[:PAGE] for page in pages] + [os.urandom(PAGE)]
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note_at, data_at = 64 + 2 * 56, PAGE
    header += struct.pack("<IIQQQQQQ", 4, 0, note_at, 0, 0, len(notes), len(notes), 4)
    size = PAGES * PAGE
    header += struct.pack("<IIQQQQQQ", 1, 7, data_at, 0xFFFF888000100000, 0x100000, size, size, PAGE)
    return (header + notes).ljust(data_at, b"\0") + b"".join(pages)


def main(compression: str, config: str = "", dump: str = "") -> None:
    """Capture, open what was written, compare."""
    if config:
        load(Path(config))
    here = Path(__file__).parent
    source = Path(dump) if dump else here / "synthetic"
    if not dump:
        source.write_bytes(synthetic())
    target = here / "written"
    level = 31 if dump else 1
    with open_dump(source) as origin:
        sink = FileSink(target)
        summary = save(origin, sink, Options(level=level, compression=compression, workers=1, small=True))
        sink.close()
        with open_dump(target) as written:
            same = 0
            # Most of a real dump's memory starts with the kernel; a synthetic one is short.
            for pfn in range(0x100, 0x100 + (4096 if dump else PAGES)):
                try:
                    page = written.read_physical(pfn * PAGE, PAGE)
                except Exception:      # left out: that is what a filter does
                    if not dump:
                        raise
                    continue
                if page != origin.read_physical(pfn * PAGE, PAGE):
                    raise SystemExit(f"page {pfn:#x} is not what it was")
                same += 1
    if not same:
        raise SystemExit("no page came through")
    print(f"{summary.kept_pages} pages kept, {same} compared, {summary.bytes_written} bytes, "
          f"{len(sys.modules)} modules")


if __name__ == "__main__":
    main(*sys.argv[1:])
