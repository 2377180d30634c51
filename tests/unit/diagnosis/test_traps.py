"""Exceptions and their codes in words, against the manuals' bits."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis.crashed.traps import error_words, esr_words, trap_words


@pytest.mark.parametrize(("esr", "name", "words"), [
    (0x96000004, "data abort, in the kernel", "0x96000004: read, no page was there"),
    (0x9600004F, "data abort, in the kernel", "0x9600004f: write, the page was there but forbade it"),
    (0x86000004, "instruction abort, in the kernel", "0x86000004: instruction fetch, no page was there"),
    (0x96000021, "data abort, in the kernel", "0x96000021: read, the address was not aligned"),
    (0xF2000800, "BRK instruction", "0xf2000800: number 0x800"),
    (0x02000000, "an instruction without a meaning", "0x02000000"),
    (0xBE000000, "SError interrupt", "0xbe000000"),
])
def test_arms_syndrome(esr: int, name: str, words: str) -> None:
    told, code = esr_words(esr)
    assert told.startswith(name + " (EC ")
    assert code == words


@pytest.mark.parametrize(("trap", "code", "words"), [
    (14, 0x0000, "read by the kernel, no page was there"),
    (14, 0x0003, "write by the kernel, the page was there but forbade it"),
    (14, 0x0011, "instruction fetch by the kernel, the page was there but forbade it"),
    (14, 0x0009, "read by the kernel, the page was there but forbade it, a reserved bit was set in a page table"),
    (13, 0x0000, "no segment was at fault"),
    (13, 0x0012, "entry 2 of the IDT"),
])
def test_x86s_error_code(trap: int, code: int, words: str) -> None:
    assert words in error_words(trap, code)


def test_an_exception_by_number() -> None:
    assert trap_words(14) == "page fault (#PF, 14)"
    assert trap_words(99) == "an exception that is not known (99)"
