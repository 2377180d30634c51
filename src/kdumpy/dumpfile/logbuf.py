"""The structured log buffer of 3.5 to 5.9: records of varying length in one ring of bytes.

Source: kernel/printk/printk.c of 5.9, struct printk_log; "printk: convert byte-buffer to variable-length
record buffer" (7ff9554bb578, 3.5).
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpy.dumpfile.logrecord import LogRecord, Progress, text_of
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import DamagedDump, KdumpyError, MissingPage

_LARGEST = 1 << 30
"""Bytes; log_buf_len takes 2 GiB at most, nobody does."""


def read_log_buffer(memory: KernelMemory, progress: Progress) -> Iterator[LogRecord]:
    """Yield the records, oldest first; raises a KdumpyError when the buffer itself cannot be found."""
    info = memory.dump.vmcoreinfo
    buffer = memory.word(info.symbol("log_buf"))
    size = _u32(memory, info.symbol("log_buf_len"))
    at = _u32(memory, info.symbol("log_first_idx"))
    end = _u32(memory, info.symbol("log_next_idx"))
    header = info.size_of("printk_log", info.size_of("log", 16))
    if not 0 < size <= _LARGEST or at > size or end > size or not 16 <= header <= 256:
        raise DamagedDump("the kernel log's header is wrong", where=f"{buffer:016x}",
                          why=f"{size} bytes, records from {at} to {end}")
    # struct printk_log was called struct log before 3.11.
    kind = "printk_log" if "SIZE(printk_log)" in info else "log"
    time_at = info.offset(f"{kind}.ts_nsec", 0)
    length_at = info.offset(f"{kind}.len", 8)
    text_length_at = info.offset(f"{kind}.text_len", 10)
    if not all(0 <= place <= header - 2 for place in (time_at, length_at, text_length_at)):
        raise DamagedDump("VMCOREINFO's offsets of the kernel log do not fit together", where=info.where)
    seq = 0
    page = memory.page_size
    walked = 0
    while at != end and walked <= size:
        try:
            fields = memory.read(buffer + at, header)
            length = int.from_bytes(fields[length_at:length_at + 2], "little")
            if length == 0:  # the rest of the ring is not used: on from its start
                if at == 0:
                    raise DamagedDump("the kernel log has a record without a length", where=f"{buffer:016x}")
                walked += size - at
                at = 0
                continue
            text_length = int.from_bytes(fields[text_length_at:text_length_at + 2], "little")
            if length < header + text_length or at + length > size:
                raise DamagedDump("a record of the kernel log is wrong", where=f"{buffer + at:016x}",
                                  why=f"{length} bytes, {text_length} of text")
            # facility, then flags in 5 bits and level in 3, follow text_len and dict_len.
            facility, last = fields[text_length_at + 4], fields[text_length_at + 5]
            rest = memory.read(buffer + at + header, length - header)
        except (MissingPage, DamagedDump) as error:
            # Record lengths chain: without one, the next that is plausible is looked for on the next page.
            progress.lost(1, error)
            found = _resume(memory, buffer, (at // page + 1) * page, end if end > at else size, header, length_at,
                            text_length_at)
            if found is None:
                return
            walked += found - at
            at = found
            continue
        details = rest[text_length:].split(b"\0")
        named = dict(part.decode("utf-8", "replace").partition("=")[::2] for part in details if b"=" in part)
        yield LogRecord(seq=seq, ts_ns=int.from_bytes(fields[time_at:time_at + 8], "little"), level=last >> 5,
                        facility=facility, caller="", text=text_of(rest[:text_length]),
                        subsystem=named.get("SUBSYSTEM", ""), device=named.get("DEVICE", ""))
        seq += 1
        at += length
        walked += length


def _resume(memory: KernelMemory, buffer: int, start: int, stop: int, header: int, length_at: int,
            text_length_at: int) -> int | None:
    """Return the offset of the next place where three plausible records follow each other, or None."""
    for base in range(start, stop, 4096):
        try:
            window = memory.read(buffer + base, min(8192, stop - base))
        except KdumpyError:
            continue
        for place in range(0, min(4096, len(window)), 4):
            at, good = place, 0
            while good < 3 and at + header <= len(window):
                length = int.from_bytes(window[at + length_at:at + length_at + 2], "little")
                text = int.from_bytes(window[at + text_length_at:at + text_length_at + 2], "little")
                if length % 4 or not header + text <= length <= header + 2048 or not text:
                    break
                good += 1
                at += length
            if good == 3:
                return base + place
    return None


def _u32(memory: KernelMemory, address: int) -> int:
    return int.from_bytes(memory.read(address, 4), "little")
