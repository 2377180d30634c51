"""The line of the log that says why the kernel went down: what crash shows as PANIC."""

from __future__ import annotations

import re
from collections.abc import Iterable

# An oops calls the capture kernel before panic() can print its line, so the first cause in the log comes first.
# Source: arch/x86/mm/fault.c, arch/x86/kernel/traps.c, lib/bug.c, kernel/panic.c, kernel/watchdog.c,
# kernel/hung_task.c, arch/arm64/mm/fault.c, drivers/tty/sysrq.c.
_CAUSES = re.compile(
    r"^(BUG: |Unable to handle kernel |general protection fault|Oops|kernel BUG at|divide error|invalid opcode|"
    r"stack segment|double fault|int3:|traps: PANIC|Internal error|watchdog: BUG:|NMI watchdog: Watchdog detected|"
    r"Kernel panic - not syncing|sysrq: Trigger a crash|SysRq : Trigger a crash|Bad mode in|"
    r"PANIC: double fault|list_(?:add|del) corruption|kernel tried to execute|kernel stack overflow|"
    r"Insufficient stack space)")
_WARNINGS = re.compile(r"^BUG: (workqueue lockup|scheduling while atomic|sleeping function)")
"""These alone do not take a kernel down."""


def is_cause(text: str) -> bool:
    """Whether a line of the log tells of something that takes a kernel down."""
    return bool(_CAUSES.match(text)) and not _WARNINGS.match(text)


def fatal_line(records: Iterable[tuple[float, str]]) -> str:
    """Return the line that tells the cause, or empty, out of (seconds since boot or -1, text) in order.

    An oops that the kernel survived does not count where a later one killed it: the last trouble is the fatal
    one, and its first line was printed within a second of its last.
    """
    found = [(seconds, text.split("\n")[0]) for seconds, text in records if is_cause(text)]
    if not found:
        return ""
    end = found[-1][0]
    return next(text for seconds, text in found if end < 0 or end - seconds < 1)
