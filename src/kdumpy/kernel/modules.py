"""Loaded modules as values."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kdumpy.debuginfo.modules import module_list, ranges_of
from kdumpy.debuginfo.reading import READ_ERRORS, Losses
from kdumpy.errors import DamagedDump
from kdumpy.kernel.system import taint_letters
from kdumpy.kernel.values import Module

_STATES = {0: "live", 1: "loading", 2: "unloading", 3: "unformed"}
"""enum module_state (include/linux/module.h)."""


def modules(prog: drgn.Program, problems: dict[str, str]) -> Iterator[Module]:
    """Yield the loaded modules, newest first as lsmod does; what cannot be read is told to `problems`."""
    lost = Losses("module")
    try:
        for module in module_list(prog):
            try:
                yield _module(module)
            except READ_ERRORS as error:
                lost.add(error)
    except DamagedDump as error:
        problems["modules"] = str(error)
    if lost:
        problems["modules not read"] = str(lost)


def _module(module: drgn.Object) -> Module:
    ranges = ranges_of(module)
    taints = module.taints.value_() if module.type_.type.has_member("taints") else 0
    version, source_version = (
        getattr(module, name).string_().decode("utf-8", "replace")
        if module.type_.type.has_member(name) and getattr(module, name) else "" for name in ("version", "srcversion"))
    return Module(
        name=module.name.string_().decode("utf-8", "replace"),
        address=module.value_(),
        base=ranges[0][0] if ranges else 0,
        size=sum(end - start for start, end in ranges),
        taints=taint_letters(taints),
        used_by=tuple(_users(module)),
        version=version,
        source_version=source_version,
        state=_STATES.get(module.state.value_(), "unknown"),
    )


def _users(module: drgn.Object) -> Iterator[str]:
    """Yield the names of the modules that use this one (struct module_use on source_list)."""
    if not module.type_.type.has_member("source_list"):
        return
    prog = module.prog_
    made = prog.type("struct module_use")
    entry, end = module.source_list.next.value_(), module.source_list.address_of_().value_()
    offset = drgn.offsetof(made, "source_list")
    seen: set[int] = set()
    while entry != end and entry not in seen:
        seen.add(entry)
        use = drgn.Object(prog, made, address=entry - offset)
        yield use.source.name.string_().decode("utf-8", "replace")
        entry = use.source_list.next.value_()
