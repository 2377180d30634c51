"""With which event of the log a crash began, and with which it ended."""

from __future__ import annotations

from collections.abc import Sequence

from kdumpy.diagnosis.oops import Event, Kind

_CLUSTER_SECONDS = 5.0
"""khungtaskd reports the hung tasks of a round within this time before it panics."""

# The words of the closing panic that name what it was made of (kernel/hung_task.c, kernel/watchdog.c,
# kernel/rcu/tree_stall.h, kernel/sched/core.c, kernel/panic.c, mm/oom_kill.c).
_CLOSINGS = (
    ("hung_task: blocked tasks", Kind.HUNG),
    ("softlockup: hung tasks", Kind.SOFT_LOCKUP),
    ("Hard LOCKUP", Kind.HARD_LOCKUP),
    ("RCU Stall", Kind.RCU),
    ("scheduling while atomic", Kind.ATOMIC),
    ("panic_on_warn", Kind.WARN),
    ("warn_limit", Kind.WARN),
    ("warned too often", Kind.WARN),
    ("Out of memory", Kind.OOM),
    ("deadlocked on memory", Kind.OOM),
)


def closing_of(events: Sequence[Event]) -> Event | None:
    """Return the closing panic's own event; None where the dump was taken before it was printed."""
    return next((event for event in reversed(events)
                 if any("Kernel panic - not syncing" in line for line in event.lines)), None)


def first_event(events: Sequence[Event], closing: Event | None) -> Event | None:
    """Return the event that the crash began with: the first oops, else the report that the panic was made of."""
    first = next((event for event in events if event.fatal), None)
    if first is not None or closing is None:
        return first
    kind = next((kind for words, kind in _CLOSINGS if any(words in line for line in closing.lines)), None)
    before = [event for event in events if kind in event.kinds and event.position < closing.position]
    if not before:
        return closing
    if kind == Kind.SOFT_LOCKUP:            # several CPUs may report at once: the one that panicked is meant
        before = [event for event in before if event.cpu == closing.cpu] or before
    if kind == Kind.HUNG and closing.seconds is not None:
        return next(event for event in before
                    if event.seconds is None or closing.seconds - event.seconds <= _CLUSTER_SECONDS
                    or event is before[-1])
    return before[-1]
