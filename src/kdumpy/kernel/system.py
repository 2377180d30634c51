"""The machine that crashed: names, times, sizes, taint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import drgn
from drgn.helpers.linux.mm import totalram_pages
from drgn.helpers.linux.sched import loadavg
from drgn.helpers.linux.timekeeping import ktime_get_boottime_seconds, ktime_get_real_seconds

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.base import Dump
from kdumpy.kernel.online import online_cpus
from kdumpy.kernel.values import System

T = TypeVar("T")

# Source: Documentation/admin-guide/tainted-kernels.rst, include/linux/panic.h; bit -> (letter, words).
TAINTS = {
    0: ("P", "proprietary module was loaded"),
    1: ("F", "module was force loaded"),
    2: ("S", "kernel running on an out of specification system"),
    3: ("R", "module was force unloaded"),
    4: ("M", "processor reported a machine check exception"),
    5: ("B", "bad page referenced or some unexpected page flags"),
    6: ("U", "taint requested by userspace application"),
    7: ("D", "kernel died recently: there was an oops or BUG before"),
    8: ("A", "ACPI table overridden by user"),
    9: ("W", "kernel issued warning"),
    10: ("C", "staging driver was loaded"),
    11: ("I", "workaround for bug in platform firmware applied"),
    12: ("O", "externally-built (out-of-tree) module was loaded"),
    13: ("E", "unsigned module was loaded"),
    14: ("L", "soft lockup occurred"),
    15: ("K", "kernel has been live patched"),
    16: ("X", "auxiliary taint, defined for and used by distributions"),
    17: ("T", "kernel was built with the struct randomization plugin"),
    18: ("N", "an in-kernel test has been run"),
    19: ("J", "userspace used a mutating debug operation in fwctl"),
}


def taint_words(mask: int) -> tuple[str, ...]:
    """Return the set taint flags in words, each with its letter."""
    found = [f"{letter}: {words}" for bit, (letter, words) in TAINTS.items() if mask >> bit & 1]
    found += [f"?: bit {bit}, which upstream kernels do not have" for bit in range(64)
              if mask >> bit & 1 and bit not in TAINTS]
    return tuple(found)


def taint_letters(mask: int) -> str:
    """Return the letters of the set taint flags, `?` for one that upstream kernels do not have."""
    return "".join(TAINTS.get(bit, ("?", ""))[0] for bit in range(64) if mask >> bit & 1)


def read_system(prog: drgn.Program, dump: Dump, problems: dict[str, str]) -> System:
    """Read what can be read; the rest is None, with the reason in `problems`.

    Names come from the dump's header where the kernel's own cannot be read.
    """
    header = dump.utsname

    def get(what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except READ_ERRORS as error:
            problems[what] = str(error)
            return None

    def text(read: Callable[[], bytes]) -> Callable[[], str]:
        return lambda: read().decode("utf-8", "backslashreplace")

    release = prog["UTS_RELEASE"].string_().decode("ascii", "replace")
    uts = "init_uts_ns"
    uptime = get("uptime", lambda: float(ktime_get_boottime_seconds(prog).value_()))
    real = get("time", lambda: int(ktime_get_real_seconds(prog).value_()))
    when = dump.crash_time or real
    memory = get("memory", lambda: totalram_pages(prog) * prog["PAGE_SIZE"].value_())
    taint = get("taint", lambda: int(prog["tainted_mask"].value_()))
    version = get("version", text(lambda: prog[uts].name.version.string_()))
    hostname = get("hostname", text(lambda: prog[uts].name.nodename.string_()))
    return System(
        release=release,
        version=version or (header.version if header else None),
        machine=dump.machine.value,
        hostname=hostname or (header.nodename if header else None),
        cpus=get("cpus", lambda: sum(1 for _ in online_cpus(prog))),
        memory_bytes=memory,
        uptime_s=uptime,
        boot_time=int(when - uptime) if when is not None and uptime is not None else None,
        panic_time=when,
        cmdline=get("cmdline", text(lambda: prog["saved_command_line"].string_())),
        taint=taint,
        taints=taint_words(taint or 0),
        load=get("load", lambda: loadavg(prog)),
    )
