"""Functions that a stack does not show, because their last act was a jump to another one.

A compiler turns `return other();` into a jump, so that the function is on no stack while `other`
runs. The call in its caller still names it: where a return address stands behind a call of another
function than the one above it, that function jumped on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import drgn

from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.values import Frame

_MOST_FRAMES = 24
_CALL = 0xE8
"""call rel32 (Intel SDM volume 2)."""
# Code that jumps on by design: indirect branches, static calls, tracing, live patches.
_TRAMPOLINES = ("__x86_indirect", "__x86_return", "__SCT__", "__SCK__", "ftrace_", "__fentry__", "bpf_", "entry_",
                "asm_", "ret_from", "klp_")


def mend(kernel: Kernel, frames: Sequence[Frame]) -> Iterator[Frame]:
    """Yield the frames, with those that jumped on put back; such a frame has no offset."""
    above: Frame | None = None
    for number, frame in enumerate(frames):
        if above is not None and number < _MOST_FRAMES and not frame.interrupted and not frame.user and frame.symbol:
            missing = _jumped_on(kernel, above, frame)
            if missing:
                yield missing
        yield frame
        above = frame


def _jumped_on(kernel: Kernel, above: Frame, frame: Frame) -> Frame | None:
    if above.pc == frame.pc or above.offset is None or above.user:      # inlined calls share their pc
        return None
    try:
        code = kernel.prog.read(frame.pc - 5, 5)
        if code[0] != _CALL:
            return None
        target = (frame.pc + struct.unpack_from("<i", code, 1)[0]) % (1 << 64)
        if target == above.pc - above.offset:
            return None
        symbol = kernel.prog.symbol(target)
    except (LookupError, drgn.FaultError):
        return None
    # Not at its begin: a symbol of another kind. The same name: its cold part. The caller: recursion by a jump.
    name = symbol.name.split(".", 1)[0]
    if symbol.address != target or name in (above.function, frame.function) or name.startswith(_TRAMPOLINES):
        return None
    module = kernel.debuginfo.module_symbols.module_at(target) if kernel.debuginfo.module_symbols else None
    return Frame(target, symbol.name, None, module)
