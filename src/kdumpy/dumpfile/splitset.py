"""Split sets: makedumpfile --split writes one dump as several files, each with the data of some of its pages.

Every part is a kdump-compressed file with all headers, notes and bitmaps; only its descriptors and data are those
of its own pages alone. Source: makedumpfile IMPLEMENTATION and -h of --split; crash diskdump.c, read_diskdump().
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kdumpy.dumpfile.base import Dump, PagedDump
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpheader import PART_UNIT
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import DumpFormatError, KdumpyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_PARTS: Final = 1024


class SplitDump(PagedDump):
    """The parts of a split set as one dump. Pages of a part that is not there are missing, and `gaps` tells."""

    def __init__(self, parts: Sequence[KdumpDump]) -> None:
        """Take parts that belong together (`belong`), in any order; they are closed with the set."""
        super().__init__()
        self.parts = sorted(parts, key=_range_of)
        """By their pages."""
        _check(self.parts)
        first = self.parts[0]
        self.source = first.source
        """The first part's."""
        self.machine, self.notes, self.vmcoreinfo = first.machine, first.notes, first.vmcoreinfo
        self.format = f"{first.format}, split in {len(parts)}"
        self.incomplete = any(part.incomplete for part in parts)
        self.gaps = _gaps(self.parts)
        """Page ranges that no part has; empty when the set is whole."""
        self._count_pages()

    def _count_pages(self) -> None:
        first = self.parts[0]
        self.page_size, self.max_pfn = first.page_size, first.max_pfn

    def adopt_vmcoreinfo(self, found: VmcoreInfo) -> None:
        """Take a VMCOREINFO that came from elsewhere."""
        for part in self.parts:
            part.adopt_vmcoreinfo(found)
        super().adopt_vmcoreinfo(found)

    @property
    def pages_present(self) -> int:  # type: ignore[override]  # counted when asked for
        """Pages that the parts hold."""
        return sum(part.pages_present for part in self.parts)

    @property
    def dump_level(self) -> int | None:
        """The bits of makedumpfile's -d."""
        return self.parts[0].dump_level

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch at the crash."""
        return self.parts[0].crash_time

    @property
    def compression(self) -> str:
        """What the header says."""
        return self.parts[0].compression

    @property
    def eraseinfo(self) -> bytes:
        """Lines that tell what was erased."""
        return self.parts[0].eraseinfo

    def _header_utsname(self) -> Utsname | None:
        return self.parts[0].utsname

    def _part_of(self, pfn: int) -> KdumpDump | None:
        for part in self.parts:
            first, last = _range_of(part)
            if first * part.pages_per_block <= pfn < last * part.pages_per_block:
                return part
        return None

    def has_page(self, pfn: int) -> bool:
        """Tell whether a part holds a page."""
        part = self._part_of(pfn)
        return part is not None and part.has_page(pfn)

    def held(self, pfns: Sequence[int] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of many pages at once whether a part holds them; shape (n,)."""
        import numpy as np
        found = np.zeros(len(pfns), np.bool_)
        for part in self.parts:
            found |= part.held(pfns)
        return found

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers held, as rising ranges."""
        run = range(0)
        for piece in itertools.chain.from_iterable(part.present() for part in self.parts):
            if run and run.stop == piece.start:
                run = range(run.start, piece.stop)
                continue
            if run:
                yield run
            run = piece
        if run:
            yield run

    def _page(self, pfn: int) -> bytes:
        part = self._part_of(pfn)
        if part is None:
            raise self._missing(pfn, "no part that was given has it" if self.gaps else "it is not memory")
        return part.page(pfn)

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for."""
        import numpy as np
        wanted = np.asarray(pfns, np.int64)
        pages = np.zeros((len(wanted), self.page_size), np.uint8)
        left = np.ones(len(wanted), np.bool_)
        for part in self.parts:
            first, last = _range_of(part)
            within = (wanted >= first * part.pages_per_block) & (wanted < last * part.pages_per_block)
            if within.all():
                return part.read_pages(wanted, missing)
            if within.any():
                pages[within] = part.read_pages(wanted[within], missing)
                left &= ~within
        if missing == "raise" and left.any():
            self._page(int(wanted[int(np.argmax(left))]))  # raises, with the reason
        return pages

    def close(self) -> None:
        """Close all parts."""
        for part in self.parts:
            part.close()
        super().close()


def join(dumps: Sequence[Dump]) -> SplitDump:
    """Return the set that dumps are the parts of; DumpFormatError when they are not of one set."""
    parts = []
    for dump in dumps:
        if not isinstance(dump, KdumpDump) or dump.split is None:
            raise DumpFormatError("this is not a part of a split dump", where=dump.source.name,
                                  why="it is a whole dump of its own", mend="give it alone")
        parts.append(dump)
    return SplitDump(parts)


def siblings(path: Path, part: KdumpDump, open_one: Callable[[Path], Dump]) -> list[KdumpDump]:
    """Open the other parts of a set that lie beside one and are named like it but for the last number in the name.

    vmcore-1, vmcore-2, …; dump.0.kdump, dump.1.kdump, …. A file that is no part of this set is passed over.
    """
    found: list[KdumpDump] = []
    taken = [_range_of(part)]
    for place in _alike(path):
        try:
            dump = open_one(place)
        except KdumpyError:
            continue
        if isinstance(dump, KdumpDump) and dump.split is not None and belong(part, dump) \
                and not any(_overlap(dump.split, one) for one in taken):
            found.append(dump)
            taken.append(dump.split)
        else:
            dump.close()
    return found


def _alike(path: Path) -> list[Path]:
    name = path.name
    numbers = list(re.finditer(r"\d+", name))
    if not numbers:
        return []
    start, end = numbers[-1].span()
    like = re.compile(re.escape(name[:start]) + r"(\d{1,4})" + re.escape(name[end:]))
    try:
        others = [(int(match[1]), other) for other in path.parent.iterdir()
                  if (match := like.fullmatch(other.name)) and other.name != name and other.is_file()]
    except OSError:
        return []
    return [other for _, other in sorted(others)][:_MOST_PARTS]


def belong(one: KdumpDump, two: KdumpDump) -> bool:
    """Tell whether two parts are of one set: their headers are the same but for the mark of incompleteness."""
    same = one.header._replace(status=0) == two.header._replace(status=0)
    return same and one.blocks == two.blocks and one.vmcoreinfo.raw == two.vmcoreinfo.raw


def parts(dump: Dump, count: int) -> list[tuple[int, int]]:
    """Return where to cut a dump so that `count` parts hold about the same number of pages: [first, last) pfns.

    They cover every pfn below `max_pfn` and start at multiples of PART_UNIT, as crash asks; fewer than
    `count` come of a dump that is too small.
    """
    if not 1 <= count <= _MOST_PARTS:
        raise UsageError(f"a dump cannot be split in {count}", why=f"1 to {_MOST_PARTS} parts are possible")
    share = max(-(-dump.pages_present // count), 1)
    cuts, held = [0], 0
    for run in dump.present():
        while len(cuts) < count and held + len(run) >= share * len(cuts):
            reached = run.start + share * len(cuts) - held
            cut = max(-(-reached // PART_UNIT) * PART_UNIT, cuts[-1] + PART_UNIT)
            if cut >= dump.max_pfn:
                count = len(cuts)
                break
            cuts.append(cut)
        held += len(run)
    return list(itertools.pairwise([*cuts, dump.max_pfn]))


def _range_of(part: KdumpDump) -> tuple[int, int]:
    return part.split or (0, part.blocks)


def _overlap(one: tuple[int, int], two: tuple[int, int]) -> bool:
    return max(one[0], two[0]) < min(one[1], two[1])


def _check(parts: Sequence[KdumpDump]) -> None:
    for one, two in itertools.pairwise(parts):
        if not belong(one, two):
            raise DumpFormatError("these are parts of different dumps", where=f"{one.source.name}, {two.source.name}",
                                  why="their headers differ")
        if _overlap(_range_of(one), _range_of(two)):
            raise DumpFormatError("two parts hold the same pages", where=f"{one.source.name}, {two.source.name}",
                                  why="one of them was given twice, or belongs to another set")


def _gaps(parts: Sequence[KdumpDump]) -> list[range]:
    times, done, found = parts[0].pages_per_block, 0, []
    for part in parts:
        first, last = _range_of(part)
        if first > done:
            found.append(range(done * times, first * times))
        done = max(done, last)
    if done < parts[0].blocks:
        found.append(range(done * times, parts[0].blocks * times))
    return found
