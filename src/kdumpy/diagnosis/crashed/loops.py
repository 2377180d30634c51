"""What a CPU that is stuck reads again and again: where that is a freed object, what it waits for never comes.

A sequence counter, a flag, a list of what was freed says for ever what poison, or the next owner, says. Asked is the
code of the loop in which the CPU was found, with the registers that it had there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit, operands
from kdumpy.diagnosis.crashed.assembly import Memory, lines
from kdumpy.diagnosis.crashed.blocks import Block, blocks_of, reaching
from kdumpy.diagnosis.crashed.dataflow import LARGEST
from kdumpy.diagnosis.crashed.following import function_at
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import is_kernels
from kdumpy.diagnosis.waits.holders import Holders
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Cpu, Frame

_MOST_FRAMES = 6
"""Frames from the one that was found outwards whose loops are asked."""


def freed_in_loop(kernel: Kernel, holders: Holders, cpu: Cpu) -> tuple[Pointee, Sequence[Frame]] | None:
    """Return (the freed slab object that a CPU reads in a loop, its stack from there on); None where it reads none."""
    if cpu.task is None or cpu.idle or kernel.system.machine != "x86_64":
        return None
    frames = cpu.stack.frames
    begin = len(frames) - len(culprit.watched(frames))      # what looked at the CPU is cut off
    if begin >= len(frames) or not frames[begin].interrupted or frames[begin].user:
        return None
    try:
        known = holders.registers(cpu.task, frames)
        for number in range(begin, min(begin + _MOST_FRAMES, len(frames), len(known))):
            frame = frames[number]
            if frame.user or frame.inline or frame.offset is None or (frame.interrupted and number != begin):
                continue
            for address in _read_in_loop(kernel, holders.read, frame, known[number]):
                place = pointee(kernel, address)
                if place.kind == "slab" and place.state == "freed":
                    return place, frames[begin:]
            if frame.module:                # its callers wait for it
                break
    except READ_ERRORS:
        return None
    return None


def _read_in_loop(kernel: Kernel, read: operands.Read, frame: Frame, registers: Mapping[str, int]) -> Iterator[int]:
    """Yield where the loop reads that a frame is in, as far as registers tell."""
    pc = frame.pc
    if not frame.interrupted:
        call = operands.decode_call(read, frame.pc, {})
        if call is None:
            return
        pc = call.address
    function = function_at(kernel.prog, pc)
    if function is None or function.end - function.begin > LARGEST:
        return
    code = {item.address: item for item in lines(read(function.begin, function.end - function.begin), function.begin)}
    blocks = blocks_of(code, function.begin, pc, lambda address: "")
    here = next((start for start, block in blocks.items() if block.holds(pc)), None)
    if here is None:
        return
    turn = reaching(blocks, here) & _reached(blocks, here)
    if here not in _after(blocks, turn):
        return                              # no way leads back: it is no loop
    seen: set[int] = set()
    for start in turn:
        for item in blocks[start].lines:
            for place in item.operands:
                if not isinstance(place, Memory) or place.segment or place.index or place.base in ("", "rip", "rsp") \
                        or item.name.startswith(("lea", "nop")) or place.base not in registers:
                    continue
                address = (registers[place.base] + place.displacement) % (1 << 64)
                if is_kernels(address) and address not in seen:
                    seen.add(address)
                    yield address


def _reached(blocks: Mapping[int, Block], first: int) -> set[int]:
    """Return the blocks that can be reached from one, itself too."""
    found, work = {first}, [first]
    while work:
        for following in blocks[work.pop()].after:
            if following in blocks and following not in found:
                found.add(following)
                work.append(following)
    return found


def _after(blocks: Mapping[int, Block], some: set[int]) -> set[int]:
    return {following for start in some for following in blocks[start].after}
