"""What the kernel's own checks of copies say before their BUG: the BUG's line is that of the check.

Sources: lib/string_helpers.c (CONFIG_FORTIFY_SOURCE), mm/usercopy.c (CONFIG_HARDENED_USERCOPY).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

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
