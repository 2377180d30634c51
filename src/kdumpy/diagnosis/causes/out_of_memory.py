"""Memory ran out."""

from __future__ import annotations

import re
import shlex

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.memory import CgroupLimit, MemoryAccount
from kdumpy.diagnosis.memoryuse.account import memory_account, oom_kills
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Event, Kind
from kdumpy.units import human_bytes

_INVOKED = re.compile(r"(\S.*) invoked oom-killer: ")
# mm/oom_kill.c dump_tasks(): [  pid  ]   uid  tgid total_vm      rss ... oom_score_adj name
_TASK = re.compile(r"^\[\s*(\d+)\](?:\s+-?\d+){3}\s+(\d+)(?:\s+-?\d+)+\s+(\S.*)$")
# mm/memcontrol.c mem_cgroup_print_oom_meminfo()
_USAGE = re.compile(r"^memory: usage (\d+)kB, limit (\d+)kB")
_STATS = re.compile(r"^Memory cgroup stats for (.+?):(?: |$)")
_FULL = 0.95
"""Of its limit: a cgroup that is this full is at it."""
_PAGE = 4096
_WORTH_TELLING = 1 << 19
"""Bytes by which two counts of free memory may differ without a word."""
LARGEST_CACHES = "kmem -s |: sort -bytes |: head 3"
"""The shell's line that shows the largest slab caches."""
_COUNTERS = "kmem -V |: where group=VM_NODE_STAT value>0"
"""The counters, in pages, of what `kmem -i` has no line for."""
_SHARES = 7
"""Uses of memory that are named; the rest is summed up."""


class OutOfMemory(Cause):
    """No memory was left, and the kernel is set to panic then, or had nothing left to kill."""

    kind = "out-of-memory"
    outranks = ("driver-panic",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the closing panic of the out-of-memory killer."""
        if not crash.ended_as(Kind.OOM_PANIC):
            return None
        event = crash.event if crash.told(Kind.OOM) else None
        group = cgroup_of(crash, event)
        largest = _largest(event) if event else []
        asked = _INVOKED.search(event.text) if event else None
        no_process = "no killable processes" in crash.closing_words
        full = f"The memory limit of the cgroup {group.path}, {human_bytes(group.limit)}, was reached" if group else \
            "All memory was in use"
        told = [f"{full} and nothing could be given back" + (f" when {asked[1]} asked for more." if asked else ".")]
        if largest:
            pid, size, name = largest[0]
            told.append(f"The largest process {'in it ' if group else ''}was {name} (pid {pid}) with "
                        f"{human_bytes(size)}"
                        + ("; more than the limit, for pages that another cgroup touched first, as of a program's "
                           "file, are charged to that one." if group and size > group.limit else "."))
        told.append("There was no process left that could be ended." if no_process else
                    "The kernel is set to panic instead of ending a process (vm.panic_on_oom).")
        name = largest[0][2] if largest else ""
        return Finding(
            title="Out of memory" + (f" in the cgroup {group.path}" if group else "")
            + (f": the largest process was {name}" if name else ""),
            confidence=CERTAIN if event else LIKELY,
            explanation=" ".join(told),
            evidence=[*crash.evidence.log(crash.closing), *crash.evidence.log(event, "who asked for memory"),
                      *_largest_evidence(crash, largest), *memory_evidence(crash)],
            next=["Raise the limit (memory.max; MemoryMax= of the service), or find out what in it grew." if group else
                  "Give the machine more memory or swap, or limit the largest process (MemoryMax= of its service).",
                  "To let the kernel end a process instead of panicking: sysctl vm.panic_on_oom=0."],
            subtype="cgroup" if group else "no-process" if no_process else "", tokens=name or "out of memory")


def cgroup_of(crash: Crash, event: Event | None) -> CgroupLimit | None:
    """Return the cgroup whose limit was reached; None where it was all of the machine's memory."""
    lines = event.lines if event else ()
    path = next((match[1] for line in lines if (match := _STATS.match(line))), None)
    usage = next((match for line in lines if (match := _USAGE.match(line))), None)
    if path is not None:
        return CgroupLimit(path, int(usage[1]) << 10 if usage else 0, int(usage[2]) << 10 if usage else 0)
    if not crash.in_stack("mem_cgroup_out_of_memory") or crash.kernel is None:
        return None
    account = memory_account(crash.kernel)
    return next((group for group in account.cgroups if group.used >= _FULL * group.limit), None) if account else None


def _largest(event: Event) -> list[tuple[int, int, str]]:
    """Return (pid, resident bytes, name) of the processes in the killer's table, largest first."""
    rows = [(int(match[1]), int(match[2]) * _PAGE, match[3]) for line in event.lines if (match := _TASK.match(line))]
    return sorted(rows, key=lambda row: -row[1])


def _largest_evidence(crash: Crash, largest: list[tuple[int, int, str]]) -> list[Evidence]:
    if not largest:
        return []
    words = ", ".join(f"{name} (pid {pid}) {human_bytes(size)}" for pid, size, name in largest[:3])
    pids = "|".join(str(pid) for pid, _, _ in largest[:3])
    return [Evidence("the largest processes, in the killer's table (which counts pages)", words,
                     crash.evidence.command(rf'log |: where text~"^\[ *({pids})\] "'))]


def _on_cpus(account: MemoryAccount) -> str:
    """Say how much of the free memory each CPU keeps at hand, which the zones (and `kmem -i`) do not count as free."""
    free = next((share.size for share in account.shares if share.name == "free"), 0)
    kept = free - sum(zone.free for zone in account.zones)
    return f" ({human_bytes(kept)} of that in the CPUs' own lists, which kmem -i leaves out)" if kept > _WORTH_TELLING \
        else ""


def memory_evidence(crash: Crash) -> list[Evidence]:
    """Return how memory was used."""
    account = memory_account(crash.kernel) if crash.kernel else None
    if account is None:
        return []
    # What was never the page allocator's is told apart: `kmem -i` and every share in percent are of the rest.
    uses = [share for share in account.shares if share.name != "reserved"]
    listed = uses[:_SHARES] + [share for share in uses[_SHARES:] if share.name == "free"]
    shares = [f"{human_bytes(share.size)} {share.name}" + (_on_cpus(account) if share.name == "free" else "")
              for share in listed if share.size or share.name == "free"]
    rest = sum(share.size for share in uses if share not in listed)
    words = (f"{human_bytes(account.ram)} ({human_bytes(account.managed)} of it managed by the kernel): "
             + ", ".join(shares) + f", {human_bytes(rest)} the rest")
    found = [Evidence("memory", words, crash.evidence.command("sys", "kmem -i", _COUNTERS))]
    kills = list(oom_kills(crash.lines, crash.seconds))
    if kills:
        named = ", ".join(f"{kill.comm} (pid {kill.pid}) {human_bytes(kill.anonymous)}"
                          + (f" in {kill.cgroup}" if kill.cgroup else "") for kill in kills[-3:])
        found.append(Evidence(f"processes that were ended before, {len(kills)}", named,
                              f"kdumpy log {shlex.quote(str(crash.path))}"))
    full = [group for group in account.cgroups if group.used >= _FULL * group.limit]
    if full:
        named = ", ".join(f"{group.path} {human_bytes(group.used)} of {human_bytes(group.limit)}" for group in full[:3])
        shown = [f"struct mem_cgroup.memory {group.address:x}" for group in full[:3] if group.address]
        found.append(Evidence("cgroups at their limit", named, crash.evidence.command(*shown) if shown else ""))
    return found
