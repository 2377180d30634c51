"""Memory ran out."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Event, Kind
from kdumpy.units import human_bytes

_INVOKED = re.compile(r"(\S.*) invoked oom-killer: ")
# mm/oom_kill.c dump_tasks(): [  pid  ]   uid  tgid total_vm      rss ... oom_score_adj name
_TASK = re.compile(r"^\[\s*(\d+)\](?:\s+-?\d+){3}\s+(\d+)(?:\s+-?\d+)+\s+(\S.*)$")
_PAGE = 4096


class OutOfMemory(Cause):
    """No memory was left, and the kernel is set to panic then, or had nothing left to kill."""

    kind = "out-of-memory"
    outranks = ("driver-panic",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the closing panic of the out-of-memory killer."""
        if not crash.ended_as(Kind.OOM_PANIC):
            return None
        event = crash.event if crash.told(Kind.OOM) else None
        largest = _largest(event) if event else []
        asked = _INVOKED.search(event.text) if event else None
        no_process = "no killable processes" in crash.closing_words
        told = ["All memory was in use and nothing could be given back"
                + (f" when {asked[1]} asked for more." if asked else ".")]
        if largest:
            pid, size, name = largest[0]
            told.append(f"The largest process was {name} (pid {pid}) with {human_bytes(size)}.")
        told.append("There was no process left that could be ended." if no_process else
                    "The kernel is set to panic instead of ending a process (vm.panic_on_oom).")
        name = largest[0][2] if largest else ""
        return Finding(
            title="Out of memory" + (f": the largest process was {name}" if name else ""),
            confidence=CERTAIN if event else LIKELY,
            explanation=" ".join(told),
            evidence=[*crash.evidence.log(crash.closing), *crash.evidence.log(event, "who asked for memory"),
                      *_largest_evidence(crash, largest), *memory_evidence(crash)],
            next=["Give the machine more memory or swap, or limit the largest process (MemoryMax= of its service).",
                  "To let the kernel end a process instead of panicking: sysctl vm.panic_on_oom=0."],
            subtype="no-process" if no_process else "", tokens=name or "out of memory")


def _largest(event: Event) -> list[tuple[int, int, str]]:
    """Return (pid, resident bytes, name) of the processes in the killer's table, largest first."""
    rows = [(int(match[1]), int(match[2]) * _PAGE, match[3]) for line in event.lines if (match := _TASK.match(line))]
    return sorted(rows, key=lambda row: -row[1])


def _largest_evidence(crash: Crash, largest: list[tuple[int, int, str]]) -> list[Evidence]:
    if not largest:
        return []
    words = ", ".join(f"{name} (pid {pid}) {human_bytes(size)}" for pid, size, name in largest[:3])
    return [Evidence("the largest processes", words, crash.evidence.command("ps -G"))]


def memory_evidence(crash: Crash) -> list[Evidence]:
    """Return how memory was used."""
    from kdumpy.diagnosis.usage import memory_usage

    usage = memory_usage(crash.kernel) if crash.kernel else None
    if usage is None or usage.total is None:
        return []
    parts = {"in all": usage.total, "free": usage.free, "processes": usage.anonymous, "file cache": usage.file,
             "kernel objects": usage.slab}
    words = ", ".join(f"{human_bytes(size)} {name}" for name, size in parts.items() if size is not None)
    return [Evidence("memory", words, crash.evidence.command("kmem -i"))]
