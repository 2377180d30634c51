"""Names for locks and what else is waited for: a variable, a member of one, a place on a stack or in a slab."""

from __future__ import annotations

import contextlib
from functools import cached_property

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.things import Things
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_objects, task_value

_LOCKS = ("mutex", "rw_semaphore")
_DEEPEST = 8


def _member_at(made: drgn.Type, offset: int) -> str:
    """Name the lock that lies at an offset (bytes) of a type: `config_lock`, `inner.lock`; empty if there is none."""
    names: list[str] = []
    for _ in range(_DEEPEST):
        while made.kind == drgn.TypeKind.TYPEDEF:
            made = made.type
        if made.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION) or made.tag in _LOCKS:
            break
        member = next((item for item in made.members or () if not item.bit_field_size
                       and 0 <= offset - item.bit_offset // 8 < drgn.sizeof(item.type)), None)
        if member is None:
            return ""
        names += [member.name] if member.name else []
        offset, made = offset - member.bit_offset // 8, member.type
    return ".".join(names)


class LockNames:
    """Names what lies at an address of one kernel."""

    def __init__(self, kernel: Kernel, things: Things) -> None:
        self.kernel = kernel
        self.prog = kernel.prog
        self.things = things

    def of(self, address: int, kind: str = "") -> str:
        """Name a lock, or another thing, by its symbol or by what it lies in; by its address where it has no name."""
        known = self.things.of_lock(kind, address)
        if known:
            return known
        symbol = memory.symbol_at(self.prog, address)
        name = symbol.split("+")[0]
        if symbol and self.kernel.debuginfo.dwarf:
            try:
                variable = self.prog[name]
                member = _member_at(variable.type_, address - variable.address_)
                return f"{name}.{member}" if member else name
            except READ_ERRORS:
                pass
        found = symbol or self._on_a_stack(address) or memory.describe(self.prog, address)
        symbols = self.kernel.debuginfo.module_symbols
        module = symbols.module_at(address) if symbols else None
        return f"{found} [{module}]" if module and found else found or f"{address:#x}"

    def _on_a_stack(self, address: int) -> str:
        """Say on whose stack an address lies; drgn's identify_address() would ask every task each time."""
        task = self._stacks.get(address & -self.kernel.stack_size)
        if task is None:
            return ""
        value = task_value(task)
        return f"on the stack of {value.comm} (pid {value.pid})"

    @cached_property
    def _stacks(self) -> dict[int, drgn.Object]:
        """The tasks by the addresses of their stacks (which are aligned to their size)."""
        found: dict[int, drgn.Object] = {}
        with contextlib.suppress(*READ_ERRORS):
            offset = drgn.offsetof(self.prog.type("struct task_struct"), "stack")
            for task in task_objects(self.prog):
                with contextlib.suppress(drgn.FaultError):
                    found[self.prog.read_u64(task.value_() + offset)] = task
        return found
