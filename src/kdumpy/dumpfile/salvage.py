"""The last resort: find the kernel log by its looks, where the tables that lead to it are lost.

In the ringbuffer each text is preceded by its 64-bit id, ids follow each other, and texts start at multiples of
eight bytes; the text ring is one piece of physical memory. So a run of ascending ids with text between them is
a log. Times and levels lie elsewhere and are not found. Only memory near the kernel is cheap to scan, and the
scan stops after `_SECONDS`.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.logrecord import LogRecord, text_of
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import KdumpyError

_SECONDS = 0.8
"""Of scanning, at most, for VMCOREINFO and for the log each; a page takes 10 to 60 µs."""
_ID = re.compile(rb"(?s)(?=(.{5}(?:\xff\xff\x3f|\0\0\0))[\t\n\x20-\x7e]{4})")
"""An id (small, or a little below 2^62, as ids start) followed by text."""
_LONGEST = 4096
"""Bytes between an id and the next, at most."""
_FEWEST = 4
"""Records in a row, or it is chance."""


_VMCOREINFO_START = b"OSRELEASE="
_PIECE = 1 << 20
"""Bytes read at a time while looking for VMCOREINFO."""


def find_vmcoreinfo(dump: Dump) -> VmcoreInfo | None:
    """Return the VMCOREINFO that lies in the kernel's memory, for dumps that were taken without it, or None.

    The kernel keeps it at the start of a page (vmcoreinfo_data, crash_save_vmcoreinfo_init).
    """
    deadline = time.monotonic() + _SECONDS
    for run in dump.present():
        step = max(_PIECE // dump.page_size, 1)
        for pfn in range(run.start, run.stop, step):
            if time.monotonic() > deadline:
                return None
            data = _readable(dump, pfn, min(step, run.stop - pfn))
            at = data.find(_VMCOREINFO_START)
            while at >= 0:
                text = data[at:data.find(b"\0", at)]
                if at % 4096 == 0 and b"\nPAGESIZE=" in text and b"\nSYMBOL(" in text:
                    where = f"{dump.source.name}, physical {pfn * dump.page_size + at:#x}"
                    return VmcoreInfo(text, where=where)
                at = data.find(_VMCOREINFO_START, at + 1)
    return None


def _readable(dump: Dump, pfn: int, count: int) -> bytes:
    """Return pages, those that cannot be read as zeros."""
    try:
        return dump.read_physical(pfn * dump.page_size, count * dump.page_size)
    except KdumpyError:
        if count == 1:
            return bytes(dump.page_size)
        return b"".join(_readable(dump, one, 1) for one in range(pfn, pfn + count))


def scan(dump: Dump) -> Iterator[LogRecord]:
    """Yield what looks like the longest kernel log in the dump, times and levels unknown (-1)."""
    deadline = time.monotonic() + _SECONDS
    best: list[tuple[int, bytes]] = []
    current: list[tuple[int, bytes]] = []
    rest, pfn_before = b"", -2
    for pfn in (pfn for run in dump.present() for pfn in run):
        if time.monotonic() > deadline:
            break
        try:
            page = dump.read_physical(pfn * dump.page_size, dump.page_size)
        except KdumpyError:
            continue
        if pfn != pfn_before + 1:
            current, rest = [], b""
        pfn_before = pfn
        found, rest = _records(rest + page)
        if not found or (current and found[0][0] != current[-1][0] + 1):
            current = []
        current += found
        if len(current) > len(best):
            best = current
    if len(best) >= _FEWEST:
        for record_id, text in best:
            yield LogRecord(seq=record_id - best[0][0], ts_ns=-1, level=-1, facility=-1, caller="",
                            text=text_of(text))


def _records(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return (id, text) of the longest row of records in some bytes, and the bytes of the last, not ended, one."""
    marks = [(match.start(), int.from_bytes(match[1], "little")) for match in _ID.finditer(data)
             if match.start() % 8 == 0]
    rows: list[list[tuple[int, int]]] = []
    for place, record_id in marks:
        if rows and rows[-1][-1][1] + 1 == record_id and place - rows[-1][-1][0] <= _LONGEST:
            rows[-1].append((place, record_id))
        else:
            rows.append([(place, record_id)])
    row = max(rows, key=len, default=[])
    if len(row) < 2:
        return [], b""
    found = [(record_id, data[place + 8:following].rstrip(b"\0"))
             for (place, record_id), (following, _next) in itertools.pairwise(row)]
    tail = data[row[-1][0]:]
    return found, tail if len(tail) <= _LONGEST else b""
