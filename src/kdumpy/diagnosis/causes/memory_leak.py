"""The kernel's own objects took the memory."""

from __future__ import annotations

import re

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import LIKELY, POSSIBLE, Cause, Finding, Unjudged, Words
from kdumpy.diagnosis.causes.out_of_memory import memory_evidence
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.usage import largest_slabs, memory_usage
from kdumpy.kernel.values import Frame
from kdumpy.units import human_bytes

_SHARE = 0.4
"""Of all memory: as much in kernel objects that cannot be given back is a leak, or close to it."""
# mm/slab_common.c dump_unreclaimable_slab(): NAME  USEDKB  TOTALKB
_SLAB_LINE = re.compile(r"^(\S+)\s+(\d+)KB\s+(\d+)KB$")


class MemoryLeak(Cause):
    """Memory ran out because the kernel's own objects, of one kind, took it."""

    kind = "memory-leak"
    outranks = ("out-of-memory",)

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Match an out-of-memory panic with most memory in slab objects that cannot be given back."""
        if not crash.ended_as(Kind.OOM_PANIC):
            return None
        if crash.kernel is None:
            return Unjudged("only the log could be read, and the sizes of the slab caches stand in the dump")
        usage = memory_usage(crash.kernel)
        if usage.total is None or usage.slab_unreclaimable is None:
            return Unjudged("the kernel's memory counters are not in the dump")
        if usage.slab_unreclaimable < _SHARE * usage.total:
            return None
        caches = self._told_slabs(crash) or largest_slabs(crash.kernel)
        name, size = caches[0] if caches else ("", 0)
        frame = self._allocator(crash)
        words = Words(crash, frame)
        percent = round(100 * usage.slab_unreclaimable / usage.total)
        listed = ", ".join(f"{cache} {human_bytes(held)}" for cache, held in caches[:3])
        slabs = [Evidence("the largest kinds of kernel objects", listed, crash.evidence.command("kmem -s"))]
        return Finding(
            title="Memory leak in the kernel" + (f": objects of {name}" if name else "")
                  + (f", taken by {words.short}" if frame and frame.module else ""),
            confidence=LIKELY if frame and frame.module and caches else POSSIBLE,
            explanation=words.paragraph(
                f"Memory ran out because the kernel's own objects took {percent} % of it"
                + (f"; {human_bytes(size)} are of the kind {name}." if name else "."),
                f"The task that asked for more when nothing was left is in {words.name}, which points to the code that "
                "takes objects and does not free them; one sample does not prove it." if frame else "",
                words.where),
            evidence=[*crash.evidence.log(crash.closing), *(slabs if caches else ()), *memory_evidence(crash),
                      *crash.evidence.stack()],
            next=["Watch the cache's size on a running machine (slabtop): does it only ever grow?"],
            culprit=frame, decisions=crash.own.decisions, tokens=name)

    @staticmethod
    def _told_slabs(crash: Crash) -> list[tuple[str, int]]:
        """Return (cache, bytes) as the out-of-memory report lists them, largest first."""
        lines = crash.event.lines if crash.event else ()
        rows = [(match[1], int(match[3]) << 10) for line in lines if (match := _SLAB_LINE.match(line))]
        return sorted(rows, key=lambda row: -row[1])

    @staticmethod
    def _allocator(crash: Crash) -> Frame | None:
        return culprit.choose(crash.below_panic).frame
