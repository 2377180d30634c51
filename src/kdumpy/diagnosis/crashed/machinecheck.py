"""Machine checks: what the banks of the processor said, out of the log or out of memory, and in words.

A bank's status word says what kind of error it is, whether the processor could go on, and which of the other two
words (an address, further data) hold something.

Sources: Intel SDM volume 3B, "Machine-Check Architecture" (IA32_MCi_STATUS, compound error codes); AMD64 APM
volume 2, chapter 9; arch/x86/include/uapi/asm/mce.h (struct mce), arch/x86/kernel/cpu/mce/core.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.kernel import Kernel

_MOST_CPUS, _MOST_ERRORS = 4096, 64
_MARKER_BYTES = 32
"""mcgstatus, ip, tsc and time: the fields of struct mce that a CPU's first and its later copies share."""

VALID, OVERFLOW, UNCORRECTED, ENABLED, MISC, ADDRESS, CORRUPT = (1 << bit for bit in (63, 62, 61, 60, 59, 58, 57))
_RESTART, _EXACT = 1, 2
"""MCG_STATUS: RIPV, the program could go on at its address; EIPV, that address is what met the error."""
_DEFERRED, _POISON = 1 << 44, 1 << 43
"""AMD's: found, but not used yet; used, after it had been found."""
_AMD = 2

_TRANSACTION = ("an instruction", "data", "an unnamed kind of thing", "an unnamed kind of thing")
_LEVEL = ("level 0", "level 1", "level 2", "some level")
_REQUEST = ("", "read", "write", "data read", "data write", "instruction fetch", "prefetch", "eviction", "snoop")
_MEMORY_REQUEST = ("", "read", "write", "address or command", "scrubbing")
_BUS = ("asked for by this processor", "answered by this processor", "seen by this processor", "")
_BUS_TARGET = ("a memory access", "", "an I/O access", "another transaction")
_SIMPLE = {
    0x0000: "no kind of error is given", 0x0001: "an error without a class",
    0x0002: "parity of the microcode's ROM", 0x0003: "an error signalled from outside",
    0x0004: "the checker of the processor's functional redundancy", 0x0005: "parity inside the processor",
    0x0400: "the processor's internal timer: an instruction did not end", 0x0E0B: "I/O",
}


@dataclass(frozen=True)
class MachineError:
    """What one bank of one CPU reported."""

    cpu: int
    bank: int
    status: int
    """IA32_MCi_STATUS."""
    address: int | None = None
    """Physical address, where the bank has one."""
    mcg_status: int | None = None
    """IA32_MCG_STATUS at that time."""
    vendor: int | None = None
    """The kernel's number of the processor's maker (X86_VENDOR_*)."""
    source: str = "log"
    """`log` or `memory`."""

    @property
    def part(self) -> str:
        """The part of the machine that failed, in words; empty where the code names none."""
        code = self.status & 0xFFFF
        # The first that fits; bit 12 only says that corrections are counted no more.
        for mask, value, words in ((0xEF80, 0x0080, "the memory controller"), (0xEF00, 0x0100, "a cache"),
                                   (0xE800, 0x0800, "the bus or interconnect"), (0xEFFC, 0x000C, "a cache"),
                                   (0xEFF0, 0x0010, "the address translation (TLB)")):
            if code & mask == value:
                return words
        return ""

    @property
    def what(self) -> str:
        """What was going on there: `memory read, channel 1`."""
        code = self.status & 0xFFFF
        if code in _SIMPLE:
            return _SIMPLE[code]
        level, transaction, request = _LEVEL[code & 3], _TRANSACTION[code >> 2 & 3], _named(_REQUEST, code >> 4 & 0xF)
        match self.part:
            case "the memory controller":
                channel = f"channel {code & 0xF}" if code & 0xF != 0xF else ""
                return _joined(_named(_MEMORY_REQUEST, code >> 4 & 7), channel)
            case "a cache":
                return _joined(f"of {level}", f"{request} of {transaction}" if request and code & 0x100 else "")
            case "the bus or interconnect":
                return _joined(_BUS_TARGET[code >> 2 & 3], request, _BUS[code >> 9 & 3],
                               "it timed out" if code & 0x100 else "")
            case "the address translation (TLB)":
                return _joined(f"of {level}", f"for {transaction}")
        return f"error code {code:#06x}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The status word's flags, in words."""
        known = (
            (not self.status & UNCORRECTED and not self.status & _DEFERRED, "corrected by the hardware"),
            (self.status & UNCORRECTED, "not corrected"),
            (self.vendor == _AMD and self.status & _DEFERRED, "deferred: found before anybody used it"),
            (self.vendor == _AMD and self.status & _POISON, "data that was known to be bad were used"),
            (self.status & CORRUPT, "the processor's own state is not to be trusted"),
            (self.status & OVERFLOW, "a further error was lost"),
            (self.status & UNCORRECTED and not self.status & ENABLED, "reporting it was not enabled"),
            (self.mcg_status is not None and not self.mcg_status & _RESTART, "the program could not go on"),
            (self.mcg_status is not None and self.mcg_status & _EXACT, "the instruction shown is what met it"),
        )
        return tuple(words for holds, words in known if holds)

    @property
    def words(self) -> str:
        """All of it, for a person."""
        where = f"{self.part}: {self.what}" if self.part and self.what else self.part or self.what
        at = f"; physical address {self.address:#x}" if self.address is not None else ""
        return f"status {self.status:#018x}: {where} ({', '.join(self.flags)}){at}"

    @property
    def worst(self) -> tuple[bool, bool, bool]:
        """What to sort by, so that the error that ended the kernel comes last."""
        return bool(self.status & CORRUPT), bool(self.status & UNCORRECTED), bool(self.status & 0xFFFF)


def _named(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else ""


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


_HEAD = re.compile(r"\[Hardware Error\]: CPU (\d{1,9}): Machine Check(?: Exception)?: ([0-9a-f]{1,16}) Bank (\d{1,9}): "
                   r"([0-9a-f]{1,16})\b")
_ADDR = re.compile(r"\bADDR ([0-9a-f]{1,16})\b")
_MAKER = re.compile(r"\[Hardware Error\]: PROCESSOR (\d{1,9}):")
_MOST_BETWEEN = 6


def from_log(lines: Sequence[str]) -> tuple[MachineError, ...]:
    """Return the errors that the kernel printed (arch/x86/kernel/cpu/mce/core.c, __print_mce)."""
    found: list[MachineError] = []
    for number, line in enumerate(lines):
        head = _HEAD.search(line)
        if head is None or len(found) == _MOST_ERRORS:
            continue
        rest = lines[number + 1 : number + 1 + _MOST_BETWEEN]
        end = next((at for at, text in enumerate(rest) if _HEAD.search(text)), len(rest))
        address = next((match for text in rest[:end] if (match := _ADDR.search(text))), None)
        maker = next((match for text in rest[:end] if (match := _MAKER.search(text))), None)
        error = MachineError(int(head[1]), int(head[3]), int(head[4], 16), int(address[1], 16) if address else None,
                             int(head[2], 16), int(maker[1]) if maker else None)
        if error not in found:
            found.append(error)
    return tuple(found)


def from_memory(kernel: Kernel) -> tuple[MachineError, ...]:
    """Return the errors that the handler had on its stacks, or kept for each CPU; empty where there are none."""
    try:
        return tuple(islice(_from_memory(kernel), _MOST_ERRORS))
    except READ_ERRORS as error:
        kernel.problems["machine checks"] = str(error)
        return ()


def _from_memory(kernel: Kernel) -> Iterator[MachineError]:
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.percpu import per_cpu

    prog = kernel.prog
    seen = _seen(prog)
    if seen is None:
        return
    for cpu in islice(for_each_online_cpu(prog), _MOST_CPUS):
        try:
            kept = per_cpu(seen, cpu)
            kept = kept.m if kept.type_.type_name().endswith("mce_hw_err") else kept
            if not int(kept.mcgstatus):
                continue                    # this CPU was never in the handler
            records = [kept, *_copies(prog, kept, _stacks(kernel, cpu))]
        except READ_ERRORS as error:
            kernel.problems[f"machine checks of CPU {cpu}"] = str(error)
            continue
        yield from _whole(records)


def _seen(prog: drgn.Program) -> drgn.Object | None:
    """Each CPU's worst error: struct mce, and in struct mce_hw_err since 6.13 (750fd23926f1)."""
    for name in ("hw_errs_seen", "mces_seen"):
        try:
            return prog[name]
        except READ_ERRORS:
            continue
    return None


def _stacks(kernel: Kernel, cpu: int) -> Iterator[tuple[int, int]]:
    """Where the handler's stack can be: the CPU's own for machine checks, and that of its task."""
    from drgn.helpers.linux.percpu import per_cpu

    prog = kernel.prog
    try:
        own = per_cpu(prog["exception_stacks"], cpu).MCE_stack
        yield int(own.address_ or 0), drgn.sizeof(own)
    except READ_ERRORS:
        pass
    task = next((item.task for item in kernel.cpus if item.number == cpu), None)
    if task is not None:
        yield int(kernel.task_object(task.address).stack.value_()), int(prog["THREAD_SIZE"].value_())


def _copies(prog: drgn.Program, kept: drgn.Object, ranges: Iterable[tuple[int, int]]) -> Iterator[drgn.Object]:
    """Find the handler's own copies on its stack: the time and the place are the same to the nanosecond."""
    made = kept.type_
    offset, whole = drgn.offsetof(made, "mcgstatus"), drgn.sizeof(made)
    marker = kept.to_bytes_()[offset : offset + _MARKER_BYTES]
    for begin, size in ranges:
        try:
            data = prog.read(begin, size)
        except READ_ERRORS:
            continue
        at = data.find(marker)
        while at != -1:
            if at >= offset and at - offset + whole <= len(data):
                yield drgn.Object.from_bytes_(prog, made, data[at - offset:at - offset + whole])
            at = data.find(marker, at + 8)


def _whole(records: Iterable[drgn.Object]) -> Iterator[MachineError]:
    known: set[tuple[int, int]] = set()
    for record in records:
        status, bank, cpu = int(record.status), int(record.bank), int(record.extcpu)
        if not status & VALID or (bank, status) in known:
            continue
        known.add((bank, status))
        yield MachineError(cpu, bank, status, int(record.addr) if status & ADDRESS else None,
                           int(record.mcgstatus), int(record.cpuvendor), "memory")
