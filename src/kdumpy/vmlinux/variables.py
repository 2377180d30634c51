"""Global variables with their types: the table of declarations, and BTF's per-CPU variables.

As entries of .debug_info their types are BTF's; what a declaration makes of them (a pointer, an array) is added.
"""

from __future__ import annotations

from typing import NamedTuple

import drgn
import numpy as np
from drgn import FindObjectFlags, Qualifiers, TypeKind

from kdumpy.debuginfo.btf import Kind
from kdumpy.debuginfo.objects import Objects
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.debuginfo.variables import DECLARATIONS
from kdumpy.errors import NotInDump
from kdumpy.vmlinux import shapes
from kdumpy.vmlinux.dwarf import Section, Shape, Strings, leb
from kdumpy.vmlinux.symbols import Symbols
from kdumpy.vmlinux.types import TypeEntries

_KINDS = {
    TypeKind.STRUCT: (Kind.STRUCT,), TypeKind.UNION: (Kind.UNION,), TypeKind.ENUM: (Kind.ENUM, Kind.ENUM64),
    TypeKind.TYPEDEF: (Kind.TYPEDEF,), TypeKind.INT: (Kind.INT,), TypeKind.BOOL: (Kind.INT,),
    TypeKind.FLOAT: (Kind.FLOAT,),
}
_QUALIFIERS = {Qualifiers.CONST: Kind.CONST, Qualifiers.VOLATILE: Kind.VOLATILE}
_ALSO = {"jiffies": "volatile unsigned long"}
"""Declarations of what drgn knows by itself."""
_LONGEST_TABLE = 4096
"""Elements of a constant table, or characters of a string, that are looked at."""
_POINTER_BYTES = 8
_INDEX = "unsigned long"
_GCC_NAMES = {"short": "short int", "unsigned short": "short unsigned int", "long": "long int",
              "unsigned long": "long unsigned int", "long long": "long long int",
              "unsigned long long": "long long unsigned int"}
"""gcc's names of integers, by drgn's, which are also clang's."""
_END = 1
"""Bytes of the mark behind the last child."""


class Variable(NamedTuple):
    """A variable whose type is known."""

    name: str
    address: int
    """Where the kernel was linked to have it."""
    type: drgn.Type | int
    """Its type, or the type's id in BTF."""


class Variables:
    """The variables of a dump whose types are known."""

    def __init__(self, prog: drgn.Program, types: BtfTypes, objects: Objects) -> None:
        self.prog = prog
        self.types = types
        self.objects = objects
        self.found: list[Variable] = []
        self.constants: list[tuple[str, str, int]] = []
        """(name, type, value) of constants that have no symbol."""

    def add_all(self, symbols: Symbols) -> None:
        """Find every variable whose type is known and whose symbol is there."""
        btf = self.types.btf
        wanted = DECLARATIONS.keys() | _ALSO.keys() | btf.index.percpu.keys()
        seen: set[str] = set()
        for number, name in enumerate(symbols.names):
            if name not in wanted or name in seen or symbols.is_code[number]:
                continue
            seen.add(name)
            try:
                if name in btf.index.percpu:
                    made: drgn.Type | int = btf.type(btf.index.percpu[name]).size_or_type
                else:
                    made = self._declared(name, int(symbols.start[number]), int(symbols.size[number]))
            except READ_ERRORS:         # a type that this kernel lacks
                continue
            self.found.append(Variable(name, int(symbols.address[number]), made))

    def _declared(self, name: str, address: int, room: int) -> drgn.Type:
        if name in _ALSO:
            return self.prog.type(_ALSO[name])
        found = self.objects(self.prog, name, FindObjectFlags.VARIABLE, None)
        if found is None:
            raise NotInDump("this kernel declares the variable otherwise", where=name)
        made = found.type_
        if made.kind == TypeKind.ARRAY and made.length is None and made.type.is_complete():
            return self.prog.array_type(made.type, self._length(made.type, address, room))
        return made

    def _length(self, element: drgn.Type, address: int, room: int) -> int:
        """Return how many elements an array of no declared length has: as many as there is room for.

        A constant string ends with its NUL. A constant table of structs (struct trace_print_flags) ends with one
        element of zeros: more are padding. In one of pointers (sys_call_table) all zeros are.
        """
        size = int(drgn.sizeof(element))
        count = room // size
        if not element.qualifiers & Qualifiers.CONST:
            return count
        data = bytes(self.prog.read(address, min(count, _LONGEST_TABLE) * size))
        if size == 1:
            return data.find(b"\0") + 1
        used = -(-len(data.rstrip(b"\0")) // size)
        return min(count, used + 1 if element.kind == TypeKind.STRUCT else used)


class VariableEntries:
    """Where the variables lie in .debug_info, and how they are written there."""

    def __init__(self, variables: Variables, types: TypeEntries, strings: Strings, start: int) -> None:
        """`start` is the place of the first entry."""
        self._variables = variables
        self._types = types
        self._rows: list[tuple[Shape, int, dict[str, int]]] = []
        self._derived: dict[tuple[Kind, int, int], int] = {}
        self.count = 0
        """How many variables have an entry."""
        self.end = start
        """The place behind the last entry."""
        for variable in variables.found:
            try:
                made = self._of_id(variable.type) if isinstance(variable.type, int) else self._place(variable.type)
            except NotInDump:           # a type that only a module has
                continue
            self._put(shapes.VARIABLE, NAME=strings.place(variable.name), TYPE=made, LOCATION=variable.address)
            self.count += 1
        for name, type_name, value in variables.constants:
            made = self._place(variables.prog.type(type_name))
            self._put(shapes.CONSTANT, NAME=strings.place(name), TYPE=made, CONST_VALUE=value)

    def write(self, section: Section) -> None:
        """Put the entries down."""
        for shape, place, columns in self._rows:
            made = {name: leb(np.array([value])) if name == "CONST_VALUE" else [value]
                    for name, value in columns.items()}
            section.put(shape, np.array([place]), **made)

    def _put(self, shape: Shape, **columns: int) -> int:
        place = self.end
        self._rows.append((shape, place, columns))
        self.end += shape.size
        return place

    def _of_id(self, type_id: int) -> int:
        return int(self._types.places(np.array([type_id]))[0])

    def _place(self, made: drgn.Type) -> int:
        """Return the place of a type, after adding what BTF does not have; 0 for void."""
        for qualifier, kind in _QUALIFIERS.items():
            if made.qualifiers & qualifier:
                return self._derive(kind, self._place(made.qualified(made.qualifiers & ~qualifier)))
        if made.kind == TypeKind.VOID:
            return 0
        if made.kind == TypeKind.POINTER:
            return self._derive(Kind.PTR, self._place(made.type))
        if made.kind == TypeKind.ARRAY:
            return self._array(self._place(made.type), made.length or 0)
        return self._of_id(self._id(made))

    def _id(self, made: drgn.Type) -> int:
        """Return the type id of a type that the kernel's BTF has."""
        name = getattr(made, "tag", None) or getattr(made, "name", None)
        if name is None and made.kind == TypeKind.STRUCT:
            found = self._variables.objects.anonymous_id(tuple(member.name or "" for member in made.members or ()))
            if found is not None:
                return found
        elif name is not None:
            for kind in _KINDS.get(made.kind, ()):
                names = self._variables.types.btf.index.names[int(kind)]
                for spelling in (name, _GCC_NAMES.get(name, name)):
                    if spelling in names:
                        return names[spelling]
        raise NotInDump("the kernel's BTF has no such type", where=str(made))

    def _derive(self, kind: Kind, inner: int) -> int:
        """Return the place of a pointer to a type, or of a type with a qualifier."""
        key = (kind, inner, 0)
        if key not in self._derived:
            shape = shapes.POINTER if kind == Kind.PTR else shapes.QUALIFIERS[kind]
            columns = {"BYTE_SIZE": _POINTER_BYTES} if kind == Kind.PTR else {}
            self._derived[key] = self._put(shapes.typed(shape), TYPE=inner, **columns) if inner else \
                self._put(shape, **columns)
        return self._derived[key]

    def _array(self, inner: int, length: int) -> int:
        key = (Kind.ARRAY, inner, length)
        if key not in self._derived:
            index = self._place(self._variables.prog.type(_INDEX))
            self._derived[key] = self._put(shapes.ARRAY, TYPE=inner)
            if length:
                self._put(shapes.BOUNDED, TYPE=index, COUNT=length)
            else:
                self._put(shapes.UNBOUNDED, TYPE=index)
            self.end += _END
        return self._derived[key]
