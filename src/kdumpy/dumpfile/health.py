"""How whole a dump is: complete, incomplete (the capture stopped early) or damaged, and why.

Cheap by default: headers, extents, where page descriptors lead, samples of the pages and of what the kernel maps.
`deep` reads every page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum

from kdumpy.dumpfile import misfiltered
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.guard import check_for_engine
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpheader import DESCRIPTOR_SIZE, Descriptor, check_descriptor
from kdumpy.dumpfile.splitset import SplitDump
from kdumpy.errors import KdumpyError

__all__ = ["Health", "Reason", "State", "check_for_engine", "doubt", "health"]

Progress = Callable[[int, int], None]
"""Called with (pages done, pages in all) while every page is read."""

_SAMPLE = 256
"""Page descriptors looked at in one place."""
_PLACES = 32
"""Places among the descriptors that are looked at."""
_TRIED = 8
"""Of so many of these pages one is read."""
_BATCH = 2048
"""Pages read at a time by a deep look."""


class State(Enum):
    """The verdict over a dump."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    """Its writer stopped before the end; what is there is right."""
    DAMAGED = "damaged"
    """Something in it is wrong or lost."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be."""

    what: str
    where: str = ""
    """Offset in the file or physical address, or empty."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was found; `as_json` gives it as plain values."""

    state: State
    reasons: tuple[Reason, ...]
    pages: int
    """That the dump says it holds."""
    pages_lost: int
    """Pages that cannot be had and should: by the extents and descriptors; exact after a deep look."""
    deep: bool
    """Every page was read."""

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return {**asdict(self), "state": self.state.value, "reasons": [asdict(each) for each in self.reasons]}


class _Findings:
    def __init__(self) -> None:
        self.state = State.COMPLETE
        self.reasons: list[Reason] = []
        self.lost = 0
        """Pages whose bytes are not in the file."""
        self.left_out = 0
        """Pages that should have been written."""

    def add(self, state: State, what: str, where: str = "") -> None:
        self.reasons.append(Reason(what, where))
        if self.state is not State.DAMAGED:
            self.state = state


def health(dump: Dump, *, deep: bool = False, progress: Progress | None = None) -> Health:
    """Judge a dump that was opened; with `deep`, read every page (0.1 to 1 s a GB of dump)."""
    found = _Findings()
    if dump.incomplete:
        found.add(State.INCOMPLETE, "its writer marked it as incomplete: it did not come to the end, or had lost pages "
                                    "to leave out")
    if isinstance(dump.source, FlattenedSource) and dump.source.damage:
        found.add(State.DAMAGED, f"the flattened stream ends early: {dump.source.damage}")
    if not dump.vmcoreinfo:
        found.add(State.DAMAGED, "it has no VMCOREINFO, so nothing tells where the kernel's tables are")
    try:
        pages = dump.pages_present
        if isinstance(dump, KdumpDump):
            _check_kdump(dump, found, read=not deep)
        elif isinstance(dump, ElfDump):
            _check_elf(dump, found)
        elif isinstance(dump, SplitDump):
            _check_set(dump, found, read=not deep)
        if found.state is State.COMPLETE:
            _check_filter(dump, found, thorough=deep)
    except KdumpyError as error:
        found.add(State.DAMAGED, error.what, error.where)
        pages = 0
    if deep:
        found.lost = _read_all(dump, found, progress)
    return Health(found.state, tuple(found.reasons), pages, found.lost + found.left_out, deep)


def doubt(dump: Dump) -> str:
    """Return why what was read of a dump until now may be wrong or lack something; empty where nothing shows that."""
    if isinstance(dump, ElfDump):
        return "it was cut short" if dump.cut else ""
    for part in dump.parts if isinstance(dump, SplitDump) else [dump]:
        if isinstance(part, KdumpDump) and (part.survey.shift or part.damaged_reads):
            return part.survey.shifted or "pages that were wanted are damaged"
    return "a part of it is not there" if isinstance(dump, SplitDump) and dump.gaps else ""


def _check_elf(dump: ElfDump, found: _Findings) -> None:
    size = dump.source.size
    for offset, length in dump.note_extents:
        if offset + length > size:
            found.add(State.DAMAGED, f"its notes ({length} bytes) lie beyond the end of the file", f"{offset:#x}")
    if dump.implausible:
        found.add(State.DAMAGED, f"{len(dump.implausible)} program headers lie outside of any memory",
                  f"{dump.implausible[0]:#x}")
    cut = dump.cut
    if cut:
        lost = sum(min(segment.file_size, segment.offset + segment.file_size - size) for segment in cut)
        found.lost = -(-lost // dump.page_size)
        first = min(segment.offset for segment in cut)
        found.add(State.DAMAGED, f"it was cut short: {lost} bytes of memory in {len(cut)} of "
                  f"{len(dump.segments)} program headers lie beyond its end", f"{max(first, size):#x}")
    if not dump.prstatus:
        found.add(State.DAMAGED, "it has no CPU's registers")


def _check_set(dump: SplitDump, found: _Findings, *, read: bool) -> None:
    for part in dump.parts:
        _check_kdump(part, found, read=read)
    for gap in dump.gaps:
        found.add(State.INCOMPLETE, f"the part of the split dump with pages {gap.start} to {gap.stop} was not given")


def _check_kdump(dump: KdumpDump, found: _Findings, *, read: bool) -> None:
    """Check a file of the format; `read` some of its pages, too, where not all are read anyway."""
    sub, size = dump.sub_header, dump.source.size
    for name, offset, length in (("notes", sub.offset_note, sub.size_note),
                                 ("VMCOREINFO", sub.offset_vmcoreinfo, sub.size_vmcoreinfo),
                                 ("erase information", sub.offset_eraseinfo, sub.size_eraseinfo)):
        if offset + length > size:
            found.add(State.DAMAGED, f"its {name} ({length} bytes) lies beyond the end of the file", f"{offset:#x}")
    foreign = dump.kept_beyond_memory()
    if foreign:
        found.add(State.DAMAGED, f"its bitmap holds {foreign} pages that are not memory",
                  f"{dump.bitmap.offset:#x}")
    blocks = dump.bitmap.count
    held = max(min(blocks, (size - dump.descriptors_offset) // DESCRIPTOR_SIZE), 0)
    if held < blocks:
        found.add(State.DAMAGED, f"it was cut short: {blocks - held} of {blocks} page descriptors are missing",
                  f"{size:#x}")
    survey = dump.survey
    unwritten, wrong = 0, 0
    first_wrong = ""
    tried, unreadable, first_unreadable = 0, 0, ""
    for rank, descriptor in _sample(dump, held):
        if descriptor.offset == 0 and descriptor.size == 0:
            unwritten += 1
        else:
            try:
                check_descriptor(descriptor, dump.block_size, f"descriptor {rank}")
            except KdumpyError as error:
                wrong += 1
                first_wrong = first_wrong or f"{dump.descriptors_offset + rank * DESCRIPTOR_SIZE:#x}: {error.why}"
                continue
            if read and rank % _TRIED == 0 and descriptor.offset + descriptor.size <= size:
                tried += 1
                try:
                    dump.stored(descriptor, f"descriptor {rank}")
                except KdumpyError as error:
                    unreadable += 1
                    first_unreadable = first_unreadable or f"{descriptor.offset:#x}: {error.why or error.what}"
    if survey.shift:
        found.add(State.DAMAGED, survey.shifted, f"{dump.bitmap.offset:#x}")
    if wrong:
        found.add(State.DAMAGED, f"{wrong} of the page descriptors that were looked at are wrong", first_wrong)
    if unreadable:
        found.add(State.DAMAGED, f"{unreadable} of {tried} pages that were looked at cannot be read",
                  first_unreadable)
    found.lost = survey.strays * dump.pages_per_block
    if survey.strays > blocks - held:
        found.add(State.DAMAGED, f"it was cut short, or page descriptors are wrong: the data of {survey.strays} of "
                  f"{blocks} pages lies beyond its end", f"{size:#x}")
    if unwritten:
        found.add(State.INCOMPLETE, "some of its pages were never written")
    if not dump.prstatus:
        found.add(State.DAMAGED, "it has no CPU's registers")


def _sample(dump: KdumpDump, count: int) -> Iterator[tuple[int, Descriptor]]:
    """Yield (rank, descriptor) in places spread evenly over the table, its start and end among them."""
    spread = max(count - _SAMPLE, 0)
    done = 0
    for place in range(_PLACES):
        start = max(spread * place // (_PLACES - 1), done)
        stop = min(max(start, spread * place // (_PLACES - 1) + _SAMPLE), count)
        yield from enumerate(dump.descriptors(start, stop - start), start)
        done = stop


def _check_filter(dump: Dump, found: _Findings, *, thorough: bool) -> None:
    for kind in misfiltered.lacking_pages(dump, thorough=thorough):
        found.left_out += kind.lacking
        found.add(State.DAMAGED, f"{kind.lacking} of {kind.looked_at} {kind.what} that were looked at were left out: "
                  "the program that wrote the dump took pages in use for others "
                  "(makedumpfile before 1.7.6 on kernels from 6.10 on; capture again with -d 1, or a newer one)")


def _read_all(dump: Dump, found: _Findings, progress: Progress | None) -> int:
    total, done, lost = dump.pages_present, 0, 0
    first = ""
    for run in dump.present():
        for start in range(run.start, run.stop, _BATCH):
            batch = range(start, min(start + _BATCH, run.stop))
            try:
                dump.read_pages(batch)
            except KdumpyError:
                for pfn in batch:
                    try:
                        dump.read_physical(pfn * dump.page_size, dump.page_size)
                    except KdumpyError as error:
                        lost += 1
                        first = first or str(error)
            done += len(batch)
            if progress is not None:
                progress(done, total)
    if lost:
        found.add(State.DAMAGED, f"{lost} of {total} pages cannot be read", first)
    return lost
