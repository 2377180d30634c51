"""Whether memory will be reserved at the next boot, too."""

from __future__ import annotations

from kdumpy.host import bootloaders, crashkernel, need
from kdumpy.host.checks.base import Answer, Facts, ok, unknown, warn
from kdumpy.units import human_bytes

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Read what the boot loader will give to the kernel."""
    loader = bootloaders.detect(facts.system)
    if loader is None:
        return unknown("no boot loader that is known was found",
                       "see to it that crashkernel= is on the kernel's command line at each boot")
    text = loader.next_cmdline(facts.system)
    if text is None:
        return unknown(f"the files of {loader.name} do not tell what the next boot gets",
                       "look for crashkernel= after the next boot")
    memory = facts.machine.memory_bytes
    size = crashkernel.effective(text, memory)
    given = " ".join(f"crashkernel={value}" for value in crashkernel.given(text))
    if not size:
        what = f"{given} gives this machine nothing" if given else "there is no crashkernel="
        return warn(f"the next boot reserves nothing: in the files of {loader.name} {what}", "run `kdumpy setup`",
                    next_bytes=0, boot_loader=loader.name)
    wanted = need.look(facts.system, facts.release, facts.image)
    if wanted is not None and size < wanted.least:
        return warn(f"the next boot reserves {human_bytes(size)} ({given} by {loader.name}), and {wanted.told} "
                    f"{human_bytes(wanted.bytes)}: the capture kernel would not start",
                    "set a larger crashkernel in /etc/kdumpy.toml (or `auto`), and run `kdumpy setup`",
                    next_bytes=size, boot_loader=loader.name)
    now = facts.state.reserved
    note = f", now {human_bytes(now)}" if now and now != size else ""
    return ok(f"{given} by {loader.name}: {human_bytes(size)}{note}", next_bytes=size, boot_loader=loader.name)
