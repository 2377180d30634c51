"""The kernel itself took the memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import LIKELY, POSSIBLE, Cause, Finding, Unjudged, Words
from kdumpy.diagnosis.causes.out_of_memory import LARGEST_CACHES, cgroup_of, memory_evidence
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.evidence import in_a_line
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.memoryuse.account import memory_account
from kdumpy.diagnosis.memoryuse.allocators import LARGE_KMALLOCS, Threads, is_known, leaked_threads, takers_of
from kdumpy.diagnosis.memoryuse.allocsites import allocation_sites
from kdumpy.diagnosis.memoryuse.takers import asking_modules, vmalloc_callers
from kdumpy.diagnosis.memoryuse.usage import largest_slabs
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.kernel.values import Frame, Task
from kdumpy.units import human_bytes

_SHARE = 0.4
"""Of all memory: as much in kernel memory that cannot be given back is a leak, or close to it."""
_SHARE_OF_ALL = 0.6
"""Of all memory, by all such uses together."""
_BESIDE, _MOST_BESIDE = 0.03, 6
"""Of all memory, in objects of one kind: they came with what grew most. Of so many kinds."""
_MOST_OF_THEM = 0.5
"""Of the objects that were looked at: who allocated as many is to blame."""
_USES = {"slab unreclaimable": "objects", "vmalloc": "vmalloc areas", "other": "pages that it counts nowhere",
         "per-cpu": "per-CPU memory", "slab reclaimable": "objects that could be given back if nobody used them",
         "kernel stacks": "stacks of threads"}
"""Uses of memory by the kernel that only grow, and how they are named."""
# mm/slab_common.c dump_unreclaimable_slab(): NAME  USEDKB  TOTALKB
_SLAB_LINE = re.compile(r"^(\S+)\s+(\d+)KB\s+(\d+)KB$")


@dataclass(frozen=True)
class Taker:
    """Who is likely to have taken the memory."""

    frame: Frame | None = None
    why: str = ""
    """A sentence."""
    task: Task | None = None
    """The task that is asking for more, where it is not the one that panicked."""
    frames: tuple[Frame, ...] = ()
    """The stack that allocated most of the objects, where the kernel remembers that."""
    evidence: tuple[Evidence, ...] = ()
    one_of: bool = False
    """Others may have taken it as well."""


class MemoryLeak(Cause):
    """Memory ran out because the kernel itself took it: objects of one kind, vmalloc areas, or pages."""

    kind = "memory-leak"
    outranks = ("out-of-memory",)

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Match an out-of-memory panic with most memory in one use by the kernel that cannot be given back."""
        if not crash.ended_as(Kind.OOM_PANIC):
            return None
        if crash.kernel is None:
            return Unjudged("only the log could be read, and what the kernel's memory is used for stands in the dump")
        account = memory_account(crash.kernel)
        if account is None or not account.managed:
            return Unjudged("the kernel's memory counters are not in the dump")
        # Where it is a cgroup's limit that was reached, nothing was looked for that could have been given back.
        limited = cgroup_of(crash, crash.event if crash.told(Kind.OOM) else None) is not None
        held_by = [(share.name, share.size) for share in account.shares if share.name in _USES
                   and not (limited and share.name == "slab reclaimable")]
        use, size = max(held_by, key=lambda pair: pair[1])
        threads = leaked_threads(crash) if use in ("kernel stacks", "slab unreclaimable") else None
        # What only grows is taken together: each of many things may be small, as what a thread is made of.
        if size < _SHARE * account.managed and (sum(pair[1] for pair in held_by) < _SHARE_OF_ALL * account.managed
                                                or limited):
            return None
        if use == "kernel stacks" and threads is None:      # of processes, which may be too many
            return None
        if threads is not None:
            return self._of_threads(crash, threads, round(100 * sum(pair[1] for pair in held_by) / account.managed))
        # The dump's own counts, which `kmem -s` shows; the log's are of a moment before, and leave out slabs' rests.
        held = largest_slabs(crash.kernel)
        caches = (held if held and held[0][1] else self._told_slabs(crash)) if use.startswith("slab") else []
        loose = _in_no_cache(account, caches) if caches else 0
        name = caches[0][0] if caches and caches[0][1] >= loose else ""
        kind = LARGE_KMALLOCS if caches and not name else use
        taker = self._allocator(crash, name) or self._taker(crash, use)
        if taker.frame is None:
            taker = self._by_code(crash, name or kind, [cache for cache, size in held[:_MOST_BESIDE]
                                                       if size >= _BESIDE * account.managed and cache != name])
        words = Words(crash, taker.frame)
        what = f"objects of {name}" if name else kind if kind == LARGE_KMALLOCS else _USES[use]
        return Finding(
            title=f"Memory leak in the kernel: {what}" + (f", taken by {words.short}" if taker.frame else ""),
            confidence=LIKELY if taker.frame and (taker.frame.module or taker.frames) and not taker.one_of
            else POSSIBLE,
            explanation=words.paragraph(
                f"Memory ran out because the kernel's own {_USES[use]} took "
                f"{round(100 * size / account.managed)} % of the {human_bytes(account.managed)} that it manages"
                + (f"; {human_bytes(caches[0][1])} are of the kind {name}." if name else
                   f"; {human_bytes(loose)} are in no cache: kmalloc() of more than two pages takes them of the page "
                   "allocator." if caches else "."),
                taker.why, words.where if taker.frame and taker.frame == crash.own_frame and not taker.task
                and not taker.frames and use != "vmalloc" else ""),
            evidence=[*crash.evidence.log(crash.closing), *self._largest(crash, use, caches, loose), *taker.evidence,
                      *memory_evidence(crash), *self._asking(crash, taker), *crash.evidence.stack()],
            next=["Watch it on a running machine (slabtop, /proc/vmallocinfo, /proc/meminfo): does it only ever grow?",
                  *([f"To know who allocates: boot with slub_debug=U,{name}; the next dump's report names the code."]
                    if name and not taker.frames else []),
                  *(["To know who allocates: watch the event kmem:kmalloc for sizes above two pages, or boot with "
                     "page_owner=on, where the kernel has that."] if kind == LARGE_KMALLOCS else [])],
            culprit=taker.frame, decisions=(*crash.own.decisions, *([taker.why] if taker.why else [])),
            tokens=name or kind, subtype="" if name else kind,
            trace=taker.frames or (crash.kernel.stack(taker.task).frames if taker.task else ()),
            trace_task=taker.task, trace_of="the allocation of most of the objects" if taker.frames else "")

    @staticmethod
    def _of_threads(crash: Crash, threads: Threads, percent: int) -> Finding:
        """Return the leak of threads, which hold stacks, and objects of many kinds."""
        frame = threads.makers[0] if len(threads.makers) == 1 else threads.function
        words, run = Words(crash, frame), Words(crash, threads.function)
        return Finding(
            title=f"Memory leak in the kernel: {threads.number:,} threads, made by {words.short}"
            if threads.makers else f"Memory leak in the kernel: {threads.number:,} threads of {words.short}",
            confidence=LIKELY,
            explanation=words.paragraph(
                f"Memory ran out because there are {threads.number:,} kernel threads that run {run.name}; what the "
                f"kernel itself holds takes {percent} % of it: their stacks, and what else a thread is made of.",
                f"{words.name} makes them." if threads.makers else "", words.blame),
            evidence=[*crash.evidence.log(crash.closing),
                      Evidence("kernel threads of one function",
                               f"{threads.number:,} run {threads.function.function}()",
                               crash.evidence.command(
                                   f"foreach kernel bt |: where frames.function={threads.function.symbol} "
                                   "|: count frames.function")), *memory_evidence(crash)],
            next=["Threads must come to their end, or be stopped by kthread_stop(): look for the way on which they are "
                  "made and forgotten."],
            culprit=frame, decisions=(f"chosen: {frame.function}, "
                                      + ("which makes the threads" if threads.makers else "which the threads run"),),
            tokens="kernel threads", subtype="threads")

    @staticmethod
    def _by_code(crash: Crash, what: str, beside: Sequence[str]) -> Taker:
        """Return who takes such memory by its code, where nobody is asking for more; of several the first.

        Args:
            crash: the crash.
            what: the cache, or the use.
            beside: other caches that grew: a packet is an object of one, and pages or an object of another.
        """
        known = next((cache for cache in beside if is_known(cache)), "")
        found = (takers_of(crash, known) if known else []) or takers_of(crash, what)
        if not found:
            return Taker()
        words = Words(crash, found[0])
        others = f", as {len(found) - 1} more function{'s' if len(found) > 2 else ''} of modules do" \
            if len(found) > 1 else ", the only function to do so in a module that is not the kernel's own"
        return Taker(found[0], f"Nobody was asking for more. By its code, {words.name} takes such memory{others}.",
                     one_of=len(found) > 1)

    @staticmethod
    def _allocator(crash: Crash, cache: str) -> Taker | None:
        """Return who allocated most objects of the cache; None where the kernel does not remember (slub_debug=U)."""
        assert crash.kernel is not None
        sites = allocation_sites(crash.kernel, cache) if cache else []
        if not sites or sites[0].part < _MOST_OF_THEM:
            return None
        frame = culprit.choose(sites[0].frames).frame or sites[0].frame
        listed = ", ".join(f"{round(100 * site.part)} % by {site.frame}" for site in sites[:3])
        shown = Evidence(f"who allocated {cache}, by a sample", listed,
                         crash.evidence.command(f"struct track {sites[0].track:x}",
                                                crash.evidence.of_track(sites[0].track)))
        return Taker(frame, f"{round(100 * sites[0].part)} % of them were allocated by {Words(crash, frame).name}: the "
                            "kernel was told to remember (slub_debug=U).", frames=sites[0].frames, evidence=(shown,))

    @staticmethod
    def _taker(crash: Crash, use: str) -> Taker:
        assert crash.kernel is not None
        if use == "vmalloc":
            callers = vmalloc_callers(crash.kernel)
            frame, held = callers[0] if callers else (None, 0)
            if frame is not None and frame.symbol and held >= sum(size for _, size in callers) / 2:
                return Taker(frame, f"{Words(crash, frame).name} asked for {human_bytes(held)} of them, and has not "
                                    "given them back.")
            return Taker()
        points = "which points to the code that takes memory and does not give it back; one sample does not prove it."
        own = crash.own_frame
        if own is not None and own.module:
            return Taker(own, f"The task that asked for more when nothing was left is in {Words(crash, own).name}, "
                              f"{points}")
        frame, task = next(iter(asking_modules(crash.kernel)), (None, None))
        if frame is not None and task is not None:
            return Taker(frame, f"{task.comm} (pid {task.pid}) was asking for more, too, in "
                                f"{Words(crash, frame).name}, {points}", task)
        return Taker()

    @staticmethod
    def _largest(crash: Crash, use: str, caches: list[tuple[str, int]], loose: int) -> list[Evidence]:
        if caches:
            listed = ", ".join(f"{cache} {human_bytes(held)}" for cache, held in caches[:3])
            if loose > caches[0][1]:
                listed = f"{human_bytes(loose)} in no cache, {listed}"
            return [Evidence("the largest kinds of kernel objects", listed, crash.evidence.command(LARGEST_CACHES))]
        if use == "vmalloc" and crash.kernel is not None:
            listed = ", ".join(f"{frame} {human_bytes(held)}" for frame, held in vmalloc_callers(crash.kernel)[:3])
            return [Evidence("who asked for vmalloc areas", listed,
                             crash.evidence.command("kmem -v |: sum bytes by caller |: head 3"))]
        return []

    @staticmethod
    def _asking(crash: Crash, taker: Taker) -> list[Evidence]:
        if taker.task is None or crash.kernel is None:
            return []
        names = in_a_line(crash.kernel.stack(taker.task).frames)
        return [Evidence(f"what {taker.task.comm} was doing", names, crash.evidence.command(f"bt {taker.task.pid}"))]

    @staticmethod
    def _told_slabs(crash: Crash) -> list[tuple[str, int]]:
        """Return (cache, bytes) as the out-of-memory report lists them, largest first."""
        lines = crash.event.lines if crash.event else ()
        rows = [(match[1], int(match[3]) << 10) for line in lines if (match := _SLAB_LINE.match(line))]
        return sorted(rows, key=lambda row: -row[1])


def _in_no_cache(account: MemoryAccount, caches: Sequence[tuple[str, int]]) -> int:
    """Return the bytes that the kernel counts as slabs, and that no cache has.

    Of kmalloc() of more than KMALLOC_MAX_CACHE_SIZE: 6a486c0ad4dc "mm, sl[ou]b: improve memory accounting" (5.5).
    """
    slabs = sum(share.size for share in account.shares if share.name in ("slab reclaimable", "slab unreclaimable"))
    return max(0, slabs - sum(size for _, size in caches))
