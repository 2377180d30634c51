"""The kernel log of a dump, from VMCOREINFO alone: no symbols, no types, no drgn, no numpy.

Tolerant: a record whose page is missing or damaged is counted and left out; the rest is given.
The buffers' layouts: `ringbuffer` (5.10 and later), `logbuf` (3.5 to 5.9); `salvage` when neither can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from kdumpy.dumpfile import logbuf, ringbuffer, salvage
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.logrecord import LogRecord, Progress
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError, NotInDump

__all__ = ["KernelLog", "LogRecord", "Progress", "open_log", "read_log"]


@dataclass(frozen=True, slots=True)
class KernelLog:
    """The log and how much of it there is."""

    records: tuple[LogRecord, ...]
    """Oldest first."""
    unreadable: int
    """Records that the kernel's tables speak of and that could not be read."""
    overwritten: int
    """Records that the kernel itself had overwritten with newer ones before the crash."""
    source: str
    """`printk ringbuffer`, `log buffer`, or `salvage` (found by scanning; times and levels are not known)."""
    why: str
    """Why records are missing, or why it is salvage; empty when all is well."""

    def lines(self, *, callers: bool = False) -> Iterator[str]:
        """Yield the lines as `dmesg` prints them; with `callers`, the task or CPU of each too."""
        for record in self.records:
            yield from record.lines(callers=callers)

    def as_json(self) -> dict[str, object]:
        """Return the log as plain values."""
        return {**asdict(self), "records": [record.as_json() for record in self.records]}


def read_log(dump: Dump, *, allow_salvage: bool = True) -> KernelLog:
    """Return the kernel log; the last resort is to scan memory for text that looks like one.

    Raises NotInDump, MissingPage or DamagedDump when there is nothing to give.
    """
    progress = Progress()
    if not dump.vmcoreinfo and allow_salvage:
        found = salvage.find_vmcoreinfo(dump)
        if found is not None:
            dump.adopt_vmcoreinfo(found)
    try:
        source, reader = open_log(dump, progress)
        records = tuple(reader)
        if records:
            return KernelLog(records, progress.unreadable, records[0].seq, source, progress.why)
        failure: KdumpyError = NotInDump("no record of the kernel log can be read", where=dump.source.name,
                                         why=progress.why or "the log is empty")
    except KdumpyError as error:
        failure = error
    if allow_salvage:
        records = tuple(salvage.scan(dump))
        if records:
            return KernelLog(records, 0, 0, "salvage", str(failure))
    raise failure


def open_log(dump: Dump, progress: Progress) -> tuple[str, Iterator[LogRecord]]:
    """Return what the log is kept in, and its records one at a time, oldest first: none is held in memory.

    What cannot be read is counted in `progress`. Raises NotInDump when VMCOREINFO names no log; the iterator raises
    a KdumpyError when the log's own header cannot be read.
    """
    readers = {"prb": (ringbuffer.read_ringbuffer, "printk ringbuffer"),
               "log_buf": (logbuf.read_log_buffer, "log buffer")}
    name = next((name for name in readers if f"SYMBOL({name})" in dump.vmcoreinfo), "")
    if not name:
        dump.vmcoreinfo.symbol("prb")  # raises, with the reason
    reader, source = readers[name]
    return source, reader(KernelMemory(dump), progress)
