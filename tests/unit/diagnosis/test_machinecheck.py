"""The words of a bank's status, against the tables of the manuals, and the kernel's own lines."""

from __future__ import annotations

import struct

import drgn
import pytest

from kdumpy.diagnosis.crashed.machinecheck import MachineError, _copies, from_log

# As a kernel of 6.1 printed it, in a guest whose memory controller QEMU made to fail.
LINES = """\
mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 4: be00000000010091
mce: [Hardware Error]: RIP !INEXACT! 10:<ffffffff9ec592eb> {native_safe_halt+0xb/0x10}
mce: [Hardware Error]: TSC 1455c112f1 ADDR 1234a000 MISC 8c
mce: [Hardware Error]: PROCESSOR 2:60fb1 TIME 1796003239 SOCKET 0 APIC 1 microcode 1000065
mce: [Hardware Error]: CPU 0: Machine Check Exception: 4 Bank 1: b600000000000151
mce: [Hardware Error]: TSC 1455c112f1
mce: [Hardware Error]: PROCESSOR 0:60fb1 TIME 1796003239 SOCKET 0 APIC 0 microcode 1000065
mce: [Hardware Error]: Machine check: Processor Context Corrupt
Kernel panic - not syncing: Fatal local machine check""".splitlines()


def test_the_kernels_lines_are_read() -> None:
    memory, cache = from_log(LINES)
    assert (memory.cpu, memory.bank, memory.status, memory.address, memory.mcg_status, memory.vendor) == (
        1, 4, 0xBE00000000010091, 0x1234A000, 5, 2)
    assert (memory.part, memory.what) == ("the memory controller", "read, channel 1")
    assert (cache.cpu, cache.bank, cache.address, cache.vendor) == (0, 1, None, 0)
    assert "the program could not go on" in cache.flags
    assert "the program could not go on" not in memory.flags
    assert memory.worst == cache.worst
    assert "physical address 0x1234a000" in memory.words


def test_lines_without_end_are_bounded() -> None:
    many = [line.replace("Bank 4", f"Bank {number}") for number in range(500) for line in LINES[:2]]
    assert len(from_log(many)) == 64
    assert from_log(["mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: "]) == ()
    assert from_log([LINES[0].replace("CPU 1", "CPU " + "9" * 5000)]) == ()
    assert from_log([LINES[0], LINES[2].replace("ADDR ", "ADDR " + "f" * 5000)])[0].address is None


def test_a_copy_that_the_stack_cuts_off_is_none() -> None:
    """The handler's stack is mapped between pages that are not: what would go on there is no copy."""
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    word = prog.int_type("unsigned long", 8, False)
    names = ("status", "mcgstatus", "ip", "tsc", "time", "addr")
    made = prog.struct_type("mce", 48, [drgn.TypeMember(word, name, 64 * at) for at, name in enumerate(names)])
    error = struct.pack("<6Q", 1 << 63, 5, 0xFFFFFFFF81000000, 77, 88, 0x1234000)
    stack = (bytes(256) + error).ljust(4096 - 40, b"\0") + error[:40]
    prog.add_memory_segment(0x10000, 4096, lambda _, size, at, physical: stack[at:at + size])
    kept = drgn.Object.from_bytes_(prog, made, error)
    assert [int(copy.addr) for copy in _copies(prog, kept, [(0x10000, 4096), (0x20000, 4096)])] == [0x1234000]


# IA32_MCi_STATUS bits 15:0 → what the Intel SDM's tables of compound and simple error codes say of them.
@pytest.mark.parametrize(("code", "part", "what"), [
    (0x0000, "", "no kind of error is given"),
    (0x0005, "", "parity inside the processor"),
    (0x0400, "", "the processor's internal timer: an instruction did not end"),
    (0x009F, "the memory controller", "read"),
    (0x00C0, "the memory controller", "scrubbing, channel 0"),
    (0x1136, "a cache", "of level 2, data read of data"),
    (0x0151, "a cache", "of level 1, instruction fetch of an instruction"),
    (0x0011, "the address translation (TLB)", "of level 1, for an instruction"),
    (0x000E, "a cache", "of level 2"),
    (0x0E0B, "the bus or interconnect", "I/O"),
    (0x0F0F, "the bus or interconnect", "another transaction, it timed out"),
    (0x0813, "the bus or interconnect", "a memory access, read, asked for by this processor"),
    (0x0042, "", "error code 0x0042"),
])
def test_an_error_code_is_told_in_words(code: int, part: str, what: str) -> None:
    error = MachineError(0, 0, 1 << 63 | code)
    assert (error.part, error.what) == (part, what)


@pytest.mark.parametrize(("status", "vendor", "words"), [
    (0x9400000000000000, 0, "corrected by the hardware"),
    (0xBC00100000010091, 2, "deferred: found before anybody used it"),
    (0xBE00080000010091, 2, "data that was known to be bad were used"),
    (0xFE00000000010091, 0, "a further error was lost"),
    (0xBE00000000010091, 0, "the processor's own state is not to be trusted"),
])
def test_a_flag_is_told_in_words(status: int, vendor: int, words: str) -> None:
    assert words in MachineError(0, 0, status, vendor=vendor).flags
    if vendor == 2:
        assert words not in MachineError(0, 0, status, vendor=0).flags
