"""eBPF instructions as text: each kind once, as crash's help and the kernel's verifier write them."""

from __future__ import annotations

import struct

import pytest

from kdumpy.crash.bpfcode import instructions


def encoded(opcode: int, to: int = 0, by: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, to | by << 4, offset, value)


def text(code: bytes) -> list[str]:
    return [one.text for one in instructions(code, lambda number: f"helper#{number}", lambda value: f"{value:#x}")]


@pytest.mark.parametrize(("code", "expected"), [
    (encoded(0xbf, 6, 1), "(bf) r6 = r1"), (encoded(0x69, 7, 6, 192), "(69) r7 = *(u16 *)(r6 +192)"),
    (encoded(0xb4, 8), "(b4) (u32) r8 = (u32) 0"), (encoded(0x55, 7, 0, 14, 8), "(55) if r7 != 0x8 goto pc+14"),
    (encoded(0x07, 3, value=-4), "(07) r3 += -4"), (encoded(0x85, value=73760), "(85) call helper#73760"),
    (encoded(0x62, 2, offset=0, value=32), "(62) *(u32 *)(r2 +0) = 32"),
    (encoded(0x44, 8, value=2), "(44) (u32) r8 |= (u32) 2"), (encoded(0x95), "(95) exit"),
    (encoded(0x7b, 10, 1, -8), "(7b) *(u64 *)(r10 -8) = r1"), (encoded(0xdb, 0, 1), "(db) lock *(u64 *)(r0 +0) += r1"),
    (encoded(0xdb, 0, 1, 0, 0xa1), "(db) r1 = atomic64_fetch_xor((u64 *)(r0 +0), r1)"),
    (encoded(0xc3, 0, 2, 4, 0xe1), "(c3) r2 = atomic32_xchg((u32 *)(r0 +4), r2)"),
    (encoded(0xdb, 0, 2, 4, 0xf1), "(db) r0 = atomic64_cmpxchg((u64 *)(r0 +4), r0, r2)"),
    (encoded(0x05, offset=-3), "(05) goto pc-3"), (encoded(0x06, value=70000), "(06) goto pc+70000"),
    (encoded(0x87, 3), "(87) r3 = -r3"), (encoded(0xdc, 1, value=16), "(dc) r1 = be16 r1"),
    (encoded(0xd4, 1, value=32), "(d4) r1 = le32 r1"), (encoded(0x85, 0, 1, value=5), "(85) call pc+5"),
    (encoded(0x1e, 1, 2, 3), "(1e) if (u32) r1 == (u32) r2 goto pc+3"),
    (encoded(0x30, value=12), "(30) r0 = *(u8 *)skb[12]"),
    (encoded(0x48, 0, 3, value=-2), "(48) r0 = *(u16 *)skb[r3 -2]"),
    (encoded(0x91, 1, 2, 1), "(91) r1 = *(s8 *)(r2 +1)"),
    (encoded(0x3f, 1, 2, 1), "(3f) r1 s/= r2"),
    (encoded(0x65, 1, offset=2, value=-1), "(65) if r1 s> 0xffffffff goto pc+2"),
    (encoded(0xf7), "(f7) (no instruction)"), (encoded(0xf5), "(f5) (no instruction)"),
])
def test_each_kind_of_instruction(code: bytes, expected: str) -> None:
    assert text(code) == [expected]


def test_a_load_of_64_bits_takes_two_places_and_a_cut_program_ends() -> None:
    wide = struct.pack("<BBhiBBhi", 0x18, 1, 0, -0x7fff0000, 0, 0, 0, -1)
    code = encoded(0xbf, 6, 1) + wide + encoded(0x95)
    assert [(one.number, one.text) for one in instructions(code, str, hex)] == [
        (0, "(bf) r6 = r1"), (1, "(18) r1 = 0xffffffff80010000"), (3, "(95) exit")]
    assert len(text(code[:17])) == 2


def test_every_byte_is_taken_without_an_error() -> None:
    for opcode in range(256):
        assert len(text(encoded(opcode, 15, 15, -1, -1))) == 1
