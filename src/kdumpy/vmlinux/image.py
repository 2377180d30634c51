"""The kernel's image: which part of its memory is which section, at the addresses that it was linked for.

The linker's own symbols bound the parts (arch/x86/kernel/vmlinux.lds.S). What the kernel gives back after it has
booted (init code and data) belongs to others in the dump, so its section is there without contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import drgn
import numpy as np
from numpy.typing import NDArray

from kdumpy.errors import DamagedDump, NotInDump
from kdumpy.vmlinux.elf import Flag, Kind

_PIECE = 1 << 20
"""Bytes that are read together."""
_PAGE = 4096
_LARGEST = 128 << 20
"""Bytes of a part; a distribution's kernel has 20 MB of code."""
PERCPU = ".data..percpu"
_MAPPED_FROM = 0xffffffff80000000
"""__START_KERNEL_map: where physical address 0 is mapped for the image. Source: asm/page_64_types.h."""


_INIT_TEXT = ".init.text"
_BEHIND_PERCPU = ".init.data"
"""Before this region the per-CPU segment stands: drgn takes the first and the last segment for the kernel's bounds."""
_MOST_SLIDE = 1 << 30
"""KERNEL_IMAGE_SIZE, within which KASLR places the kernel. Source: asm/page_64_types.h."""


class _Region(NamedTuple):
    """Memory between two symbols of the linker."""

    name: str
    start: tuple[str, ...]
    """Its first symbol; of several names the first that this kernel has."""
    end: tuple[str, ...]
    flags: Flag
    stored: bool = True
    """False where memory is zero at the start (bss) or was given back."""
    optional: bool = False
    """A kernel without it is no surprise."""


_REGIONS = (
    _Region(".text", ("_text", "_stext"), ("_etext",), Flag.ALLOC | Flag.CODE),
    _Region(".rodata", ("__start_rodata",), ("__end_rodata",), Flag.ALLOC),
    _Region(".data", ("_sdata",), ("__init_begin",), Flag.ALLOC | Flag.WRITE),
    _Region(".init.data", ("__init_begin",), ("__init_end",), Flag.ALLOC | Flag.WRITE, stored=False),
    _Region(".data_nosave", ("__init_end",), ("__bss_start",), Flag.ALLOC | Flag.WRITE, stored=False),
    _Region(".bss", ("__bss_start",), ("__bss_stop",), Flag.ALLOC | Flag.WRITE, stored=False),
    _Region(".brk", ("__brk_base",), ("__brk_limit", "_end"), Flag.ALLOC | Flag.WRITE, stored=False),
    _Region(".data..init.scratch", ("__init_scratch_begin",), ("__init_scratch_end",), Flag.ALLOC | Flag.WRITE,
            stored=False, optional=True),
)
_CUTS = (
    _Region(".notes", ("__start_notes",), ("__stop_notes",), Flag.ALLOC),
    _Region(".BTF", ("__start_BTF",), ("__stop_BTF",), Flag.ALLOC),
    _Region("__bug_table", ("__start___bug_table",), ("__stop___bug_table",), Flag.ALLOC | Flag.WRITE),
    _Region(".orc_header", ("__start_orc_header",), ("__stop_orc_header",), Flag.ALLOC),
    _Region(".orc_unwind_ip", ("__start_orc_unwind_ip",), ("__stop_orc_unwind_ip",), Flag.ALLOC),
    _Region(".orc_unwind", ("__start_orc_unwind",), ("__stop_orc_unwind",), Flag.ALLOC),
    _Region(_INIT_TEXT, ("_sinittext",), ("_einittext",), Flag.ALLOC | Flag.CODE, stored=False),
    _Region(PERCPU, ("__per_cpu_start",), ("__per_cpu_end",), Flag.ALLOC | Flag.WRITE),
)
"""Sections inside of the regions."""


@dataclass(frozen=True)
class Part:
    """A section of the image."""

    name: str
    start: int
    """Where it was in memory, and what kallsyms says: a virtual address, slid by KASLR; an offset for per-CPU data."""
    address: int
    """The address it was linked for."""
    size: int
    """Bytes."""
    flags: Flag
    source: int | None
    """From where in memory its contents are read; None where it has none."""

    @property
    def kind(self) -> Kind:
        """What sort of section it is."""
        if self.name == _INIT_TEXT:     # zeros, in a hole of the file: by this section drgn knows a vmlinux
            return Kind.PROGBITS
        if self.source is None:
            return Kind.NOBITS
        return Kind.NOTE if self.name == ".notes" else Kind.PROGBITS

    @property
    def physical(self) -> int:
        """Where it would be loaded: p_paddr."""
        return max(self.address - _MAPPED_FROM, 0)


class Image:
    """All parts, in the order of their addresses; per-CPU data at 0 stand before the init code, as in a real one.

    Raises:
        NotInDump: the symbols that bound code or data are not there.
        DamagedDump: they, or KASLR's offset, make no sense.
    """

    def __init__(self, addresses: Mapping[str, int], slide: int, percpu_offset: int) -> None:
        """`addresses` is kallsyms; `slide` what KASLR added; `percpu_offset` leads to the data of the first CPU."""
        self._addresses = addresses
        self._slide = slide
        self.missing: list[str] = []
        """Parts that this kernel should have, and whose bounds are not known."""
        cuts = [cut for cut in map(self._bounds, _CUTS) if cut]
        # At 0 before 6.15: 9d7de2aa8b41 "x86/percpu/64: Use relative percpu offsets".
        zero_based = next((Part(PERCPU, 0, 0, end, cut.flags, percpu_offset)
                           for cut, begin, end in cuts if cut.name == PERCPU and begin == 0), None)
        self.groups: list[list[Part]] = []
        """Parts that follow each other without a gap, all with contents or all without: one segment each."""
        for region in _REGIONS:
            bounds = self._bounds(region)
            if bounds is None:
                if region.name in (".text", ".data"):
                    raise NotInDump("the kernel's symbol table lacks the bounds of its image",
                                    why=f"no {region.start[0]}, or no {region.end[0]}")
                if not region.optional:
                    self.missing.append(region.name)
                continue
            pieces = self._pieces(region, bounds, cuts, percpu_offset)
            if region.name == _BEHIND_PERCPU and zero_based:
                self.groups.append([zero_based])
            self.groups += [list(run) for _, run in groupby(pieces, key=lambda part: part.kind == Kind.NOBITS)]
        self.parts = [part for group in self.groups for part in group]
        if not 0 <= slide < _MOST_SLIDE or any(part.start and part.address < _MAPPED_FROM for part in self.parts):
            raise DamagedDump("the dump says that the kernel was moved to where it cannot be", where="KERNELOFFSET",
                              why=f"{slide:#x}")
        self._sorted = sorted(range(len(self.parts)), key=lambda index: self.parts[index].start)
        self._starts = np.array([self.parts[index].start for index in self._sorted], np.uint64)
        self._ends = np.array([self.parts[index].start + self.parts[index].size for index in self._sorted], np.uint64)

    def _bounds(self, region: _Region) -> tuple[_Region, int, int] | None:
        start, end = (next((self._addresses[name] for name in names if name in self._addresses), None)
                      for names in (region.start, region.end))
        if start is None or end is None or not 0 < end - start <= _LARGEST:
            return None
        return region, start, end

    def _pieces(self, region: _Region, bounds: tuple[_Region, int, int], cuts: list[tuple[_Region, int, int]],
                percpu_offset: int) -> Iterator[Part]:
        """Yield the parts of a region: the cuts that lie in it, and what is between them."""
        _, at, end = bounds
        rests = 0
        inside = sorted((cut for cut in cuts if at <= cut[1] < cut[2] <= end), key=lambda cut: cut[1])
        for cut, start, stop in [*inside, (region, end, end)]:
            if start > at:
                name = region.name if not rests else f"{region.name}.{rests}"
                rests += 1
                yield Part(name, at, at - self._slide, start - at, region.flags, at if region.stored else None)
            if stop > max(start, at):
                source = (start + percpu_offset) % (1 << 64) if cut.name == PERCPU else start if cut.stored else None
                yield Part(cut.name, start, start - self._slide, stop - start, cut.flags, source)
            at = max(at, stop)

    def locate(self, addresses: NDArray[np.uint64],
               ends: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the part (an index into `parts`, -1 for none) that each address lies in, and its end.

        The address behind a part's last byte is its own where no other part begins; where one does, it is so for
        those of which `ends` is true.
        """
        at = np.where(ends, np.searchsorted(self._starts, addresses, "left"),
                      np.searchsorted(self._starts, addresses, "right")).astype(np.int64) - 1
        inside = (at >= 0) & (addresses <= self._ends[np.maximum(at, 0)])
        numbers = np.array(self._sorted, np.int64)
        return np.where(inside, numbers[np.maximum(at, 0)], -1), np.where(inside, self._ends[np.maximum(at, 0)], 0)

    def linked(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the addresses that the kernel was linked for: the image's less the slide, all others as they are."""
        image = [part for part in self.parts if part.start]
        low, high = min(part.start for part in image), max(part.start + part.size for part in image)
        moved = (addresses >= np.uint64(low)) & (addresses <= np.uint64(high))
        return np.where(moved, addresses - np.uint64(self._slide), addresses)


def contents(prog: drgn.Program, part: Part) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in the part, bytes) of what the dump holds of it; pages that it lacks are passed over."""
    source = part.source
    if source is None:
        return
    for offset in range(0, part.size, _PIECE):
        size = min(_PIECE, part.size - offset)
        try:
            yield offset, bytes(prog.read(source + offset, size))
        except drgn.FaultError:
            yield from _pages(prog, source, offset, size)


def whole(prog: drgn.Program, part: Part) -> NDArray[np.uint8]:
    """Return the contents of a part, with zeros for what the dump lacks."""
    data = np.zeros(part.size, np.uint8)
    for offset, piece in contents(prog, part):
        data[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
    return data


def _pages(prog: drgn.Program, source: int, offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    begin, end = source + offset, source + offset + size
    borders = [begin, *range((begin // _PAGE + 1) * _PAGE, end, _PAGE), end]
    for start, stop in pairwise(borders):
        try:
            yield start - source, bytes(prog.read(start, stop - start))
        except drgn.FaultError:
            continue
