"""The spinlocks that a function has taken, and not given back, when it is where its frame shows it.

By its code: a lock counts as held where a way leads from the call that takes it to the place of the frame
without a call that gives it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.assembly import Line, lines
from kdumpy.diagnosis.crashed.dataflow import LARGEST, PRESERVED
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_TAKE = ("_raw_spin_lock", "_raw_read_lock", "_raw_write_lock")
_GIVE = ("_raw_spin_unlock", "_raw_read_unlock", "_raw_write_unlock", "__raw_spin_unlock", "__raw_read_unlock",
         "__raw_write_unlock")
_ENDS = ("ret", "iret", "hlt")


def held_locks(kernel: Kernel, read: operands.Read, frames: Sequence[Frame],
               registers: Mapping[str, int]) -> Iterator[int]:
    """Yield the addresses of the spinlocks that the innermost of `frames` holds.

    Args:
        kernel: whose code it is.
        read: reads its memory.
        frames: the frame and its callers.
        registers: what the frame's registers hold, as far as the unwinder knows.
    """
    here = _instruction(read, frames[0])
    if here is None:
        return
    now = Follower(kernel, read, frames, here, registers)
    function = now.function
    if function is None or function.end - function.begin > LARGEST:
        return
    try:
        found = list(lines(read(function.begin, function.end - function.begin), function.begin))
    except (LookupError, ValueError):
        return
    code = {item.address: item for item in found}
    takes, gives = _calls(kernel, found, _TAKE), _calls(kernel, found, _GIVE)
    for call in takes:
        if call == here:
            continue
        then = Follower(kernel, read, frames, call, {})
        lock = then.values.get("rdi")
        back = {at for at in gives if Follower(kernel, read, frames, at, {}).values.get("rdi") == lock}
        number = now.number(lock, ask_memory=True)
        if number is not None and _leads(code, call, here, back):
            yield number


def registers_along(kernel: Kernel, read: operands.Read, frames: Sequence[Frame],
                    unwound: Sequence[Mapping[str, int]]) -> Iterator[dict[str, int]]:
    """Yield the registers of each frame: what the unwinder knows, and what the called function had saved of them.

    The kernel's unwind tables (ORC) tell of no register but the stack's and the frame's; a function that is called
    saves those that it must preserve, and its code says where.
    """
    saved: dict[str, int] = {}
    for number, (frame, known) in enumerate(zip(frames, unwound, strict=False)):
        registers = dict(known) if frame.interrupted else {**saved, **known}
        yield registers
        saved = {}
        here = _instruction(read, frame) if frame.offset is not None and not frame.inline else None
        if here is not None and "rsp" in registers:
            entry = Follower(kernel, read, frames[number:], here, registers).at_entry
            saved = {name: value for name, value in entry.items() if name in PRESERVED and name != "rsp"}


def _instruction(read: operands.Read, frame: Frame) -> int | None:
    """Return the instruction in which a frame is: where it was interrupted, or the call that it made."""
    if frame.interrupted:
        return frame.pc
    call = operands.decode_call(read, frame.pc, {})
    return call.address if call else None


def _calls(kernel: Kernel, code: Sequence[Line], names: tuple[str, ...]) -> list[int]:
    """Return where functions whose names begin so are called."""
    found = []
    for item in code:
        if item.target is None or not item.name.startswith(("call", "jmp")):
            continue
        try:
            symbol = kernel.prog.symbol(item.target)
        except LookupError:
            continue
        if symbol.address == item.target and symbol.name.startswith(names):
            found.append(item.address)
    return found


def _leads(code: Mapping[int, Line], begin: int, end: int, without: set[int]) -> bool:
    """Whether a way leads from one instruction to another one, past none of some."""
    work, seen = [begin], {begin}
    while work:
        item = code[work.pop()]
        following = []
        jumps = item.name[0] == "j"
        if not item.name.startswith((*_ENDS, "jmp")):
            following.append(item.address + item.size)
        if jumps and item.target is not None:
            following.append(item.target)
        for address in following:
            if address == end:
                return True
            if address in code and address not in seen and address not in without:
                seen.add(address)
                work.append(address)
    return False
