"""`struct`, `union`, `*`: a structure's layout, or the one that lies at an address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.layout import Layout, declaration, indented, unaliased
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import in_user_space
from kdumpy.errors import NotInDump, UsageError

_MOST = 100_000
_COMPOUND = (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION)


@dataclass(frozen=True)
class StructRow:
    """A structure, or some members of one."""

    type: str
    size: int
    """Bytes."""
    address: int | None
    """None for the layout alone."""
    cpu: int | None
    """The CPU of a per-CPU structure."""
    text: str
    """The declaration, or the values."""


class Struct(Command[StructRow]):
    """Show a structure's members; with an address, their values.

    The address is hexadecimal, or a symbol; `SYMBOL:CPUS` is a per-CPU variable on some CPUs. The word `struct`
    may be left out.

    Example:
        crash> struct list_head
        struct list_head {
            struct list_head *next;
            struct list_head *prev;
        }
        SIZE: 16
        crash> task_struct.pid,comm ff29ecb51903c180
          pid = 29,
          comm = "kworker/u4:1"
    """

    names = ("struct", "union", "*")
    example = "struct list_head"
    row = StructRow
    args = (
        Arg("type", metavar="NAME[.MEMBER,…]", help="the structure, and which members"),
        Arg("address", nargs="?", metavar="ADDRESS|SYMBOL[:CPUS]", help="where one lies"),
        Arg("count", nargs="?", metavar="COUNT", help="how many follow each other there"),
        Arg("-o", dest="offsets", action="store_true", help="the offset of each member; with an address, its address"),
        Arg("-l", dest="within", metavar="OFFSET",
            help="the address is that of a member: bytes, or STRUCT.MEMBER, from the structure's begin"),
        Arg("-r", dest="raw", action="store_true", help="the bytes"),
        Arg("-c", dest="count_option", metavar="COUNT", help="the same as COUNT at the end; below zero: those before"),
        Arg("-p", dest="pointers", action="store_true", help="what each pointer among the members leads to"),
        Arg("-u", dest="user", action="store_true", help="the address is of the context task's user space"),
        Arg("-f", dest="in_file", action="store_true", help="the address is an offset in the dump's file"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[StructRow]:
        """Yield the layout, or a row a structure."""
        name, _, members = options.type.partition(".")
        made = find_type(session, name, options.command)
        wanted = [member for member in members.split(",") if member]
        if options.address is None:
            yield self._layout(made, wanted, options, session)
            return
        size = drgn.sizeof(made)
        count = _count(options.count_option or options.count)
        step = -size if count < 0 else size
        for cpu, start in _addresses(session, options.address):
            start -= offset_of(session, options.within)
            for number in range(abs(count)):
                yield self._at(session, made, wanted, start + number * step, cpu, options)

    def _layout(self, made: drgn.Type, wanted: list[str], options: Options, session: Session) -> StructRow:
        radix = options.radix or session.radix
        size = drgn.sizeof(made)
        if wanted:
            text = members_text(made, wanted, radix)
        else:
            text = "\n".join(declaration(made, options.offsets, radix=radix))
        return StructRow(made.type_name(), size, None, None, text)

    def _at(self, session: Session, made: drgn.Type, wanted: list[str], address: int, cpu: int | None,
            options: Options) -> StructRow:
        name, size = made.type_name(), drgn.sizeof(made)
        if options.raw:
            return StructRow(name, size, address, cpu, "\n".join(_raw(session, address, size)))
        if options.offsets:
            return StructRow(name, size, address, cpu, "\n".join(declaration(made, True, address)))
        value = _value(session, made, address, options)
        if options.pointers:
            return StructRow(name, size, address, cpu, "\n".join(pointed(session, value, wanted, options.radix)))
        return StructRow(name, size, address, cpu, struct_text(session, value, wanted, options.radix))

    def render(self, rows: Iterable[StructRow], session: Session, options: Options) -> Iterator[str]:
        """Yield the texts."""
        for number, row in enumerate(rows):
            if number:
                yield ""
            if row.cpu is not None:
                yield f"[{row.cpu}]: {row.address:x}"
            yield row.text
            if (row.address is None and "." not in options.type) or (row.address is not None and options.offsets):
                yield f"SIZE: {row.size:#x}" if (options.radix or session.radix) == 16 else f"SIZE: {row.size}"


def members_text(made: drgn.Type, names: list[str], radix: int) -> str:
    """Return the declarations of some members of a structure, each behind its offset.

    Raises:
        NotInDump: it has no such member.
    """
    lines = []
    for name in names:
        member = _member(made, name)
        place = drgn.offsetof(made, name)
        shown = f"[{place:#x}]" if radix == 16 else f"[{place}]"
        lines.append(f"{shown:>8} {member.type.variable_declaration(name)};")
    return f"{made.type_name()} {{\n" + "\n".join(lines) + "\n}"


def _value(session: Session, made: drgn.Type, address: int, options: Options) -> drgn.Object:
    if options.user:
        return in_user_space(session, made, address)
    if options.in_file:
        data = session.kernel.dump.source.read(address, drgn.sizeof(made))
        return drgn.Object.from_bytes_(session.prog, made, bytes(data))
    return drgn.Object(session.prog, made, address=address)


def pointed(session: Session, value: drgn.Object, wanted: list[str], radix: int | None) -> Iterator[str]:
    """Yield the members of a structure, and below each pointer what it leads to.

    Raises:
        NotInDump: it has no such member.
        drgn.FaultError: the structure is not in the dump.
    """
    names = wanted or [member.name for member in value.type_.members or () if member.name]
    layout = Layout(session, radix)
    for name in names:
        member = value.subobject_(name) if _member(value.type_, name) else value
        text = f"  {name} = {indented(layout.value(member), '  ').lstrip()}"
        made = unaliased(member.type_)
        if made.kind != drgn.TypeKind.POINTER:
            yield f"{text},"
            continue
        yield f"  {made.variable_declaration(name)} = {layout.value(member)}"
        yield f"  -> {indented(_target(layout, member, unaliased(made.type)), '     ').lstrip()}"


def _target(layout: Layout, pointer: drgn.Object, made: drgn.Type) -> str:
    if not pointer:
        return "NULL"
    if made.kind in (drgn.TypeKind.FUNCTION, drgn.TypeKind.VOID):
        return layout.session.place(pointer.value_(), radix=10) or "(unknown)"
    if not made.is_complete():
        return "(its type is not known)"
    try:
        layout.session.prog.read(pointer.value_(), drgn.sizeof(made))
        return layout.value(pointer[0])
    except drgn.FaultError as error:
        return f"(not in the dump: {error.address:016x})"


def struct_text(session: Session, value: drgn.Object, wanted: list[str], radix: int | None) -> str:
    """Return a structure, or some of its members, as crash shows them.

    Raises:
        NotInDump: it has no such member.
        drgn.FaultError: it is not in the dump.
    """
    layout = Layout(session, radix)
    if wanted:
        return ",\n".join(f"  {member} = {indented(layout.value(value.subobject_(member)), '  ').lstrip()}"
                          for member in wanted if _member(value.type_, member))
    if value.address_ is not None:
        # A structure that is not there is an error, not a list of members that are not.
        session.prog.read(value.address_, drgn.sizeof(value.type_))
    return f"{value.type_.type_name()} {layout.value(value)}"


def find_type(session: Session, name: str, kind: str = "*") -> drgn.Type:
    """Return the structure or union of a name, or what a typedef of that name stands for.

    Raises:
        NotInDump: there is none.
        UsageError: the name is none.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(f"{name!r} is no name of a structure")
    tries = {"struct": ("struct ",), "union": ("union ",)}.get(kind, ("struct ", "union "))
    for prefix in (*tries, ""):
        try:
            made = session.prog.type(prefix + name)
        except (LookupError, SyntaxError):
            continue
        real = unaliased(made)
        if real.kind in _COMPOUND and real.is_complete() and (kind == "*" or real.kind.name.lower() == kind):
            return made if made.kind in _COMPOUND else (made if real.tag is None else real)
    raise NotInDump(f"there is no {'structure' if kind in ('*', 'struct') else kind} {name!r}",
                    why=session.kernel.debuginfo.missing.get("types", ""))


def _member(made: drgn.Type, name: str) -> drgn.TypeMember:
    """Return a member by its dotted name."""
    found: drgn.TypeMember | None = None
    where = unaliased(made)
    for part in name.split("."):
        plain = re.sub(r"\[\d+\]", "", part)
        try:
            found = where.member(plain)
        except (LookupError, TypeError):
            raise NotInDump(f"{made.type_name()} has no member {name!r}") from None
        where = unaliased(found.type)
        while where.kind == drgn.TypeKind.ARRAY:
            where = unaliased(where.type)
    if found is None:
        raise UsageError("a member has no name")
    return found


def _count(text: str | None) -> int:
    if text is None:
        return 1
    try:
        count = int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is no count") from None
    if not 0 < abs(count) <= _MOST:
        raise UsageError(f"a count lies between 1 and {_MOST}")
    return count


def _addresses(session: Session, text: str) -> Iterator[tuple[int | None, int]]:
    name, colon, cpus = text.partition(":")
    if not colon:
        yield None, session.address(name)
        return
    symbol = session.prog.symbol(name)
    pointer = drgn.Object(session.prog, session.prog.pointer_type(session.prog.void_type()), value=symbol.address)
    for cpu in session.cpus(cpus) if cpus else [session.prog["nr_cpu_ids"].value_() - 1]:
        yield cpu, per_cpu_ptr(pointer, cpu).value_()


def offset_of(session: Session, text: str | None) -> int:
    """Return an offset that is given in bytes or as STRUCT.MEMBER; 0 where none is given.

    Raises:
        UsageError: it is neither.
    """
    if not text:
        return 0
    if "." in text:
        name, _, member = text.partition(".")
        return int(drgn.offsetof(find_type(session, name), member))
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is no offset", mend="bytes, or STRUCT.MEMBER") from None


def _raw(session: Session, address: int, size: int) -> Iterator[str]:
    data = session.prog.read(address, size)
    for at in range(0, size, 16):
        part = data[at:at + 16]
        words = " ".join(f"{int.from_bytes(part[start:start + 8], 'little'):0{2 * len(part[start:start + 8])}x}"
                         for start in range(0, len(part), 8))
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{address + at:016x}:  {words:<33}   {text}"


COMMAND = Struct()
