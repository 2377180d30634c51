"""`mach`: what the machine is, its memory map, its CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.exceptionframes import cpu_stacks
from kdumpy.crash.layout import Layout
from kdumpy.crash.machine import memory_present, memory_size, processor_speed, word
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump

_IMAGE_MAP = 0xffffffff80000000
"""__START_KERNEL_map (x86-64)."""
_MOST_ENTRIES = 4096
_STACKS = {"DF": "DOUBLEFAULT"}
"""What crash calls the exceptions' stacks."""


@dataclass(frozen=True)
class MachineRow:
    """A fact about the machine, an extent of its memory, or a CPU."""

    name: str
    value: str
    start: int | None
    """With -m: the extent's first physical address."""
    end: int | None
    """One past its last."""


class Mach(Command[MachineRow]):
    """Show what the machine is: CPUs, clock, page size, where the kernel keeps what; or its memory map (-m).

    Example:
        crash> mach -m
              PHYSICAL ADDRESS RANGE         TYPE
        0000000000001000 - 000000000009fc00  E820_RAM
        0000000000100000 - 0000000027fda000  E820_RAM
    """

    names = ("mach",)
    example = "mach"
    row = MachineRow
    args = (
        Arg("-m", dest="memory", action="store_true", help="the firmware's map of physical memory (x86-64)"),
        Arg("-c", dest="cpus", action="store_true", help="each CPU's struct cpuinfo_x86"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
        Arg("-o", dest="console", action="store_true", help="the OPAL console's log; of POWER machines only"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[MachineRow]:
        """Yield the facts."""
        if options.console:
            raise NotInDump("there is no OPAL console", why="only POWER machines have one", mend="'log' shows the "
                            "kernel's log")
        if options.memory:
            return _memory_map(session)
        return _cpus(session, options) if options.cpus else _facts(session)

    def render(self, rows: Iterable[MachineRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the answer out as crash does."""
        if options.memory:
            yield "      PHYSICAL ADDRESS RANGE         TYPE"
            for row in rows:
                yield f"{row.start:016x} - {row.end:016x}  {row.value}"
            return
        for row in rows:
            yield f"{row.name}:\n{row.value}" if options.cpus else f"{row.name:>22}: {row.value}".rstrip()


def _facts(session: Session) -> Iterator[MachineRow]:
    prog, system = session.prog, session.kernel.system
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        ("MACHINE TYPE", lambda: system.machine),
        ("MEMORY SIZE", lambda: memory_size(memory_present(session))),
        ("CPUS", lambda: system.cpus),
        ("HYPERVISOR", lambda: _hypervisor(session)),
        ("PROCESSOR SPEED", lambda: processor_speed(session)),
        ("HZ", lambda: _ticks(session)),
        ("PAGE SIZE", lambda: int(prog["PAGE_SIZE"])),
        ("KERNEL VIRTUAL BASE", lambda: _address(_arm64_bases(session, "PAGE_OFFSET") or session.arrays.direct)),
        ("KERNEL VMALLOC BASE", lambda: _address(_arm64_bases(session, "VMALLOC_START")
                                                 or word(session, "vmalloc_base"))),
        ("KERNEL VMEMMAP BASE", lambda: _address(_arm64_bases(session, "VMEMMAP_START") or int(prog["vmemmap"]))),
        ("KERNEL START MAP", lambda: _address(_IMAGE_MAP) if system.machine == "x86_64" else None),
        ("KERNEL MODULES BASE", lambda: _address(_modules_base(session))),
        ("KERNEL STACK SIZE", lambda: int(prog["THREAD_SIZE"])),
    )
    for name, read in ways:
        try:
            value = read()
        except READ_ERRORS:
            continue            # what the dump does not tell is left out
        if value not in (None, ""):
            yield MachineRow(name, str(value), None, None)
    try:
        stacks = list(cpu_stacks(session, session.cpus("a")))
    except READ_ERRORS:
        return
    for kind in dict.fromkeys(stack.name for stack in stacks):
        own = [stack for stack in stacks if stack.name == kind]
        name = _STACKS.get(kind, kind)
        yield MachineRow(f"{name} STACK SIZE", str(own[0].size), None, None)
        yield MachineRow(f"{name} STACKS", "", None, None)
        for stack in own:
            yield MachineRow(f"CPU {stack.cpu}", _address(stack.base) or "", stack.base, stack.base + stack.size)


def _address(value: int | None) -> str | None:
    return None if value is None else f"{value:016x}"


def _ticks(session: Session) -> int:
    """Return HZ, by what a tick lasts (ns, rounded): HZ itself is no variable.

    Source: kernel/time/ntp.c, tick_nsec; kernel/time/jiffies.c, clocksource_jiffies, for 7.2 has no tick_nsec.
    """
    if session.prog.symbols("tick_nsec"):
        return round(1e9 / word(session, "tick_nsec"))
    clock = drgn.Object(session.prog, "struct clocksource", address=session.prog.symbol("clocksource_jiffies").address)
    lasts: int = clock.mult.value_() >> clock.shift.value_()
    return round(1e9 / lasts)


def _modules_base(session: Session) -> int | None:
    """Source: arch/x86/include/asm/pgtable_64_types.h, MODULES_VADDR: behind KERNEL_IMAGE_SIZE."""
    if session.kernel.system.machine != "x86_64":
        return _arm64_bases(session, "MODULES_VADDR")
    return _IMAGE_MAP + int(session.kernel.dump.vmcoreinfo.number("KERNEL_IMAGE_SIZE", 1 << 30))


def _arm64_bases(session: Session, name: str) -> int | None:
    """Return where an area of the kernel's addresses begins; None on other machines, where it is a variable or fixed.

    Source: arch/arm64/kernel/vmcore_info.c; arch/arm64/include/asm/memory.h, PAGE_OFFSET.
    """
    info = session.kernel.dump.vmcoreinfo
    if session.kernel.system.machine != "aarch64":
        return None
    if name == "PAGE_OFFSET":
        return (1 << 64) - (1 << info.number("VA_BITS", 48))
    return info.number(name, 0) % (1 << 64) or None


def _hypervisor(session: Session) -> str:
    """Source: arch/x86/kernel/cpu/hypervisor.c, x86_hyper_type."""
    kind = session.prog["x86_hyper_type"]
    name = next((name for name, value in kind.type_.enumerators or () if value == kind.value_()), "")
    return "" if name in ("", "X86_HYPER_NATIVE") else name.removeprefix("X86_HYPER_")


def _memory_map(session: Session) -> Iterator[MachineRow]:
    """Source: arch/x86/include/asm/e820/types.h."""
    if session.kernel.system.machine != "x86_64":
        raise NotInDump("only x86 keeps the firmware's map of memory", mend="'dev -i' lists it as resources")
    table = drgn.Object(session.prog, "struct e820_table *", value=word(session, "e820_table"))
    count = table.nr_entries.value_()
    if count > _MOST_ENTRIES:
        raise DamagedDump(f"a memory map of {count} entries is not believed", where=f"{table.value_():016x}")
    # BTF writes the enumerators as the source does, E820_TYPE_RAM; crash E820_RAM.
    names = {value: name.replace("_TYPE", "") for name, value in session.prog.type("enum e820_type").enumerators or ()}
    for number in range(count):
        entry = table.entries[number]
        start, size = entry.addr.value_(), entry.size.value_()
        kind = entry.type.value_()
        yield MachineRow(str(number), names.get(kind, f"type {kind}"), start, start + size)


def _cpus(session: Session, options: Options) -> Iterator[MachineRow]:
    if session.kernel.system.machine == "aarch64":
        yield from _arm64_cpus(session, options)
        return
    try:
        variable = session.prog["cpu_info"]
    except LookupError:
        variable = drgn.Object(session.prog, "struct cpuinfo_x86", address=session.prog.symbol("cpu_info").address)
    layout = Layout(session, options.radix)
    for cpu in session.cpus("a"):
        value = per_cpu(variable, cpu)
        yield MachineRow(f"CPU {cpu}", f"struct cpuinfo_x86 {layout.value(value)}", None, None)


def _arm64_cpus(session: Session, options: Options) -> Iterator[MachineRow]:
    """Source: arch/arm64/kernel/cpuinfo.c."""
    variable = drgn.Object(session.prog, "struct cpuinfo_arm64", address=session.prog.symbol("cpu_data").address)
    layout = Layout(session, options.radix)
    for cpu in session.cpus("a"):
        value = per_cpu(variable, cpu)
        yield MachineRow(f"CPU {cpu}", f"struct cpuinfo_arm64 {layout.value(value)}", None, None)


COMMAND = Mach()
