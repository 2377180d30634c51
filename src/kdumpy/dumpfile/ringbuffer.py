"""The printk ringbuffer of 5.10 and later.

Source: kernel/printk/printk_ringbuffer.{c,h}; "printk: use the lockless ringbuffer" (896fbe20b4e2, 5.10).
Three rings: descriptors (state and place of the text), infos (time, level, …), text (id, then the bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kdumpy.dumpfile.logrecord import LogRecord, Progress, caller_of, text_of
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import DamagedDump, KdumpyError

_COMMITTED, _FINALIZED = 1, 2
"""States of a descriptor whose text can be read; the two top bits of state_var."""
_STATE_SHIFT = 62
_ID_MASK = (1 << _STATE_SHIFT) - 1
_LARGEST_BITS = 26
"""Powers of two: no log_buf_len makes more descriptors, or (6 bits more) more text."""
_MOST_FAILURES = 32768
"""Records in a row that cannot be read."""
_WORD = 8


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets in bytes, from VMCOREINFO."""

    desc_size: int
    state: int
    begin: int
    next: int
    info_size: int
    seq: int
    time: int
    text_length: int
    caller: int
    device: int
    subsystem_length: int
    device_offset: int
    device_length: int

    @classmethod
    def of(cls, info: VmcoreInfo) -> _Layout:
        block = info.offset("prb_desc.text_blk_lpos")
        dev_info = info.offset("printk_info.dev_info", -1)
        layout = cls(
            desc_size=info.size_of("prb_desc"),
            state=info.offset("prb_desc.state_var") + info.offset("atomic_long_t.counter", 0),
            begin=block + info.offset("prb_data_blk_lpos.begin"),
            next=block + info.offset("prb_data_blk_lpos.next"),
            info_size=info.size_of("printk_info"),
            seq=info.offset("printk_info.seq"),
            time=info.offset("printk_info.ts_nsec"),
            text_length=info.offset("printk_info.text_len"),
            caller=info.offset("printk_info.caller_id", -1),
            device=dev_info,
            subsystem_length=info.length("printk_info_subsystem", 0),
            device_offset=dev_info + info.offset("dev_printk_info.device", 0),
            device_length=info.length("printk_info_device", 0))
        inside_desc = max(layout.state, layout.begin, layout.next) + _WORD
        inside_info = max(layout.seq + 8, layout.time + 8, layout.text_length + 4, layout.caller + 4,
                          layout.device_offset + layout.device_length)
        if min(layout.state, layout.begin, layout.next, layout.seq, layout.time, layout.text_length) < 0 \
                or not inside_desc <= layout.desc_size <= 4096 or not inside_info <= layout.info_size <= 4096:
            raise DamagedDump("VMCOREINFO's offsets of the kernel log do not fit together", where=info.where)
        return layout


_CACHED_PAGES = 32
"""Of each ring; records are read in order."""


class _Ring:
    """A ring in virtual memory, read a page at a time and only where it is used."""

    def __init__(self, memory: KernelMemory, start: int, size: int) -> None:
        self.memory = memory
        self.start = start
        self.size = size
        self._page_size = memory.page_size
        self._pages: dict[int, bytes | KdumpyError] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes at an offset; a page that failed once fails at once again."""
        parts = []
        address, end = self.start + offset, self.start + offset + size
        while address < end:
            page = address & -self._page_size
            data = self._pages.get(page)
            if data is None:
                try:
                    data = self.memory.read(page, self._page_size)
                except KdumpyError as error:
                    data = error
                if len(self._pages) >= _CACHED_PAGES:  # a log may have 16 MiB, a capture kernel little more to spare
                    del self._pages[next(iter(self._pages))]
                self._pages[page] = data
            if isinstance(data, KdumpyError):
                raise data
            parts.append(data[address - page:end - page])
            address = page + self._page_size
        return parts[0] if len(parts) == 1 else b"".join(parts)


def read_ringbuffer(memory: KernelMemory, progress: Progress) -> Iterator[LogRecord]:
    """Yield the records, oldest first; raises a KdumpyError when the buffer itself cannot be found."""
    info = memory.dump.vmcoreinfo
    layout = _Layout.of(info)
    buffer = memory.word(info.symbol("prb"))
    ring = buffer + info.offset("printk_ringbuffer.desc_ring")
    text_ring = buffer + info.offset("printk_ringbuffer.text_data_ring")
    counter = info.offset("atomic_long_t.counter", 0)

    count_bits = int.from_bytes(memory.read(ring + info.offset("prb_desc_ring.count_bits"), 4), "little")
    text_bits = int.from_bytes(memory.read(text_ring + info.offset("prb_data_ring.size_bits"), 4), "little")
    if not 0 < count_bits <= _LARGEST_BITS or not 0 < text_bits <= _LARGEST_BITS + 6:
        raise DamagedDump("the kernel log's header is wrong", where=f"{buffer:016x}",
                          why=f"2^{count_bits} records, 2^{text_bits} bytes of text")
    count = 1 << count_bits
    head = memory.word(ring + info.offset("prb_desc_ring.head_id") + counter) & _ID_MASK
    tail = memory.word(ring + info.offset("prb_desc_ring.tail_id") + counter) & _ID_MASK
    used = (head - tail & _ID_MASK) + 1
    if used > count:
        raise DamagedDump("the kernel log's header is wrong", where=f"{ring:016x}",
                          why=f"{used} records in use of {count}")
    descs = _Ring(memory, memory.word(ring + info.offset("prb_desc_ring.descs")), count * layout.desc_size)
    infos = _Ring(memory, memory.word(ring + info.offset("prb_desc_ring.infos")), count * layout.info_size)
    texts = _Ring(memory, memory.word(text_ring + info.offset("prb_data_ring.data")), 1 << text_bits)
    failures = 0
    for number in range(tail, tail + used):
        record_id = number & _ID_MASK
        try:
            record = _record(layout, record_id, record_id & count - 1, descs, infos, texts)
        except KdumpyError as error:
            progress.lost(1, error)
            failures += 1
            if failures >= _MOST_FAILURES:  # a header that lies: do not walk all of it
                progress.lost(tail + used - number - 1, error)
                return
            continue
        failures = 0
        if record is not None:
            yield record


def _record(layout: _Layout, record_id: int, slot: int, descs: _Ring, infos: _Ring,
            texts: _Ring) -> LogRecord | None:
    desc = descs.read(slot * layout.desc_size, layout.desc_size)
    state = _word(desc, layout.state)
    if state & _ID_MASK != record_id or state >> _STATE_SHIFT not in (_COMMITTED, _FINALIZED):
        return None  # being written, or free
    fields = infos.read(slot * layout.info_size, layout.info_size)
    length = int.from_bytes(fields[layout.text_length:layout.text_length + 2], "little")
    facility, level = fields[layout.text_length + 2], fields[layout.text_length + 3] >> 5
    text = _text(texts, _word(desc, layout.begin), _word(desc, layout.next), length, record_id)
    if text is None:
        return None
    caller = device = subsystem = ""
    if layout.caller >= 0:
        caller = caller_of(int.from_bytes(fields[layout.caller:layout.caller + 4], "little"))
    if layout.device >= 0:
        subsystem = _string(fields, layout.device, layout.subsystem_length)
        device = _string(fields, layout.device_offset, layout.device_length)
    return LogRecord(seq=_word(fields, layout.seq), ts_ns=_word(fields, layout.time), level=level,
                     facility=facility, caller=caller, text=text_of(text), subsystem=subsystem, device=device)


def _text(texts: _Ring, begin: int, following: int, length: int, record_id: int) -> bytes | None:
    """Return a record's bytes; None where the kernel had no room for them."""
    if begin & 1 and following & 1:
        # No data block: 3 (EMPTY_LINE_LPOS) is a record of an empty line, 1 (FAILED_LPOS) lost its text.
        return b"" if begin == following == 3 else None
    mask = texts.size - 1
    start, end = begin & mask, following & mask
    # The block ends at the very end of the ring, or it wraps: then its data lies whole at the ring's start.
    end = end or texts.size
    if start > end:
        start = 0
    if end - start < _WORD:
        raise DamagedDump("a record of the kernel log has no room for its text", where=f"record {record_id:#x}")
    if _word(texts.read(start, _WORD), 0) & _ID_MASK != record_id:
        # The kernel gives a block away only after its descriptor, so this is damage.
        raise DamagedDump("the text of a record of the kernel log is not its own", where=f"record {record_id:#x}")
    return texts.read(start + _WORD, min(length, end - start - _WORD))


def _word(data: bytes, offset: int) -> int:
    value: int = _U64.unpack_from(data, offset)[0]
    return value


def _string(data: bytes, offset: int, size: int) -> str:
    return data[offset:offset + size].split(b"\0", 1)[0].decode("utf-8", "replace")


_U64 = struct.Struct("<Q")
