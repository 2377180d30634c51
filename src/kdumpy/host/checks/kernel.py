"""Whether the kernels were built with what a dump needs, and whether this is a machine with a kernel of its own."""

from __future__ import annotations

from kdumpy.host import crashstate, kernelconfig
from kdumpy.host.checks.base import Answer, Facts, bad, ok, unknown, warn
from kdumpy.host.kernelconfig import Need

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Look at both kernels' configurations."""
    if facts.machine.container:
        return bad(f"this is a container ({facts.machine.container}): its kernel is the host's",
                   "arm the host it runs on")
    if not facts.state.supported:
        return bad("the running kernel was built without crash dumps (CONFIG_CRASH_DUMP)",
                   "boot a kernel that has it: all large distributions' kernels do")
    running = crashstate.release(facts.system)
    architecture = facts.machine.architecture
    lacking: list[Need] = []
    for release, capture in ((running, False), (facts.release, True)):
        config = kernelconfig.config_of(facts.system, release)
        if config is None:
            return unknown(f"it supports crash dumps; nothing tells how {release} was configured otherwise",
                           f"the distribution's package puts it at /boot/config-{release}")
        lacking += kernelconfig.missing(config, architecture, capture=capture)
    needed = [need for need in lacking if need.required]
    if needed:
        return bad(f"the kernel lacks {', '.join(f'{need.name} ({need.meaning})' for need in needed)}",
                   "boot a kernel that has it: all large distributions' kernels do")
    worth = [need for need in lacking if need.name in ("CONFIG_DEBUG_INFO_BTF", "CONFIG_KALLSYMS_ALL")]
    if worth:
        return warn(f"a report of this kernel's dump needs debug symbols: it lacks {worth[0].name} "
                    f"({worth[0].meaning})", "keep its debug symbols at hand (`kdumpy report --vmlinux`)")
    same = "the running kernel" if running == facts.release else f"{running}, captured by {facts.release}"
    return ok(f"{same}{f' {running}' if running == facts.release else ''} has all that a dump needs",
              running=running, capture=facts.release)
