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
_SCALARS = (drgn.TypeKind.INT, drgn.TypeKind.BOOL, drgn.TypeKind.ENUM, drgn.TypeKind.POINTER)
_COMPOUND = (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION, drgn.TypeKind.CLASS)


FORMATS = {"x": "hexadecimal", "d": "decimal", "u": "decimal, without sign", "o": "octal", "t": "binary",
           "z": "hexadecimal with zeros in front", "c": "a character", "a": "an address and its symbol"}
"""gdb's letters behind a `/` (its documentation, "Output Formats"), as far as they are of use here."""


class Layout:
    """Lays out values of one session."""

    def __init__(self, session: Session, radix: int | None = None, letter: str = "") -> None:
        self.session = session
        self.radix = radix or session.radix
        self.letter = letter
        """gdb's format for every number (FORMATS); it goes before the radix."""
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
        if self.letter and kind in _SCALARS:
            return self._formatted(value.value_(), _bits(value))
        if kind == drgn.TypeKind.POINTER:
            return self._pointer(value, made)
        if kind == drgn.TypeKind.ENUM:
            number = value.value_()
            return next((name for name, known in made.enumerators or () if known == number),
                        self.integer(number, _bits(value)))
        if kind == drgn.TypeKind.BOOL:
            return "true" if value.value_() else "false"
        if kind == drgn.TypeKind.FUNCTION:
            return f"{{{made.type_name()}}} {self._address(value.address_ or 0)}"
        if kind == drgn.TypeKind.VOID:
            return "void"
        number = value.value_()
        if _is_character(made):
            text = self.integer(number, _bits(value))
            return text if self.radix == 16 else f"{text} {character(number)}"
        return self.integer(number, _bits(value)) if isinstance(number, int) else str(number)

    def integer(self, number: int, bits: int = 64) -> str:
        """Return a number in the session's radix; one below zero in hexadecimal as its `bits` bits."""
        return f"{number & (1 << bits) - 1 if number < 0 else number:#x}" if self.radix == 16 else str(number)

    def _formatted(self, number: int, bits: int) -> str:
        unsigned = number & (1 << bits) - 1
        match self.letter:
            case "x":
                return f"{unsigned:#x}"
            case "z":
                return f"0x{unsigned:0{(bits + 3) // 4}x}"
            case "o":
                return f"0{unsigned:o}" if unsigned else "0"
            case "t":
                return f"{unsigned:b}"
            case "u":
                return str(unsigned)
            case "a":
                return self._address(unsigned)
            case "c":
                byte = number & 0xFF
                return f"{byte - 256 if number < 0 else byte} {character(byte)}"
        return str(unsigned - (1 << bits) if unsigned >> bits - 1 else unsigned)

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
        length = made.length or (self._room(value) if depth == 0 else 0)
        if not length and value.address_ is not None:       # as gdb does: where it would begin
            return self._pointed(value.address_, made.type)
        if not made.length and value.address_ is not None:
            value = drgn.Object(value.prog_, value.prog_.array_type(made.type, length), address=value.address_)
        if _is_character(made.type) and not self.letter:
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

    def _room(self, value: drgn.Object) -> int:
        """Return how many elements have room up to the next symbol, for a variable whose type leaves that open."""
        symbol = None if value.address_ is None else self.session.symbol(value.address_)
        if symbol is None or symbol.address != value.address_:
            return 0
        return int(symbol.size // drgn.sizeof(value.type_.type))

    def _pointer(self, value: drgn.Object, made: drgn.Type) -> str:
        return self._pointed(value.value_(), made.type)

    def _pointed(self, address: int, target: drgn.Type) -> str:
        if _is_character(target) and address:
            try:
                return f'{address:#x} "{escape(self.session.prog.read_c_string(address, max_size=_TEXT))}"'
            except drgn.FaultError:
                return f"{address:#x}"
        return self._address(address)

    def _address(self, address: int) -> str:
        place = self.session.place(address, radix=10)
        return f"{address:#x} <{place}>" if place else f"{address:#x}"


def _is_character(made: drgn.Type) -> bool:
    made = unaliased(made)
    return bool(made.kind == drgn.TypeKind.INT and made.size == 1 and "char" in made.name)


def _bits(value: drgn.Object) -> int:
    return int(value.bit_field_size_ or 8 * drgn.sizeof(value.type_))


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
