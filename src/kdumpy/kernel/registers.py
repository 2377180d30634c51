"""The panic CPU's registers, by symbols alone: for a dump whose types are missing.

Source: kernel/kexec_core.c, crash_save_cpu(): each CPU writes an NT_PRSTATUS note into its own
`crash_notes`. The notes of the file are in the same order only while every CPU answered the
crash's NMI, so the memory itself is asked.
"""

from __future__ import annotations

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.notes import Machine, parse_notes, parse_prstatus

_MOST_CPUS = 8192
_NOTE_BYTES = 1024
"""CRASH_CORE_NOTE_BYTES is less than this on both machines."""
_MACHINES = {drgn.Architecture.X86_64: Machine.X86_64, drgn.Architecture.AARCH64: Machine.AARCH64}


def crashing_cpu(prog: drgn.Program) -> int | None:
    """Return the CPU that panicked; None before a panic, or where no symbol names it.

    Source: arch/x86/kernel/reboot.c, crashing_cpu, -1 until nmi_shootdown_cpus(); kernel/panic.c,
    panic_cpu, PANIC_CPU_INVALID (-1) until panic().
    """
    for name in ("crashing_cpu", "panic_cpu"):
        try:
            cpu: int = prog.read_u32(prog.symbol(name).address)
        except READ_ERRORS:
            continue
        if cpu < _MOST_CPUS:
            return cpu
    return None


def saved_registers(prog: drgn.Program) -> dict[str, int] | None:
    """Return the registers that the panic CPU saved, named as in the notes; None where there are none."""
    cpu = crashing_cpu(prog)
    machine = _MACHINES.get(prog.platform.arch) if prog.platform else None
    if cpu is None or machine is None:
        return None
    try:
        notes = prog.read_u64(prog.symbol("crash_notes").address)
        offset = prog.read_u64(prog.symbol("__per_cpu_offset").address + 8 * cpu)
        data = prog.read((notes + offset) % (1 << 64), _NOTE_BYTES)
    except READ_ERRORS:
        return None
    found = parse_prstatus(tuple(parse_notes(data)), machine)
    return found[0].registers if found else None
