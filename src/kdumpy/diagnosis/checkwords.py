"""What the kernel's own checks of copies say before their BUG: the BUG's line is that of the check.

Sources: lib/string_helpers.c (CONFIG_FORTIFY_SOURCE), mm/usercopy.c (CONFIG_HARDENED_USERCOPY).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kdumpy.kernel.values import Frame

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash

_FORTIFY = "lib/string_helpers.c"
"""The checks of lengths of copies (CONFIG_FORTIFY_SOURCE) end there, fortify_panic()."""
# lib/string_helpers.c: fortify_panic() says the first until 6.7, __fortify_report() the second since 6.8.
_OVERFLOWS = (re.compile(r"^detected buffer (?P<way>overflow|overread) in (?P<function>\w+)"),
              re.compile(r"^(?P<function>\w+): detected buffer overflow: (?P<size>\d+) byte (?P<way>read|write) of "
                         r"buffer size (?P<room>\d+)"))
# mm/usercopy.c, usercopy_abort()
_USERCOPY = re.compile(r"usercopy: Kernel memory (?:exposure|overwrite) attempt detected (?:from|to) .+")
_NAMED = re.compile(r"\b([A-Za-z_][\w.]*)(?:\+0x([0-9a-f]+)/0x[0-9a-f]+)? \[([\w-]+)\]")
"""A function of a module as printk() writes it: %pS and %ps (lib/vsprintf.c, Documentation/core-api/printk-formats)."""
_OF_DRIVER = re.compile(r"^NETDEV WATCHDOG: \S+ \(([\w-]+)\)")
"""net/sched/sch_generic.c, dev_watchdog(): the driver of the device, which is on no stack then."""
_NEAR = 120
"""Lines before the BUG's in which the check has told what it found: a warning with its trace may lie between."""


class Told(NamedTuple):
    """What a check told of itself."""

    line: str
    title: str
    sentence: str
    """What was done, after the name of who did it."""
    function: str
    """What was called to do it."""


def named_by_warning(crash: Crash) -> Frame | None:
    """Return the function of a module that a warning names in its own words; only its module where it names no more.

    What checks a callback after its return (a timer's, an interrupt's, a module's start) finds it on no stack.
    """
    said = crash.event.before if crash.event is not None else ""
    match = _NAMED.search(said)
    if match and (crash.kernel is None or match[3] in crash.modules):
        return Frame(0, match[1], int(match[2] or "0", 16), match[3])
    match = _OF_DRIVER.search(said)
    if match and (crash.kernel is None or match[1] in crash.modules):
        return Frame(0, None, None, match[1])
    return None


def told_by_check(crash: Crash) -> Told | None:
    """Return what the check that failed said, in the lines before its BUG; None for one without words."""
    event = crash.event
    if event is None or event.inferred:
        return None
    fortified = (event.bug_at or "").startswith(_FORTIFY)
    for line in reversed(crash.lines[max(0, event.position - _NEAR): event.position + 2]):
        match = next((found for pattern in _OVERFLOWS if (found := pattern.search(line))), None) if fortified else None
        if match:
            parts = match.groupdict()
            reading = parts["way"] in ("read", "overread")
            sizes = f" {parts['size']} bytes {'out of' if reading else 'into'} a buffer of {parts['room']}" \
                if parts.get("size") else f" more bytes than the buffer {'holds' if reading else 'has room for'}"
            return Told(line, "Buffer overflow",
                        f"{'read' if reading else 'wrote'}{sizes} with {parts['function']}()", f"{parts['function']}()")
        if _USERCOPY.search(line) and (event.bug_at or "").startswith("mm/usercopy.c"):
            exposed = "exposure" in line
            return Told(line, "Copy beyond an object", f"copied {'to' if exposed else 'from'} a process more than an "
                        f"object of the kernel's {'holds' if exposed else 'has room for'}",
                        "copy_to_user()" if exposed else "copy_from_user()")
    return None
