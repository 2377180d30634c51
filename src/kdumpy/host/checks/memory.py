"""Whether the reserved memory is enough for the image and the capture: as rehearsed, else as estimated."""

from __future__ import annotations

from kdumpy.host import rehearsed
from kdumpy.host.checks.base import Answer, Facts, bad, ok, unknown, warn
from kdumpy.units import human_bytes

ESSENTIAL = False

KERNEL = 40 << 20
"""Bytes that the capture kernel itself takes of a small reservation, seen on Debian's 6.1: 192 MiB leave 152."""

CAPTURE = 80 << 20
"""Bytes of the capture program at most, and what it needs of the page cache beside."""

_GROW = "set a larger crashkernel in /etc/kdumpy.toml (or `auto`), run `kdumpy setup`, reboot"


def look(facts: Facts) -> Answer:
    """Compare the need with the reservation."""
    reserved = facts.state.reserved
    if not reserved:
        return unknown("there is no reserved memory", "run `kdumpy setup`, then reboot")
    measured = rehearsed.need(facts.system, facts.release)
    if measured is not None:
        if measured > reserved:
            return bad(f"{human_bytes(reserved)} are reserved, and a rehearsal needed {human_bytes(measured)}", _GROW,
                       needed_bytes=measured, rehearsed=True)
        return ok(f"{human_bytes(reserved)} are reserved; a rehearsal found {human_bytes(measured)} to be safe",
                  needed_bytes=measured, rehearsed=True)
    if facts.image is None:
        return unknown("without an image its need is not known", "run `kdumpy load`, which builds it")
    image = facts.image
    # While it is unpacked it is there twice; and a kernel gives its files half of the memory at most.
    needed = KERNEL + max(image.bytes + image.unpacked, image.unpacked + CAPTURE)
    if 2 * image.unpacked > reserved - KERNEL:
        return bad(f"{human_bytes(reserved)} are reserved, and the image unpacks to {human_bytes(image.unpacked)}: "
                   f"more than the half that a kernel gives to it", _GROW, needed_bytes=needed, rehearsed=False)
    if needed > reserved:
        return warn(f"{human_bytes(reserved)} are reserved, and about {human_bytes(needed)} are needed",
                    f"`kdumpy rehearse` measures it; {_GROW}", needed_bytes=needed, rehearsed=False)
    return ok(f"{human_bytes(reserved)} are reserved, about {human_bytes(needed)} are needed; `kdumpy rehearse` "
              f"measures it", needed_bytes=needed, rehearsed=False)
