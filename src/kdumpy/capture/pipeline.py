"""From an opened dump (or /proc/vmcore) to a smaller one: sort the pages, read, compress, write.

Memory is bounded whatever the machine's RAM: the bitmap is held compressed (`plan`), pages go in batches (`batch`),
equal pages are found through a table of fixed size (`duplicates`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdumpy.capture.batch import Batch, Packer
from kdumpy.capture.duplicates import SeenPages
from kdumpy.capture.kinds import Kind
from kdumpy.capture.output import ElfOutput, KdumpOutput, Output
from kdumpy.capture.plan import Plan
from kdumpy.capture.pool import Pool
from kdumpy.dumpfile.compressors import compressor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.sink import Sink

BATCH_BYTES = 2 << 20
"""Bytes of pages in work at a time in each worker: they stay in a CPU's cache from reading to compressing."""
SMALL_BATCH_BYTES = 512 << 10
_SAMPLES = 48
"""Batches that an estimate compresses."""
_SAMPLE_PAGES = 64

Progress = Callable[[int, int, int], None]
"""Is told pages done, pages in all, bytes written."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to keep, and how to write it."""

    level: int = 31
    """makedumpfile's -d: the sum of 1 zero pages, 2 page cache, 4 private page cache, 8 user data, 16 free pages."""
    compression: str = "zstd"
    """zstd, lzo, zlib, snappy or none."""
    compression_level: int | None = None
    """The compressor's own level; None: the one that was measured to serve."""
    format: Literal["kdump", "elf"] = "kdump"
    workers: int = 0
    """Processes that read and compress; 0: as many as there are CPUs (none beside this one if there is one CPU)."""
    small: bool = False
    """Take as little memory as can be: one process, small batches, no look-out for equal pages."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written."""

    memory_pages: int
    """Pages of memory that the source holds."""
    kinds: dict[str, int]
    """Pages by what they were used for; empty when nothing had to be sorted."""
    kept_pages: int
    """Pages in the dump."""
    zero_pages: int
    """Of these, zero: they take no room."""
    shared_pages: int
    """Of these, equal to another one: stored once."""
    unreadable_pages: int
    """Of these, in the source and not to be read: marked as never written."""
    page_size: int
    """Bytes."""
    bytes_written: int
    """Bytes of the dump's file."""
    seconds: float
    unfiltered: str
    """Why pages were kept that the level leaves out; empty when all is well."""

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Estimate:
    """How large a dump will be."""

    pages: int
    """Pages that it will hold."""
    bytes: int
    """Bytes of its file: the headers exactly, the pages by samples, and a tenth more."""
    plan: Plan
    """Which pages: give it to `save`."""


def save(dump: Dump, sink: Sink, options: Options, progress: Progress | None = None, *,
         plan: Plan | None = None) -> Summary:
    """Write a dump of what the options keep of `dump`, and sync it.

    The file says that it is incomplete from its first byte on until the last one is written: whatever happens
    in between, what is there can be read.

    Raises:
        NoSpace: the target is full.
        HostError: a worker died, the target fails, a compressor is missing.
        DamagedDump, MissingPage: the source's own tables cannot be read.
    """
    started = time.monotonic()
    plan = plan if plan is not None and plan.level == options.level else Plan.make(dump, options.level)
    output: Output = (ElfOutput(dump, sink, plan) if options.format == "elf" else
                      KdumpOutput(dump, sink, plan, options.compression, options.compression_level))
    batch_bytes = SMALL_BATCH_BYTES if options.small else BATCH_BYTES
    seen = None if options.small or options.format == "elf" else SeenPages(dump.page_size)
    packer = Packer(dump, output.compressor, seen)
    rank = 0
    with Pool(packer, _workers(options), batch_bytes) as pool:
        for batch in _packed(pool, plan, output, batch_bytes // dump.page_size):
            rank += output.write(rank, batch)
            if progress is not None:
                progress(rank, plan.kept, output.end)
    output.finish()
    sink.sync()
    named = {kind.name.lower(): int(plan.kinds[kind]) for kind in Kind if kind is not Kind.NOT_MEMORY}
    return Summary(plan.memory, named if plan.sorter is not None else {}, plan.kept, output.zero, output.shared,
                   output.unreadable, dump.page_size, output.end, round(time.monotonic() - started, 3),
                   plan.why_unfiltered)


def estimate(dump: Dump, options: Options, *, plan: Plan | None = None) -> Estimate:
    """Return how large the dump will be, from the bitmap and some pages that are really compressed."""
    plan = plan if plan is not None and plan.level == options.level else Plan.make(dump, options.level)
    fixed = 64 * dump.page_size + dump.max_pfn // 4 + plan.kept * 24
    if not plan.kept:
        return Estimate(0, fixed, plan)
    packer = Packer(dump, compressor(options.compression, options.compression_level), None)
    looked_at = stored = 0
    for pfns in _spread(plan):
        batch = packer.pack(pfns)
        looked_at += len(pfns)
        stored += int(batch.packed.sizes.sum()) if batch.packed is not None else 0
    size = stored * plan.kept // looked_at
    return Estimate(plan.kept, fixed + size + size // 10, plan)


def _spread(plan: Plan) -> Iterator[NDArray[np.int64]]:
    """Yield pieces of the kept pages, spread evenly over them."""
    step = max(plan.kept // _SAMPLES, _SAMPLE_PAGES)
    done, following = 0, 0
    for chunk in plan.chunks():
        count = int(np.count_nonzero(chunk.kept))
        if done + count > following:
            pfns = chunk.first + np.flatnonzero(chunk.kept)
            while following < done + count:
                yield pfns[following - done:following - done + _SAMPLE_PAGES]
                following += step
        done += count


def _workers(options: Options) -> int:
    if options.small:
        return 0
    cpus = options.workers or len(os.sched_getaffinity(0))
    return cpus if cpus > 1 else 0


def _packed(pool: Pool, plan: Plan, output: Output, size: int) -> Iterator[Batch]:
    """Yield the batches of all kept pages, in order."""
    left: list[NDArray[np.int64]] = []
    held = 0
    for chunk in plan.chunks():
        output.enter(chunk)
        pfns = chunk.first + np.flatnonzero(chunk.kept)
        left.append(pfns)
        held += len(pfns)
        if held < size:
            continue
        ready = np.concatenate(left)
        whole = held - held % size
        for start in range(0, whole, size):
            yield from pool.submit(ready[start:start + size])
        left, held = [ready[whole:]], held - whole
    if held:
        yield from pool.submit(np.concatenate(left))
    yield from pool.finish()
