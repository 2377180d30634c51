"""The caller of an AArch64 function without a frame of its own."""

from __future__ import annotations

import struct

import drgn
import pytest

from kdumpy.kernel.leaves import unrecorded_caller, without_pac

CODE = 0xFFFFA21B6FF73000
NOP, RET = 0xD503201F, 0xD65F03C0
STP, MOV_X29 = 0xA9BF7BFD, 0x910003FD       # stp x29, x30, [sp, #-16]!; mov x29, sp
ADD_X29 = 0x910083FD                        # add x29, sp, #0x20
BL, BLR, BLRAA = 0x94000010, 0xD63F0020, 0xD73F0841
LEAF = CODE + 0x100
CALLER = CODE + 0x200


def program(leaf: list[int], before_return: int = BL) -> drgn.Program:
    memory = bytearray(struct.pack("<I", NOP) * 0x400)
    memory[0x100 : 0x100 + 4 * len(leaf)] = struct.pack(f"<{len(leaf)}I", *leaf)
    memory[0x1FC:0x200] = struct.pack("<I", before_return)
    data = bytes(memory)
    prog = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64))
    prog.add_memory_segment(CODE, len(data), lambda address, count, offset, physical: data[offset:offset + count])
    symbol = drgn.Symbol("leaf", LEAF, 0x40, drgn.SymbolBinding.LOCAL, drgn.SymbolKind.FUNC)
    prog.register_symbol_finder("test", lambda prog, name, address, one: [symbol] if address is not None
                                and LEAF <= address < LEAF + 0x40 else [], enable_index=0)
    return prog


def caller(leaf: list[int], at: int, *, link: int = CALLER, beyond: int = CODE + 0x300, call: int = BL) -> int | None:
    return unrecorded_caller(program(leaf, call), {"pc": LEAF + 4 * at, "x30": link}, beyond)


@pytest.mark.parametrize("call", [BL, BLR, BLRAA])
def test_a_function_without_a_frame_returns_to_the_link_register(call: int) -> None:
    assert caller([NOP, NOP, RET], 1, call=call) == CALLER


def test_the_authentication_code_is_taken_off() -> None:
    assert caller([NOP, RET], 1, link=CALLER & ~(0x7F << 48) | 0x2A << 48) == CALLER
    assert without_pac(0x00B6FFFF80001234 & ~(1 << 55)) == 0x0000FFFF80001234


def test_before_its_frame_is_made_a_function_counts_as_one_without() -> None:
    assert caller([STP, MOV_X29, NOP], 0) == CALLER
    assert caller([STP, MOV_X29, NOP], 1) == CALLER
    assert caller([NOP, STP, ADD_X29, NOP], 3) is None
    assert caller([STP, MOV_X29, NOP], 2) is None


def test_what_the_chain_of_frames_has_already_is_not_put_in_twice() -> None:
    assert caller([NOP, RET], 1, beyond=CALLER) is None


def test_a_link_register_that_no_call_left_is_not_believed() -> None:
    assert caller([NOP, RET], 1, call=NOP) is None
    assert caller([NOP, RET], 1, link=0) is None
    assert caller([NOP, RET], 1, link=0xFFFF800000000000) is None     # not in the dump
    assert unrecorded_caller(program([NOP]), {"pc": CODE, "x30": CALLER}, 0) is None      # no function there
    assert unrecorded_caller(program([NOP]), {}, 0) is None
