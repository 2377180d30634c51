"""Whether the capture image fits the kernel, the configuration and the way to the targets."""

from __future__ import annotations

from kdumpy.host import images
from kdumpy.host.checks.base import Answer, Facts, bad, ok, warn
from kdumpy.units import human_bytes, human_time

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Compare what it was made of with what is there now."""
    image = facts.image
    if image is not None:
        size = facts.system.path(image.path).stat().st_size
        if size != image.bytes:
            return bad(f"{image.path} is not whole: {human_bytes(size)} of {human_bytes(image.bytes)}",
                       "build it again: `kdumpy image`, then `kdumpy load`")
    stale = images.stale(facts.system, facts.settings, facts.release)
    if image is None:
        return warn(f"no image is known for {facts.release}: {stale or 'it is not known what it was made of'}",
                    "run `kdumpy load`, which builds it")
    sizes = {"image_bytes": image.bytes, "unpacked_bytes": image.unpacked, "builder": image.builder}
    if stale:
        return warn(f"the image is not what would be built now: {stale}", "run `kdumpy load`, which builds it anew",
                    **sizes)
    return ok(f"{human_bytes(image.bytes)}, {human_bytes(image.unpacked)} unpacked, by {image.builder}, of "
              f"{human_time(int(image.made_at))}", **sizes)
