"""Whether the reserved memory is enough for the image and the capture: as rehearsed, else as estimated."""

from __future__ import annotations

from kdumpy.host import need
from kdumpy.host.checks.base import Answer, Facts, bad, ok, unknown, warn
from kdumpy.units import human_bytes

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Compare the need with the reservation."""
    reserved = facts.state.reserved
    if not reserved:
        return unknown("there is no reserved memory", "run `kdumpy setup`, then reboot")
    wanted = need.look(facts.system, facts.release, facts.image)
    if wanted is None:
        return unknown("without an image its need is not known", "run `kdumpy load`, which builds it")
    values = {"needed_bytes": wanted.bytes, "rehearsed": wanted.measured}
    there = f"{human_bytes(reserved)} are reserved"
    if wanted.measured:
        if wanted.bytes > reserved:
            return bad(f"{there}, and a rehearsal needed {human_bytes(wanted.bytes)}", need.GROW, **values)
        return ok(f"{there}; a rehearsal found {human_bytes(wanted.bytes)} to be safe", **values)
    if wanted.least > reserved and facts.image is not None and facts.image.unlock > facts.image.unpacked:
        return bad(f"{there}, and opening the encrypted target takes {human_bytes(facts.image.unlock)} alone: about "
                   f"{human_bytes(wanted.bytes)} are needed", f"give it a key that takes none: cryptsetup luksAddKey "
                   f"--pbkdf pbkdf2 DEVICE KEYFILE (docs/capture-image.md); or {need.GROW}", **values)
    if wanted.least > reserved and facts.image is not None:
        return bad(f"{there}: the kernel takes about {human_bytes(need.KERNEL)} of it and gives half of the rest to "
                   f"the image, which unpacks to {human_bytes(facts.image.unpacked)}", need.GROW, **values)
    if wanted.bytes > reserved:
        return warn(f"{there}, and about {human_bytes(wanted.bytes)} are needed", f"`kdumpy rehearse` measures it; "
                    f"{need.GROW}", **values)
    return ok(f"{there}, about {human_bytes(wanted.bytes)} are needed; `kdumpy rehearse` measures it", **values)
