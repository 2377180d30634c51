"""Whether memory is reserved for the capture kernel."""

from __future__ import annotations

from kdumpy.host import crashkernel
from kdumpy.host.checks.base import Answer, Facts, bad, ok
from kdumpy.host.kernellog import said_at_boot
from kdumpy.units import human_bytes

ESSENTIAL = True


def look(facts: Facts) -> Answer:
    """Ask the kernel; its command line says why it is not."""
    reserved, given = facts.state.reserved, crashkernel.given(facts.machine.cmdline)
    said = " ".join(f"crashkernel={text}" for text in given)
    if reserved:
        wanted = crashkernel.effective(facts.machine.cmdline, facts.machine.memory_bytes)
        note = f"; {human_bytes(wanted)} were asked for" if wanted > reserved else ""
        return ok(f"{human_bytes(reserved)} ({said or 'by the kernel itself'}){note}", reserved_bytes=reserved)
    if not given:
        return bad("no memory is reserved: crashkernel= is not on the running kernel's command line",
                   "run `kdumpy setup`, then reboot", reserved_bytes=0)
    memory = human_bytes(facts.machine.memory_bytes)
    if not crashkernel.effective(facts.machine.cmdline, facts.machine.memory_bytes):
        return bad(f"no memory is reserved: {said} gives a machine of {memory} nothing",
                   "set crashkernel in /etc/kdumpy.toml to a plain size, run `kdumpy setup`, reboot",
                   reserved_bytes=0)
    told = said_at_boot(facts.system, "crashkernel")
    return bad(f"no memory is reserved: the kernel found no room for {said}{f'; it says: {told}' if told else ''}",
               "set a smaller crashkernel in /etc/kdumpy.toml (on large machines `SIZE,high`), run `kdumpy setup`, "
               "reboot", reserved_bytes=0)
