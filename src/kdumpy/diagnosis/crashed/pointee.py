"""What an address points at: an object and its state, a stack and whose, a mapping, a kind of page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crashed.tracking import tracks
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import Meaning
from kdumpy.kernel import Kernel

_MOST_CPUS = 64
BEYOND = "beyond"
"""The state of what lies behind the last page of a vmalloc area, in the page that guards it."""
_POISONS = {0x6B: "poisoned as free (0x6b)", 0x5A: "poisoned as never set (0x5a)"}


def pointee(kernel: Kernel, address: int) -> Pointee:
    """Say what an address points at; kind `unknown` where the dump does not tell."""
    meant = memory.meaning(address, memory.page_levels(kernel))
    if meant.meaning != Meaning.KERNEL:
        return Pointee(address, meant.meaning.value, meant.words)
    for look in (_symbol, _per_cpu, _stack, _slab, _mapping, _page):
        found = _tried(look, kernel, address)
        if found is not None:
            return found
    return Pointee(address, "unknown", "nothing that the dump knows lies there")


def at_physical(kernel: Kernel, address: int) -> Pointee | None:
    """Say what lies at an address of the physical memory; None where there is none, or the dump does not tell."""
    from drgn.helpers.linux.mm import phys_to_virt

    try:
        found = pointee(kernel, int(phys_to_virt(kernel.prog, address).value_()))
    except READ_ERRORS:
        return None
    return None if found.kind == "unknown" else found


def _tried(look: Callable[[Kernel, int], Pointee | None], kernel: Kernel, address: int) -> Pointee | None:
    try:
        return look(kernel, address)
    except READ_ERRORS:
        return None
    except Exception:                   # drgn's helpers walk structures that a crash may have broken
        return None


def _symbol(kernel: Kernel, address: int) -> Pointee | None:
    symbol = memory.symbol_at(kernel.prog, address)
    symbols = kernel.debuginfo.module_symbols
    module = symbols.module_at(address) if symbols else None
    if not symbol and not module:
        return None
    code = kernel.debuginfo.text is not None and address in kernel.debuginfo.text
    owner = f"the module {module}" if module else "the kernel"
    named = symbol or "a part without a name"
    words = f"{named} ({'code' if code else 'data'} of {owner})"
    kind = "code" if code else "module data" if module else "kernel data"
    return Pointee(address, kind, words, symbol=symbol or None, module=module)


def _per_cpu(kernel: Kernel, address: int) -> Pointee | None:
    prog = kernel.prog
    start, end = (prog.symbol(name).address for name in ("__per_cpu_start", "__per_cpu_end"))
    offsets = prog.symbol("__per_cpu_offset").address
    for cpu in range(min(kernel.system.cpus or 1, _MOST_CPUS)):
        base = prog.read_u64(offsets + 8 * cpu)
        inside = (address - base) % (1 << 64)
        if start <= inside < end:
            return Pointee(address, "per-cpu", f"per-CPU memory of CPU {cpu}, offset {inside:#x}")
    return None


def _stack(kernel: Kernel, address: int) -> Pointee | None:
    panicked = kernel.panic.task if kernel.panic else None
    near = [panicked] if panicked else []
    near += [cpu.task for cpu in kernel.cpus if cpu.task]
    for task in near:
        begin = kernel.task_object(task.address).stack.value_()
        if begin <= address < begin + kernel.stack_size:
            return _on_stack(kernel, address, begin, task.comm, task.pid)
        if begin - 0x1000 <= address < begin:
            words = f"the guard page below the stack of {task.comm} (pid {task.pid})"
            return Pointee(address, "stack guard", words, object=begin)
    return None


def _on_stack(kernel: Kernel, address: int, begin: int, comm: str, pid: int) -> Pointee:
    words = f"the stack of {comm} (pid {pid}), {begin + kernel.stack_size - address} bytes from its top"
    return Pointee(address, "stack", words, object=begin)


def _slab(kernel: Kernel, address: int) -> Pointee | None:
    from drgn.helpers.linux.slab import slab_object_info

    found = slab_object_info(kernel.prog, address)
    if found is None or not found.slab_cache:
        return None
    cache = found.slab_cache.name.string_().decode("utf-8", "backslashreplace")
    size = int(found.slab_cache.object_size.value_())
    offset = address - found.address
    state = {True: "allocated", False: "freed", None: "state unknown"}[found.allocated]
    poison = _poison(kernel, found.address, size)
    if offset >= size or offset < 0:
        where = f"the space beside an object of {cache}"
    else:
        where = f"{'an object' if not offset else f'offset {offset:#x} of an object'} of {cache} ({size} bytes)"
    words = f"{where}, {state}" + (f", {poison}" if poison else "")
    return Pointee(address, "slab", words, object=found.address, cache=cache, object_size=size, state=state,
                   poison=poison, tracks=tracks(kernel, found.slab_cache, found.address))


def _poison(kernel: Kernel, begin: int, size: int) -> str | None:
    """Say whether an object is filled with poison, but for its link to the next free one."""
    with contextlib.suppress(*READ_ERRORS):
        data = kernel.prog.read(begin, min(size, 4096))
        for byte, words in _POISONS.items():
            if data.count(byte) >= max(16, len(data) * 3 // 4):
                return words
    return None


def _mapping(kernel: Kernel, address: int) -> Pointee | None:
    from drgn.helpers.linux.mm import find_vmap_area, in_direct_map

    prog = kernel.prog
    if in_direct_map(prog, address):
        return None
    area = find_vmap_area(prog, address)
    if not area:
        return Pointee(address, "not mapped", "the kernel has mapped nothing there (no vmalloc area, no module)") \
            if _in_vmalloc(prog, address) else None
    begin, end = int(area.va_start.value_()), int(area.va_end.value_())
    holder = area.vm
    if holder:
        begin_stack = begin
        for task in kernel.tasks():
            if task.kernel_thread is not None and abs(begin_stack - address) < 2 * kernel.stack_size:
                stack = int(kernel.task_object(task.address).stack.value_())
                if stack <= address < stack + kernel.stack_size:
                    return _on_stack(kernel, address, stack, task.comm, task.pid)
    caller = memory.symbol_at(prog, int(holder.caller.value_())) if holder and holder.caller else ""
    # mm/vmalloc.c: behind its pages an area has one more that is never mapped (without VM_NO_GUARD).
    size = int(holder.nr_pages.value_()) * _page_size(prog) if holder else 0
    beyond = 0 < size <= address - begin
    words = f"offset {address - begin:#x} of a vmalloc area of {size or end - begin} bytes" \
        + (", behind its end" if beyond else "") + (f", mapped by {caller.split('+')[0]}()" if caller else "")
    return Pointee(address, "vmalloc", words, object=begin, object_size=size or end - begin,
                   state=BEYOND if beyond else None)


def _page_size(prog: drgn.Program) -> int:
    try:
        return int(prog["PAGE_SIZE"].value_())
    except READ_ERRORS:
        return 4096


def _in_vmalloc(prog: drgn.Program, address: int) -> bool:
    """Whether an address lies where x86-64 keeps vmalloc areas (32 TiB from vmalloc_base on)."""
    try:
        base = int(prog["vmalloc_base"].value_())
    except READ_ERRORS:
        return False
    return base <= address < base + (32 << 40)


def _page(kernel: Kernel, address: int) -> Pointee | None:
    from drgn.helpers.linux import mm

    prog = kernel.prog
    if not mm.in_direct_map(prog, address):
        return None
    page = mm.virt_to_page(prog, address)
    flags = mm.decode_page_flags(page)
    kind = _page_kind(prog, page, flags)
    return Pointee(address, "page", f"{kind} at physical address {mm.virt_to_phys(prog, address).value_():#x}"
                   + (f" ({flags})" if flags else ""), state=kind)


def _page_kind(prog: drgn.Program, page: drgn.Object, flags: str) -> str:
    from drgn.helpers.linux import mm

    from kdumpy.diagnosis.crashed.pagekind import is_free, is_table

    if is_free(prog, page):
        return "a free page"
    if is_table(prog, page):
        return "a page table"
    head = mm.compound_head(page)
    mapping = int(head.mapping.value_())
    if "PG_reserved" in flags:
        return "a reserved page"
    if mapping & 3 == 1:
        return "a page of a process's memory"
    if mapping and not mapping & 3:
        return "a page of cached file contents"
    return "a page that the kernel took for itself"
