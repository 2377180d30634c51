"""Structures and values laid out as crash (gdb) shows them.

Source: gdb's "print" with `set print pretty`, and crash's gdb_interface.c, whose output people and scripts know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import drgn

from kdumpy.crash.session import Session

_REPEATS = 10
"""gdb's `print repeats`: a longer run of equal elements is shown once."""
_DEEPEST = 64
_BUDGET = 100_000
"""Values shown in all; an array of arrays of a damaged size ends here."""
_TEXT = 200
"""Bytes of a string that a pointer leads to."""
_COMPOUND = (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION, drgn.TypeKind.CLASS)


class Layout:
    """Lays out values of one session."""

    def __init__(self, session: Session, radix: int | None = None) -> None:
        self.session = session
        self.radix = radix or session.radix
        self._left = _BUDGET

    def value(self, value: drgn.Object, depth: int = 0) -> str:
        """Return a value as text, of several lines for a structure.

        Raises:
            drgn.FaultError: it is not in the dump.
        """
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            return "..."
        made = unaliased(value.type_)
        kind = made.kind
        if kind in _COMPOUND:
            return self._compound(value, made, depth)
        if kind == drgn.TypeKind.ARRAY:
            return self._array(value, made, depth)
        if kind == drgn.TypeKind.POINTER:
            return self._pointer(value, made)
        if kind == drgn.TypeKind.ENUM:
            number = value.value_()
            return next((name for name, known in made.enumerators or () if known == number), self.integer(number))
        if kind == drgn.TypeKind.BOOL:
            return "true" if value.value_() else "false"
        if kind == drgn.TypeKind.FUNCTION:
            return f"{{{made.type_name()}}} {value.address_:#x}"
        if kind == drgn.TypeKind.VOID:
            return "void"
        number = value.value_()
        if kind == drgn.TypeKind.INT and made.size == 1 and "char" in made.name:
            return f"{self.integer(number)} {character(number)}"
        return self.integer(number) if isinstance(number, int) else str(number)

    def integer(self, number: int) -> str:
        """Return a number in the session's radix."""
        return f"{number:#x}" if self.radix == 16 else str(number)

    def members(self, value: drgn.Object, indent: str = "  ") -> str:
        """Return the members of a structure, one a line, between braces."""
        return indented(self.value(value), indent)

    def _compound(self, value: drgn.Object, made: drgn.Type, depth: int) -> str:
        if not made.is_complete():
            return "<incomplete type>"
        lines = []
        for member in made.members or ():
            inner = self._member(value, member, depth + 1).replace("\n", "\n  ")
            lines.append(f"  {member.name} = {inner}" if member.name else f"  {inner}")
        return "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"

    def _member(self, value: drgn.Object, member: drgn.TypeMember, depth: int) -> str:
        try:
            return self.value(value.member_(member.name) if member.name else anonymous(value, member), depth)
        except drgn.FaultError as error:
            return f"<no memory at {error.address:#x}>"

    def _array(self, value: drgn.Object, made: drgn.Type, depth: int) -> str:
        length = made.length or 0
        element = unaliased(made.type)
        if element.kind == drgn.TypeKind.INT and element.size == 1 and "char" in element.name and length:
            data = value.to_bytes_() if value.address_ is None else \
                self.session.prog.read(value.address_, min(length, 4096))
            text, end, _ = data.partition(b"\0")
            return f'"{escape(text)}"' if end or all(byte >= 32 for byte in text) else f'"{escape(data)}"'
        shown: list[str] = []
        run, count = "", 0
        for index in range(min(length, self.session.print_max)):
            text = self.value(value[index], depth + 1)
            if text == run:
                count += 1
                continue
            shown += _run(run, count)
            run, count = text, 1
        shown += _run(run, count)
        return "{" + ", ".join(shown) + ("..." if length > self.session.print_max else "") + "}"

    def _pointer(self, value: drgn.Object, made: drgn.Type) -> str:
        address = value.value_()
        text = f"{address:#x}"
        target = unaliased(made.type)
        if target.kind == drgn.TypeKind.INT and target.size == 1 and "char" in target.name and address:
            try:
                return f'{text} "{escape(self.session.prog.read_c_string(address, max_size=_TEXT))}"'
            except drgn.FaultError:
                return text
        place = self.session.place(address, radix=10)
        return f"{text} <{place}>" if place else text


def _run(text: str, count: int) -> list[str]:
    if not count:
        return []
    return [f"{text} <repeats {count} times>"] if count >= _REPEATS else [text] * count


def unaliased(made: drgn.Type) -> drgn.Type:
    """Return a type without its typedefs."""
    while made.kind == drgn.TypeKind.TYPEDEF:
        made = made.type
    return made


def anonymous(value: drgn.Object, member: drgn.TypeMember) -> drgn.Object:
    """Return the value of a member without a name."""
    if value.address_ is not None:
        return drgn.Object(value.prog_, member.type, address=value.address_ + member.bit_offset // 8)
    return drgn.Object.from_bytes_(value.prog_, member.type, value.to_bytes_(), bit_offset=member.bit_offset)


def character(number: int) -> str:
    """Return a byte as gdb shows it beside its number: 65 'A', 0 '\\000'."""
    return f"'{escape(bytes([number & 0xFF]))}'" if number else r"'\000'"


def escape(data: bytes) -> str:
    """Return bytes as the inside of a C string."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else
                   {34: r"\"", 92: r"\\", 10: r"\n", 9: r"\t", 13: r"\r"}.get(byte, f"\\{byte:03o}") for byte in data)


def indented(text: str, indent: str) -> str:
    """Return text with every line moved to the right."""
    return "\n".join(indent + line for line in text.split("\n"))


def declaration(made: drgn.Type, offsets: bool = False, base: int = 0, radix: int = 10) -> Iterator[str]:
    """Yield the lines of a structure's declaration, with the offset (or address) of each member on demand."""
    places = iter(_places(made))
    for line in str(made).split("\n"):
        text = line.replace("\t", "    ")
        if not offsets:
            yield text
            continue
        stripped = line.strip()
        if re.search(r";$", stripped) and stripped != ";":
            place = next(places, None)
            if place is not None:
                shown = f"[{base + place:x}]" if base else f"[{place:#x}]" if radix == 16 else f"[{place}]"
                yield f"{shown:>{19 if base else 8}} {stripped if base else text.removeprefix('    ')}"
                continue
        yield text if text in ("}", "{") or not line.startswith("\t") else f"{'':{19 if base else 8}} {stripped}"


def _places(made: drgn.Type, base: int = 0) -> Iterator[int]:
    """Yield the byte offset of every member, in the order in which its line stands."""
    for member in made.members or ():
        at = base + member.bit_offset // 8
        inner = member.type
        while inner.kind == drgn.TypeKind.ARRAY:
            inner = inner.type
        if inner.kind in _COMPOUND and inner.tag is None:
            yield from _places(inner, at)
        yield at
