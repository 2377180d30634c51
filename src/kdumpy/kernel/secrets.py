"""Find secrets in an opened dump, so that they can be erased: `keys`, `environment`, or what is named.

Names:
  keys                      keyrings, transforms' contexts, dm-crypt, WireGuard, TLS in the kernel, IPsec
  user                      free pages that CPUs keep for themselves, and pages of pipes: the part of `--erase user`
                            that needs the kernel's structures, since nothing in a page itself tells of it
  environment               each process's environment and arguments, and the kernel's command line
  SYMBOL[.MEMBER…][:SIZE]   a variable, or a member of it
  STRUCT.MEMBER…[:SIZE]     a member of every allocated object of the slab cache that is named like the struct

SIZE is a number of bytes or a member beside the last one that holds it. A member that is a pointer stands for
what it points to, which needs a SIZE unless its type tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import drgn
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump, UsageError
from kdumpy.kernel import freepages, keys, pipes, transforms
from kdumpy.kernel.erasure import Erasure, Reach
from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.tasks import task_objects

__all__ = ["GROUPS", "Erasure", "extents"]

GROUPS = ("keys", "environment", "user")
"""Names that stand for several places."""


def extents(kernel: Kernel, names: Iterable[str]) -> list[Erasure]:
    """Return where the named secrets lie in physical memory.

    What cannot be reached or judged is said in the Erasure, so that it is not taken for absent.

    Raises:
        UsageError: a name cannot be understood.
        NotInDump: this kernel has no such variable, struct or member.
    """
    reach = Reach(kernel)
    found: list[Erasure] = []
    for name in names:
        if name == "keys":
            found += keys.find(reach)
            found += transforms.find(reach)
        elif name == "environment":
            found += _environment(reach)
        elif name == "user":
            found.append(freepages.find(reach))
            found.append(pipes.find(reach))
        else:
            found.append(_named(reach, name))
    return found


def _environment(reach: Reach) -> Iterator[Erasure]:
    """Yield the processes' environments and arguments. Source: mm_struct's env_start … env_end, fs/proc/base.c."""
    sought = (Erasure("mm_struct.env_start", "environments of processes"),
              Erasure("mm_struct.arg_start", "arguments of processes"))
    done: set[int] = set()
    failure = ""
    try:
        for task in task_objects(reach.prog):
            if task.mm and task.mm.value_() not in done:
                done.add(task.mm.value_())
                for erasure, name in zip(sought, ("env", "arg"), strict=True):
                    _region(reach, erasure, task.mm, name)
    except READ_ERRORS as error:
        failure = f"the list of tasks cannot be followed to its end: {error}"
    for erasure in sought:
        if failure and erasure.count:
            erasure.failed(failure)
        elif failure:
            erasure.not_judged = failure
        yield erasure
    yield from _command_lines(reach)


def _region(reach: Reach, erasure: Erasure, mm: drgn.Object, name: str) -> None:
    try:
        start, end = mm.member_(f"{name}_start").value_(), mm.member_(f"{name}_end").value_()
        if reach.add_user(erasure, mm, start, end - start):
            erasure.count += 1
    except READ_ERRORS as error:
        erasure.failed(error)


def _command_lines(reach: Reach) -> Iterator[Erasure]:
    """Yield the kernel's own command line, which may hold passwords too; its copies are in the log and in init."""
    erasure = Erasure("saved_command_line", "copies of the kernel's command line")
    for name in ("saved_command_line", "initcall_command_line", "static_command_line"):
        try:
            pointer = drgn.Object(reach.prog, "char *", address=reach.prog.symbol(name).address)
            if pointer:
                reach.add(erasure, pointer.value_(), len(pointer.string_()))
        except READ_ERRORS:
            continue        # freed after the boot, or static and absent from the symbols
    if not erasure.count:
        erasure.not_judged = "the kernel's symbols do not tell where it lies"
    yield erasure


def _named(reach: Reach, name: str) -> Erasure:
    path, _, size = name.partition(":")
    first, *members = path.split(".")
    if size and not size.isidentifier() and not size.isdecimal():
        raise UsageError("this is no size", where=name, mend="give bytes, or the member that holds them")
    if not first or not all(members) or not all(part.isidentifier() for part in (first, *members)):
        raise UsageError("this names no secret", where=name,
                         mend=f"give {', '.join(GROUPS)}, SYMBOL[.MEMBER][:SIZE] or STRUCT.MEMBER[:SIZE]")
    erasure = Erasure(path, f"{path}")
    variable = _variable(reach.prog, first, size)
    if variable is not None:
        objects: Iterable[drgn.Object] = [variable]
    elif members:
        objects = _instances(reach.prog, first)
    else:
        raise NotInDump("this kernel has no such variable", where=first)
    for each in objects:
        try:
            _add_member(reach, erasure, each, members, size)
        except UsageError:
            raise
        except (LookupError, AttributeError) as error:
            raise NotInDump("this kernel has no such member", where=name, why=str(error).strip("'")) from error
        except READ_ERRORS as error:
            erasure.failed(error)
    return erasure


def _variable(prog: drgn.Program, name: str, size: str) -> drgn.Object | None:
    """Return a variable; one of unknown type, whose size was given, as an array of bytes."""
    try:
        found = prog.variable(name)
    except LookupError:
        if not size.isdecimal():
            return None
        try:
            symbol = prog.symbol(name)
        except LookupError:
            return None
        array = prog.array_type(prog.type("unsigned char"), int(size))
        return drgn.Object(prog, array, address=symbol.address)
    return found if not found.absent_ else None


def _instances(prog: drgn.Program, struct: str) -> Iterator[drgn.Object]:
    try:
        prog.type(f"struct {struct}")
    except LookupError as error:
        raise NotInDump("this kernel has no such variable or struct", where=struct) from error
    try:
        cache = find_slab_cache(prog, struct)
    except READ_ERRORS as error:
        raise NotInDump("the slab caches cannot be read", where=struct, why=str(error)) from error
    if cache is None:
        raise NotInDump("no slab cache is named like the struct, so its objects cannot be listed", where=struct,
                        mend="name a variable that leads to it")
    try:
        yield from slab_cache_for_each_allocated_object(cache, f"struct {struct}")
    except READ_ERRORS as error:
        raise NotInDump("the slab cache cannot be walked to its end", where=struct, why=str(error)) from error


def _add_member(reach: Reach, erasure: Erasure, each: drgn.Object, members: list[str], size: str) -> None:
    target = each[0] if each.type_.kind == drgn.TypeKind.POINTER and members else each
    beside = target
    for member in members:
        beside = target[0] if target.type_.kind == drgn.TypeKind.POINTER else target
        target = beside.member_(member)
    length = 0
    if size:
        length = int(size) if size.isdecimal() else beside.member_(size).value_()
    kind = target.type_
    while kind.kind == drgn.TypeKind.TYPEDEF:
        kind = kind.type
    if kind.kind == drgn.TypeKind.POINTER:
        pointer = target.value_()
        if not pointer:
            return
        if not length:
            if kind.type.kind == drgn.TypeKind.VOID or not kind.type.is_complete():
                raise UsageError("what it points to has no size that is known", where=erasure.name,
                                 mend="add :BYTES, or :MEMBER that holds it")
            length = drgn.sizeof(kind.type)
        reach.add(erasure, pointer, length)
        return
    address = target.address_
    if address is None:
        raise KdumpyError("a bit-field cannot be erased", where=erasure.name)
    reach.add(erasure, address, length or drgn.sizeof(target))
