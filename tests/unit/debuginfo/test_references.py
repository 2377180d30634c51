"""What AArch64 code refers to; the instructions' words were made by GNU as."""

from __future__ import annotations

import struct

import pytest

from kdumpy.debuginfo.references import targets

AT = 0xFFFF800008010000
PAGE = 0xFFFF800008012000

ADRP_X0 = 0xD0000000        # adrp x0, PAGE (two pages on)
ADRP_X19 = 0xD0000013
ADD_X1 = 0x91048001         # add x1, x0, #0x120
ADD_X1_FAR = 0x91400401     # add x1, x0, #0x1, lsl #12
LDR_X2 = 0xF9409002         # ldr x2, [x0, #0x120]
LDR_W2 = 0xB9412002         # ldr w2, [x0, #0x120]
STRB_W2 = 0x39048002        # strb w2, [x0, #0x120]
LDR_Q0 = 0x3DC04800         # ldr q0, [x0, #0x120]
LDP_X2 = 0xA9520C02         # ldp x2, x3, [x0, #0x120]
STP_BACK = 0xA93F0C02       # stp x2, x3, [x0, #-0x10]
LDAR_W2 = 0x88DFFC02        # ldar w2, [x0]
LDR_OWN = 0xF9409000        # ldr x0, [x0, #0x120]
LDR_X3_X1 = 0xF9400423      # ldr x3, [x1, #8]
LDR_X19 = 0xF9409262        # ldr x2, [x19, #0x120]
BL = 0x94000010             # bl somewhere
MOV_X0 = 0xAA1303E0         # mov x0, x19
LDR_INDEX = 0xF8616802      # ldr x2, [x0, x1]
NOP = 0xD503201F


def of(*words: int) -> set[int]:
    return targets(struct.pack(f"<{len(words)}I", *words), AT)


@pytest.mark.parametrize(("word", "offset"), [
    (ADD_X1, 0x120), (ADD_X1_FAR, 0x1000), (LDR_X2, 0x120), (LDR_W2, 0x120), (STRB_W2, 0x120), (LDR_Q0, 0x120),
    (LDP_X2, 0x120), (STP_BACK, -0x10), (LDAR_W2, 0)])
def test_a_page_and_an_offset_make_an_address(word: int, offset: int) -> None:
    assert of(ADRP_X0, NOP, word) == {PAGE + offset}


def test_a_page_behind_the_code_is_found_too() -> None:
    assert of(0xF0FFFFE0, ADD_X1) == {AT - 0x1000 + 0x120}      # adrp x0, one page back


def test_a_neighbour_is_reached_from_an_address_that_is_kept() -> None:
    assert of(ADRP_X0, ADD_X1, LDR_X3_X1) == {PAGE + 0x120, PAGE + 0x128}


def test_a_register_that_was_written_holds_no_address_any_more() -> None:
    assert of(ADRP_X0, LDR_OWN, LDR_X2) == {PAGE + 0x120}       # the second load goes where the first one led
    assert of(ADRP_X0, MOV_X0, LDR_X2) == set()


def test_a_call_leaves_what_belongs_to_the_caller() -> None:
    assert of(ADRP_X0, BL, LDR_X2) == set()
    assert of(ADRP_X19, BL, LDR_X19) == {PAGE + 0x120}


def test_what_a_register_adds_is_not_known() -> None:
    assert of(ADRP_X0, LDR_INDEX) == set()
    assert of(LDR_X2) == set()


def test_bytes_that_are_no_code_are_passed_over() -> None:
    assert of() == set()
    assert targets(b"\x00" * 4096 + b"\xff" * 4096 + b"\x01", AT) == set()
