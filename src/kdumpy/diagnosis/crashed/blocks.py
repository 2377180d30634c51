"""The blocks of a function's code, and which can come after which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdumpy.diagnosis.crashed.assembly import Line, Memory

_ENDS = ("ret", "iret", "sysret", "hlt")
_NO_RETURN = frozenset({"panic", "__stack_chk_fail", "do_exit", "make_task_dead", "rewind_stack_and_make_dead",
                        "fortify_panic", "__fortify_panic", "__ubsan_handle_builtin_unreachable"})

NameOf = Callable[[int], str]
"""Names the function that begins at an address; empty where none does."""


@dataclass(slots=True)
class Block:
    """Instructions that run one after the other."""

    lines: list[Line]
    after: list[int]
    """Where the blocks begin that can come next."""

    def holds(self, pc: int) -> bool:
        """Whether an instruction is one of the block's."""
        return any(item.address == pc for item in self.lines)


def blocks_of(code: dict[int, Line], begin: int, pc: int, name_of: NameOf) -> dict[int, Block]:
    """Return a function's blocks by where they begin; `pc` is the instruction of interest, which may be a last call."""
    leaders = {begin}
    for item in code.values():
        if item.target in code and not item.name.startswith("call"):
            leaders.add(item.target)
    blocks: dict[int, Block] = {}
    current: Block | None = None
    previous_end = -1
    for address in sorted(code):
        item = code[address]
        if current is None or address in leaders or address != previous_end:
            if current is not None and address == previous_end:
                current.after.append(address)
            current = blocks[address] = Block([], [])
        current.lines.append(item)
        previous_end = address + item.size
        jumps = item.name[0] == "j" or item.name.startswith("loop")
        if jumps:
            if item.target in code:
                current.after.append(int(item.target or 0))
            if not item.name.startswith("jmp") and previous_end in code:
                current.after.append(previous_end)
                leaders.add(previous_end)
            current = None
        elif item.name.startswith(_ENDS) or (item.name.startswith("call") and item.target
                                             and item.address != pc and name_of(item.target) in _NO_RETURN):
            current = None
    return blocks


def reaching(blocks: dict[int, Block], last: int) -> set[int]:
    """Return the blocks from which a block can be reached, itself too."""
    before: dict[int, list[int]] = {}
    for start, block in blocks.items():
        for following in block.after:
            before.setdefault(following, []).append(start)
    found, work = {last}, [last]
    while work:
        for start in before.get(work.pop(), ()):
            if start not in found:
                found.add(start)
                work.append(start)
    return found


def has_table(code: dict[int, Line]) -> bool:
    """Whether the code jumps through a table, so that not all its paths are known."""
    jumps = [item for item in code.values() if item.name.startswith("jmp") and item.indirect]
    indexed = {item.operands[-1] for item in code.values() if item.name.startswith("mov") and len(item.operands) == 2
               and isinstance(item.operands[0], Memory) and item.operands[0].index}
    return any(item.prefix == "notrack" or item.operands[0] in indexed or
               (isinstance(item.operands[0], Memory) and bool(item.operands[0].index)) for item in jumps)
