"""Saving the dump on one target: as configured, then with fewer pages, then with less memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.journal import Journal, told
from kdumpy.capture.stop import Stop, Stopped
from kdumpy.capture.targets import Target
from kdumpy.errors import KdumpyError, NoSpace
from kdumpy.units import human_bytes

if TYPE_CHECKING:
    from kdumpy.capture.pipeline import Estimate, Options, Summary
    from kdumpy.capture.plan import Plan
    from kdumpy.dumpfile.base import Dump
    from kdumpy.dumpfile.sink import Sink

NAME = "vmcore"

_HIGHEST_LEVEL = 31
_RESERVE = 24 << 20
"""Bytes that are left to the kernel: for its buffers, and what a target's programs take."""
_ALONE = 32 << 20
"""Bytes that one process takes to save a dump, numpy included (30 MiB were measured; 20 with the least memory)."""
_WORKER = 20 << 20
"""Bytes that each worker takes beside it, its shared memory included (18 MiB were measured)."""
_TRIAL_S = 5.0
_TRIAL_SHARE = 50
"""From this part of the pages on (1 in 50), and after _TRIAL_S, the time that the rest will take is believed."""


class TooSlow(KdumpyError):
    """What is being written would not be finished within the time budget, and less could be."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to write the dump."""

    level: int
    compress: str
    format: str
    small: bool

    def options(self, workers: int) -> Options:
        """Return what the pipeline takes."""
        from kdumpy.capture.pipeline import Options

        return Options(level=self.level, compression=self.compress, workers=workers, small=self.small,
                       format=cast('Literal["kdump", "elf"]', self.format))

    def size_class(self) -> tuple[int, str, str]:
        """Return what the dump's size hangs on."""
        return self.level, self.compress, self.format

    def __str__(self) -> str:
        return f"level {self.level}, {self.compress}{', least memory' if self.small else ''}"


def attempts(config: CaptureConfig, *, small: bool) -> list[Attempt]:
    """Return the ways to try, in order; each next one is smaller or takes less memory."""
    # Where the configured way fails, what matters is that something is saved: then pages are compressed.
    compress = "zstd" if config.compress == "none" or config.format == "elf" else config.compress
    ways = [Attempt(config.level, config.compress, config.format, small),
            Attempt(_HIGHEST_LEVEL, compress, "kdump", small),
            Attempt(_HIGHEST_LEVEL, compress, "kdump", True)]
    return list(dict.fromkeys(ways))


def available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Return bytes that programs can still have, as the kernel reckons; None when it does not tell."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


class CoreSaver:
    """Saves the dump on one target."""

    def __init__(self, config: CaptureConfig, dump: Dump, target: Target, journal: Journal, stop: Stop) -> None:
        self._config = config
        self._dump = dump
        self._target = target
        self._journal = journal
        self._stop = stop
        self._workers = config.workers
        self._plan: Plan | None = None
        """Which pages the last way keeps: pages are sorted once for ways of the same level."""
        self._written = 0
        self.left_behind = ""
        """Where an incomplete dump stays; empty when there is none."""

    def save(self, *, small: bool, last_target: bool) -> bool:
        """Try each way until one works; return whether the dump is complete. Stopped passes through."""
        small = small or self._is_short_of_memory()
        ways = attempts(self._config, small=small)
        too_large: list[Attempt] = []
        """What did not fit."""
        while ways:
            way = ways.pop(0)
            if any(way.size_class() == failed.size_class() for failed in too_large):
                continue
            smaller = [other for other in ways if other.size_class() != way.size_class()]
            try:
                if not self._fits(way, smaller_ones=bool(smaller), last_target=last_target):
                    too_large.append(way)
                    continue
                self._clear()
                self._save(way, smaller_ones=bool(smaller))
                return True
            except NoSpace as error:
                self._failed(way, error)
                too_large.append(way)
            except MemoryError:
                self._failed(way, "out of memory")
                ways = [other for other in ways if other.small]
            except TooSlow as error:
                self._failed(way, error)
                ways = smaller
            except Exception as error:
                self._failed(way, told(error))
            except Stopped:
                self._abandon()
                raise
        return False

    def _is_short_of_memory(self) -> bool:
        """Tell whether only the least memory may be used; else take no more workers than there is memory for."""
        memory = available_memory()
        if memory is None:
            return False
        if memory < _ALONE + _RESERVE:
            self._journal.say(f"memory is short, {human_bytes(memory)} are available: saves with the least memory")
            return True
        wanted = self._config.workers or len(os.sched_getaffinity(0))
        self._workers = max(min(wanted, (memory - _ALONE - _RESERVE) // _WORKER), 1)
        if self._workers < wanted:
            self._journal.say(f"{human_bytes(memory)} of memory are available: {self._workers} in place of {wanted} "
                              "processes")
        return False

    def _failed(self, way: Attempt, error: object) -> None:
        self._journal.say(f"saving the dump ({way}) failed: {error}")
        self._abandon()

    def _abandon(self) -> None:
        """Let go of a dump that is not whole; what is there of it keeps its incomplete name."""
        self._journal.console.end()
        try:
            self.left_behind = self._target.abandon(NAME, self._written)
        except Exception as error:
            self._journal.say(f"cannot close the incomplete dump: {told(error)}")
        if self.left_behind:
            self._journal.say(f"an incomplete dump, {human_bytes(self._written)}, is at {self.left_behind}")

    def _clear(self) -> None:
        """Remove what an attempt before left: a smaller dump may fit in its place."""
        if self.left_behind:
            self._target.discard(NAME)
            self._journal.say(f"removed {self.left_behind}")
            self.left_behind = ""
        self._written = 0

    def _fits(self, way: Attempt, *, smaller_ones: bool, last_target: bool) -> bool:
        """Tell whether to try: it fits, as far as can be known, or nothing else is left to try."""
        self._clear()
        estimate = self._estimate(way)
        if estimate is None:
            return True
        if estimate.plan.why_unfiltered:
            self._journal.say(f"all memory is taken, only zero pages left out: {estimate.plan.why_unfiltered}")
        free = self._free()
        if free is None or estimate.bytes <= free:
            return True
        text = f"the dump ({way}) takes about {human_bytes(estimate.bytes)}, {human_bytes(free)} are free"
        if smaller_ones or not last_target:
            self._journal.say(f"{text}: tries {'fewer pages' if smaller_ones else 'the next target'}")
            return False
        self._journal.say(f"{text}: there is nothing smaller, it is tried")
        return True

    def _estimate(self, way: Attempt) -> Estimate | None:
        from kdumpy.capture import pipeline

        try:
            with self._stop.interruptible():
                found = pipeline.estimate(self._dump, way.options(self._workers), plan=self._plan)
            self._plan = found.plan
            return found
        except MemoryError:
            raise
        except Exception as error:
            self._journal.say(f"the dump's size cannot be told before: {told(error)}")
            return None

    def _free(self) -> int | None:
        try:
            return self._target.free_bytes()
        except KdumpyError as error:
            self._journal.say(f"free space is not known: {error}")
            return None

    def _save(self, way: Attempt, *, smaller_ones: bool) -> None:
        from kdumpy.capture import pipeline

        sink: Sink = self._target.open(NAME)
        console = self._journal.console
        console.start(self._dump.page_size)
        with self._stop.interruptible():
            summary = pipeline.save(self._dump, sink, way.options(self._workers),
                                    self._watch(smaller_ones=smaller_ones), plan=self._plan)
            sink.close()
        console.end()
        name = self._target.keep(NAME, summary.bytes_written)
        self._journal.say(f"saved {self._target.place(name)}: {describe(summary)}; {way}")
        if summary.unreadable_pages:
            self._journal.say(f"{summary.unreadable_pages} pages could not be read and are marked so in the dump")
        if self._config.sha256:
            self._sum(name)

    def _watch(self, *, smaller_ones: bool) -> Callable[[int, int, int], None]:
        """Return what is told of progress: it shows it, and ends what takes too long."""
        began = time.monotonic()

        def watch(done: int, total: int, written: int) -> None:
            self._written = written
            self._journal.console.progress(done, total, written)
            if self._stop.reason:  # the signal may have come where its exception was lost
                raise Stopped(self._stop.reason)
            remaining = self._stop.remaining_s
            passed = time.monotonic() - began
            if remaining is None or not smaller_ones or passed < _TRIAL_S or done * _TRIAL_SHARE < total:
                return
            needed = passed * (total - done) / max(done, 1)
            if needed > remaining:
                raise TooSlow("the dump would take too long",
                              why=f"another {needed:.0f} s, and {remaining:.0f} s are left of the time budget")

        return watch

    def _sum(self, name: str) -> None:
        """Write the SHA-256 beside the dump; without it the dump is as complete."""
        try:
            with self._stop.interruptible():
                digest = self._target.digest(name)
            if digest is not None:
                self._target.put(f"{name}.sha256", f"{digest}  {name}\n".encode())
                self._journal.say(f"SHA-256 {digest}")
        except (Exception, Stopped) as error:
            self._journal.say(f"no SHA-256 is written: {told(error)}")


def describe(summary: Summary) -> str:
    """Return a finished dump in a line."""
    memory = summary.memory_pages * summary.page_size
    ratio = memory / summary.bytes_written if summary.bytes_written else 0
    return (f"{summary.kept_pages:,} of {summary.memory_pages:,} pages, {human_bytes(summary.bytes_written)} "
            f"for {human_bytes(memory)} of memory (1:{ratio:.0f}), in {summary.seconds:.1f} s")
