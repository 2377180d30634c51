"""Where functions end: kallsyms has no sizes, and the room up to the next symbol ends in padding.

The assembler fills up with nops (binutils gas/config/tc-i386.c, alt_patt; LLVM's X86AsmBackend.cpp), the kernel with
single ones before the functions that it may patch (arch/x86/include/asm/linkage.h, CFI_PRE_PADDING).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Sizes = NDArray[np.int64]

_LONG = ("66 66 2e 0f 1f 84 00 00 00 00 00", "66 2e 0f 1f 84 00 00 00 00 00", "2e 0f 1f 84 00 00 00 00 00",
         "66 0f 1f 84 00 00 00 00 00", "0f 1f 84 00 00 00 00 00", "0f 1f 80 00 00 00 00", "66 0f 1f 44 00 00",
         "0f 1f 44 00 00", "0f 1f 40 00", "0f 1f 00", "66 90")
"""Nops of several bytes, the longest first. Prefixes may stand before them."""
_PREFIX, _NOP, _SHORT_JUMP = 0x66, 0x90, 0xEB
_MOST_NOPS = 64
"""Nops behind one function that are looked for."""


def without_padding(text: Bytes, starts: Sizes, sizes: Sizes) -> Sizes:
    """Return the sizes of functions without the nops behind them.

    Args:
        text: the code.
        starts: offsets in it at which functions begin.
        sizes: bytes up to what comes next.
    """
    patterns = [np.frombuffer(bytes.fromhex(words), np.uint8) for words in _LONG]
    ends, rest = starts + sizes, np.arange(len(starts))
    for _ in range(_MOST_NOPS):
        length = _nops_before(text, starts[rest], ends[rest], patterns)
        ends[rest] -= length
        rest = rest[length > 0]
        if not len(rest):
            break
    return ends - starts


def _nops_before(text: Bytes, starts: Sizes, ends: Sizes, patterns: list[Bytes]) -> Sizes:
    """Return how many bytes of one nop lie before each end; 0 for none."""
    found = np.zeros(len(ends), np.int64)
    for pattern in patterns:
        rest = np.flatnonzero((found == 0) & (ends - starts > len(pattern)))
        at = (ends[rest] - len(pattern))[:, np.newaxis] + np.arange(len(pattern))
        found[rest[(text[at] == pattern).all(1)]] = len(pattern)
    before = np.where(ends - starts > 1, text[np.maximum(ends - 2, 0)], _SHORT_JUMP)
    single = np.isin(text[np.maximum(ends - 1, 0)], (_NOP, _PREFIX)) & (found == 0)
    # A 0x90 behind 0xeb is where a short jump leads; a prefix alone is left over from a longer nop.
    found[single & (before != _SHORT_JUMP)] = 1
    return found
