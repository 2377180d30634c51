"""The processor's exceptions and their error codes, in words.

Sources: Intel SDM volume 3A, chapter 6; arch/x86/include/asm/trapnr.h, trap_pf.h. Arm ARM, ESR_EL1;
arch/arm64/include/asm/esr.h, arch/arm64/mm/fault.c.
"""

from __future__ import annotations

from kdumpy.diagnosis.oops import Kind

TRAPS = {
    0: ("#DE", "divide error"), 1: ("#DB", "debug"), 2: ("NMI", "non-maskable interrupt"), 3: ("#BP", "breakpoint"),
    4: ("#OF", "overflow"), 5: ("#BR", "bound range exceeded"), 6: ("#UD", "invalid opcode"),
    7: ("#NM", "device not available"), 8: ("#DF", "double fault"), 10: ("#TS", "invalid TSS"),
    11: ("#NP", "segment not present"), 12: ("#SS", "stack segment fault"), 13: ("#GP", "general protection fault"),
    14: ("#PF", "page fault"), 16: ("#MF", "x87 floating-point error"), 17: ("#AC", "alignment check"),
    18: ("#MC", "machine check"), 19: ("#XM", "SIMD floating-point exception"), 20: ("#VE", "virtualization exception"),
    21: ("#CP", "control protection exception"), 29: ("#VC", "VMM communication exception"),
}
"""x86 exception number -> (mnemonic, name)."""

INVALID_OPCODE, PROTECTION, PAGE_FAULT = 6, 13, 14
_BY_KIND = {
    Kind.NULL: 14, Kind.PAGE_FAULT: 14, Kind.PROTECTION: 13, Kind.DIVIDE: 0, Kind.OPCODE: 6, Kind.BUG: 6,
    Kind.STACK_GUARD: 8, Kind.MACHINE_CHECK: 18,
}
_BITS = ((3, "a reserved bit was set in a page table"), (5, "a protection key forbade it"),
         (6, "it was a shadow stack access"), (15, "SGX refused it"))


def trap_of(kinds: frozenset[Kind]) -> int | None:
    """Return the exception that an event of these kinds is."""
    return next((number for kind, number in _BY_KIND.items() if kind in kinds), None)


def trap_words(number: int) -> str:
    """Return an exception in words: `page fault (#PF, 14)`."""
    mark, name = TRAPS.get(number, ("", "an exception that is not known"))
    return f"{name} ({mark + ', ' if mark else ''}{number})"


def error_words(trap: int, code: int) -> str:
    """Return an error code in words."""
    if trap == PAGE_FAULT:
        access = "instruction fetch" if code & 0x10 else "write" if code & 2 else "read"
        parts = [f"{access} by {'user code' if code & 4 else 'the kernel'}",
                 "the page was there but forbade it" if code & 1 else "no page was there"]
        parts += [words for bit, words in _BITS if code >> bit & 1]
        return f"{code:#06x}: " + ", ".join(parts)
    if trap == PROTECTION and code == 0:
        return "0x0000: no segment was at fault, so it was an address that is none, or a privileged instruction"
    if trap in (10, 11, 12, 13):
        table = {0: "GDT", 1: "IDT", 2: "LDT", 3: "IDT"}[code >> 1 & 3]
        outside = ", raised by an event from outside" if code & 1 else ""
        return f"{code:#06x}: entry {code >> 3} of the {table}{outside}"
    return f"{code:#06x}"


_ESR_CLASSES = {
    0x00: "an instruction without a meaning", 0x0E: "an illegal execution state",
    0x20: "instruction abort, from user code",
    0x21: "instruction abort, in the kernel", 0x22: "misaligned program counter", 0x24: "data abort, from user code",
    0x25: "data abort, in the kernel", 0x26: "misaligned stack pointer", 0x2F: "SError interrupt",
    0x3C: "BRK instruction",
}
_ESR_FAULTS = ((0x3C, 0x00, "the address has too many bits"), (0x3C, 0x04, "no page was there"),
               (0x3C, 0x08, "the page was never used, and may not be yet"),
               (0x3C, 0x0C, "the page was there but forbade it"), (0x3F, 0x10, "the memory did not answer"),
               (0x3F, 0x21, "the address was not aligned"))
_ABORTS = frozenset({0x20, 0x21, 0x24, 0x25})


def esr_words(esr: int) -> tuple[str, str]:
    """Return an exception of Arm's and its syndrome, in words."""
    kind = esr >> 26 & 0x3F
    name = _ESR_CLASSES.get(kind, "an exception that is not known")
    parts = []
    if kind in _ABORTS:
        status = esr & 0x3F
        access = "instruction fetch" if kind < 0x24 else "write" if esr & 0x140 == 0x40 else "read"
        parts = [access, *(words for mask, value, words in _ESR_FAULTS if status & mask == value)]
    elif kind == 0x3C:
        parts = [f"number {esr & 0xFFFF:#x}"]
    return f"{name} (EC {kind:#04x})", f"{esr:#010x}" + (": " + ", ".join(parts) if parts else "")
