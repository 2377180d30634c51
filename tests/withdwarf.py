"""A dump opened with nothing but the dump, and with its kernel's DWARF: what tests hold against each other."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import drgn
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import idle_task

import lab
from kdumpy.debuginfo.attach import DebugInfo, attach
from kdumpy.vm import debugfiles

Opened = tuple[drgn.Program, DebugInfo]


@lru_cache(maxsize=len(lab.KERNELS))
def alone(kernel: str, fault: str) -> Opened:
    """Open a dump with nothing but the dump."""
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump(kernel, fault).path))
    return prog, attach(prog)


def with_dwarf(kernel: str, fault: str) -> drgn.Program:
    """Open a dump with the DWARF of its kernel and of our driver, and nothing of ours."""
    dump = lab.dump(kernel, fault)
    prog = drgn.Program()
    prog.set_core_dump(str(dump.path))
    prog.set_enabled_debug_info_finders([])
    try:
        prog.load_debug_info([str(debugfiles.debug_vmlinux(kernel)), str(dump.driver), *module_files(kernel)])
    except drgn.MissingDebugInfoError as error:     # the virtual machine's own few modules are all that matter
        print(error)
    prog.create_loaded_modules()
    return prog


def module_files(kernel: str) -> list[str]:
    return [str(path) for path in sorted(Path(debugfiles.debug_modules(kernel)).rglob("*"))
            if path.name.endswith((".ko", ".debug")) and path.is_file()][:200]


def every_task(prog: drgn.Program) -> dict[int, drgn.Object]:
    idle = [idle_task(prog, cpu) for cpu in for_each_online_cpu(prog)]
    return {task.value_(): task for task in [*for_each_task(prog), *idle]}


def frames(prog: drgn.Program, task: drgn.Object) -> list[int] | str:
    try:
        return [frame.pc for frame in prog.stack_trace(task) if not frame.is_inline]
    except (ValueError, LookupError, drgn.FaultError) as error:
        return str(error)


def same_type(ours: drgn.Type, theirs: drgn.Type) -> bool:
    """Whether two types agree, apart from constness, the names of typedefs, and array lengths where one has none."""
    ours, theirs = ours.unaliased(), theirs.unaliased()
    if ours.kind != theirs.kind:
        return False
    if ours.kind == drgn.TypeKind.ARRAY and None not in (ours.length, theirs.length) and ours.length != theirs.length:
        return False
    if ours.kind in (drgn.TypeKind.POINTER, drgn.TypeKind.ARRAY):
        return same_type(ours.type, theirs.type)
    if not ours.is_complete() or not theirs.is_complete() or ours.kind in (drgn.TypeKind.VOID, drgn.TypeKind.FUNCTION):
        return True
    return bool(drgn.sizeof(ours) == drgn.sizeof(theirs)) and getattr(ours, "tag", None) == getattr(theirs, "tag", None)
