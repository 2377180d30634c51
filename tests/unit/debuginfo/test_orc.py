"""Where a prologue saves RBP: on the beginnings of real functions, and on those that compilers make elsewhere."""

from __future__ import annotations

import pytest

from kdumpy.debuginfo.orc import _nop_length, _saved_rbp

SUB = "4881ecb0000000" + "00" * 32


@pytest.mark.parametrize(("code", "below"), [
    ("666666669055ba01000000" + SUB, 16),                       # 5.10: the nop of old, push rbp
    ("0f1f44000053ba01000000" + SUB, None),                     # 6.1: push rbx
    ("660f1f000f1f44000053ba01000000" + SUB, None),             # 6.12: endbr64 patched away
    ("0f1f40d60f1f440000" + SUB, None),                         # 7.2: endbr64 sealed, nothing pushed
    ("f30f1efae80000000055" + SUB, 16),                         # endbr64, traced
    ("e80000000041574156415541545553" + SUB, 48),
    ("0f1f44000041575548" + "89e5" + SUB, 24),
])
def test_the_place_of_rbp_is_found(code: str, below: int | None) -> None:
    assert _saved_rbp(bytes.fromhex(code)) == below


@pytest.mark.parametrize("code", ["cc" * 40, "0f0b" + "00" * 40, "c3" * 40])
def test_what_is_not_understood_is_not_guessed(code: str) -> None:
    with pytest.raises(LookupError, match="not understood"):
        _saved_rbp(bytes.fromhex(code))


@pytest.mark.parametrize(("code", "length"), [
    ("90", 1), ("6690", 2), ("0f1f00", 3), ("0f1f4000", 4), ("0f1f440000", 5), ("660f1f440000", 6),
    ("0f1f8000000000", 7), ("0f1f840000000000", 8), ("6666666690", 5), ("55", 0), ("4889e5", 0),
])
def test_nops_of_every_length_are_known(code: str, length: int) -> None:
    assert _nop_length(bytes.fromhex(code) + b"\x55" * 8) == length
