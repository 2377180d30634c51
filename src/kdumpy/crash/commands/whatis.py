"""`whatis`: the definition of a type or the declaration of a symbol; and which structures have a size or a member."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import members_text
from kdumpy.crash.expression import evaluate
from kdumpy.crash.layout import declaration, unaliased
from kdumpy.crash.session import Session
from kdumpy.debuginfo.btf import Kind
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError

_COMPOUND = (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION)
_DEEPEST = 8


@dataclass(frozen=True)
class TypeRow:
    """A type, or a declaration."""

    name: str
    size: int | None
    """Bytes; None for what has none."""
    text: str
    """Its definition; empty in a list of types, and for what has only a size."""


class Whatis(Command[TypeRow]):
    """Show the definition of a type or member, the declaration of a variable or function, the type of an expression.

    With -r or -m, list the structures of a size, or that hold or point to a type.

    Example:
        crash> whatis jiffies
        unsigned long volatile jiffies;
        crash> whatis -r 16 -m task_struct
        SIZE  TYPE
          16  core_thread
    """

    names = ("whatis",)
    example = "whatis list_head"
    row = TypeRow
    args = (
        Arg("name", nargs="*", metavar="TYPE[.MEMBER]|SYMBOL|EXPRESSION",
            help="a structure, union, enum, typedef, variable or function"),
        Arg("-o", dest="offsets", action="store_true", help="the offset of each member"),
        Arg("-r", dest="range", metavar="SIZE|LOW-HIGH", help="structures of this size, in bytes"),
        Arg("-m", dest="member", metavar="TYPE", help="structures with a member of this type, or of its name in part"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[TypeRow]:
        """Yield the definition, or the types of a list."""
        if options.range or options.member:
            if options.name:
                raise UsageError("-r and -m list types; a name asks for one", where="whatis")
            yield from _listed(session, options)
            return
        if not options.name:
            raise UsageError("what is what?", where="whatis", mend="see 'help whatis'")
        yield _one(session, " ".join(options.name), options)

    def render(self, rows: Iterable[TypeRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the answer out as crash does."""
        if options.range or options.member:
            found = sorted(rows, key=lambda row: (row.size or 0, row.name))
            width = max(4, *(len(str(row.size)) for row in found)) if found else 4
            yield f"{'SIZE':>{width}}  TYPE"
            for row in found:
                yield f"{row.size:>{width}}  {row.name}"
            return
        for row in rows:
            if row.text:
                yield row.text
            if row.size is not None:
                yield f"SIZE: {row.size:#x}" if (options.radix or session.radix) == 16 else f"SIZE: {row.size}"


def _one(session: Session, name: str, options: Options) -> TypeRow:
    radix = options.radix or session.radix
    found = _variable(session, name)        # crash asks for a symbol before a type: kmem_cache is both
    if found is not None:
        return TypeRow(name, None, f"{found.type_.variable_declaration(name)};")
    made = _type(session, name)
    if made is not None:
        return _definition(made, options.offsets, radix)
    of, dot, members = name.partition(".")
    if dot and (made := _type(session, of)) is not None:
        return TypeRow(name, None, members_text(made, members.split(","), radix))
    if re.fullmatch(r"\w+", name):
        symbols = session.prog.symbols(name)
        if not symbols:
            raise NotInDump(f"there is no type or symbol {name!r}")
        kind = "text" if symbols[0].kind == drgn.SymbolKind.FUNC else "data"
        return TypeRow(name, None, f"<{kind} variable, no debug info> {name};")
    return TypeRow(name, None, evaluate(session, name).type_.type_name())


def _variable(session: Session, name: str) -> drgn.Object | None:
    try:
        return session.prog[name] if re.fullmatch(r"\w+", name) else None
    except LookupError:
        return None


def _type(session: Session, name: str) -> drgn.Type | None:
    """Return the type of a name; a structure or union before a typedef that stands for it."""
    for prefix in ("struct ", "union ", "enum ", ""):
        try:
            made = session.prog.type(prefix + name)
        except (LookupError, SyntaxError):
            continue
        if made.kind != drgn.TypeKind.FUNCTION:
            return made
    return None


def _definition(made: drgn.Type, offsets: bool, radix: int) -> TypeRow:
    """Return what stands behind a type: a typedef's structure in it, down to what the compiler knows."""
    real = unaliased(made)
    whole = real.kind not in (drgn.TypeKind.VOID, drgn.TypeKind.FUNCTION) and real.is_complete()
    size = drgn.sizeof(real) if whole else None
    name = made.type_name()
    if real.kind in _COMPOUND and whole:
        text = "\n".join(declaration(real, offsets, radix=radix))
    elif real.kind == drgn.TypeKind.ENUM and whole:
        text, size = str(real).replace("\t", "    ").replace(",\n", "\n"), None
    elif made is not real and made.kind == drgn.TypeKind.TYPEDEF:
        return TypeRow(name, size, f"typedef {real.variable_declaration(name)};")
    elif real.kind in (drgn.TypeKind.INT, drgn.TypeKind.FLOAT, drgn.TypeKind.BOOL):
        return TypeRow(name, size, "")
    else:
        return TypeRow(name, None, f"{made};")
    if made.kind == drgn.TypeKind.TYPEDEF:
        return TypeRow(name, size, f"typedef {text} {name};")
    return TypeRow(name, size, f"{text};" if real.kind == drgn.TypeKind.ENUM else text)


def _listed(session: Session, options: Options) -> Iterator[TypeRow]:
    low, high = _sizes(options.range)
    wanted = options.member
    for made in _structures(session):
        size = drgn.sizeof(made)
        if low <= size <= high and (wanted is None or _has_member(made, wanted, 0)):
            yield TypeRow(made.tag or "", size, "")


def _structures(session: Session) -> Iterator[drgn.Type]:
    """Yield every structure and union with a name, each once.

    Raises:
        NotInDump: the dump has no types.
    """
    types = session.kernel.debuginfo.types
    if types is None:
        raise NotInDump("types can be listed only where the kernel brings them itself (BTF)",
                        why=session.kernel.debuginfo.missing.get("types", ""))
    for kind, prefix in ((Kind.STRUCT, "struct "), (Kind.UNION, "union ")):
        for name in sorted(types.btf.index.names[kind]):
            try:
                made = session.prog.type(prefix + name)
            except READ_ERRORS:
                continue
            if made.is_complete():
                yield made


def _sizes(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1 << 62
    match = re.fullmatch(r"(\w+)(?:-(\w+))?", text)
    try:
        if match:
            low = int(match[1], 0)
            return low, int(match[2], 0) if match[2] else low
    except ValueError:
        pass
    raise UsageError(f"{text!r} is no size", mend="such as 192 or 64-128")


def _is_function(made: drgn.Type) -> bool:
    """Whether a type is a pointer to a function: its parameters are no members."""
    while made.kind in (drgn.TypeKind.POINTER, drgn.TypeKind.ARRAY, drgn.TypeKind.TYPEDEF):
        made = made.type
    return bool(made.kind == drgn.TypeKind.FUNCTION)


def _has_member(made: drgn.Type, wanted: str, depth: int) -> bool:
    """Whether a structure has a member whose type's name holds a text, in an unnamed or embedded part of it too."""
    if depth > _DEEPEST:
        return False
    for member in made.members or ():
        kind = member.type
        if wanted in kind.type_name() and not _is_function(kind):
            return True
        while kind.kind in (drgn.TypeKind.ARRAY, drgn.TypeKind.TYPEDEF):
            kind = kind.type
        if kind.kind in _COMPOUND and kind.is_complete() and _has_member(kind, wanted, depth + 1):
            return True
    return False


COMMAND = Whatis()
