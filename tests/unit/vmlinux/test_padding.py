"""Where functions end: nops behind them are padding, bytes that only look like one are not."""

from __future__ import annotations

import numpy as np
import pytest

from kdumpy.vmlinux.padding import without_padding


@pytest.mark.parametrize(("code", "kept"), [
    ("55 5d c3", 3),
    ("55 5d c3 90", 3),
    ("55 5d c3 66 90", 3),
    ("55 5d c3 0f 1f 44 00 00", 3),
    ("55 5d c3 66 66 2e 0f 1f 84 00 00 00 00 00 66 66 2e 0f 1f 84 00 00 00 00 00 0f 1f 00", 3),
    ("55 5d c3 66 66 66 66 2e 0f 1f 84 00 00 00 00 00", 3),     # prefixes before the longest nop
    ("55 5d c3" + " 90" * 11, 3),
    ("55 31 c0 eb 90", 5),                                      # jmp to 0x70 bytes before
    ("55 e8 00 00 00 00", 6),
    ("55 5d c3 cc", 4),                                         # int3 behind a return belongs to it
    ("90 90", 1),                                               # something is left of every function
])
def test_nops_behind_a_function_are_no_part_of_it(code: str, kept: int) -> None:
    text = np.frombuffer(b"\x90" * 7 + bytes.fromhex(code) + b"\xcc" * 3, np.uint8)
    sizes = without_padding(text, np.array([7]), np.array([len(bytes.fromhex(code))]))
    assert sizes.tolist() == [kept]


def test_functions_at_both_ends_of_the_text() -> None:
    text = np.frombuffer(bytes.fromhex("c3 90 90 90 55 c3 66 90"), np.uint8)
    assert without_padding(text, np.array([0, 4]), np.array([4, 4])).tolist() == [1, 2]
