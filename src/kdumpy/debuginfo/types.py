"""drgn types made out of BTF, each when it is first asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import drgn
from drgn import Qualifiers, TypeEnumerator, TypeKind, TypeMember, TypeParameter

from kdumpy.debuginfo.btf import Btf, BtfMember, BtfType, Kind
from kdumpy.errors import DamagedDump

_DEEPEST = 64
"""Types nest less than this in any real kernel; a longer chain is a loop in damaged BTF."""

_KINDS = {
    TypeKind.STRUCT: (Kind.STRUCT,),
    TypeKind.UNION: (Kind.UNION,),
    TypeKind.ENUM: (Kind.ENUM, Kind.ENUM64),
    TypeKind.TYPEDEF: (Kind.TYPEDEF,),
    TypeKind.INT: (Kind.INT,),
    TypeKind.BOOL: (Kind.INT,),
    TypeKind.FLOAT: (Kind.FLOAT,),
}
_QUALIFIERS: dict[int, Qualifiers] = {Kind.CONST: Qualifiers.CONST, Kind.VOLATILE: Qualifiers.VOLATILE,
                                      Kind.RESTRICT: Qualifiers.RESTRICT}
_TRANSPARENT = (Kind.TYPE_TAG, Kind.DECL_TAG)
_INT_SIGNED, _INT_BOOL = 1, 4
_UNSIGNED_NAMES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long"}
_SIGNED_NAMES = {1: "signed char", 2: "short", 4: "int", 8: "long"}


@contextlib.contextmanager
def _as_damage(type_id: int) -> Iterator[None]:
    """What drgn refuses to make a type of comes from a damaged dump."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise DamagedDump("BTF describes an impossible type", where=f"type id {type_id}", why=str(error)) from error


class BtfTypes:
    """The types of one kernel: its own BTF and, once they are added, its modules'.

    A name is looked up in the kernel's BTF first. Types are made once and kept.
    """

    def __init__(self, prog: drgn.Program, btf: Btf) -> None:
        self.prog = prog
        self.btf = btf
        self.modules: dict[str, Btf] = {}
        """Split BTF by module name."""
        self.read_modules: Callable[[], bool] = lambda: False
        """Reads the modules' BTF, once, which is put off until it is needed; tells whether there is any."""
        self._made: dict[tuple[Btf, int], drgn.Type] = {}

    def _blobs(self) -> Iterator[Btf]:
        yield self.btf
        yield from self.modules.values()

    def find_id(self, kinds: tuple[Kind, ...], name: str) -> tuple[Btf, int] | None:
        """Return the blob and type id of the first type of a name, or None."""
        for blob in self._blobs():
            for kind in kinds:
                type_id = blob.index.names[int(kind)].get(name)
                if type_id is not None:
                    return blob, type_id
        return None

    def find(self, kinds: drgn.TypeKindSet, name: str) -> drgn.Type | None:
        """Return the type of a name among `kinds`, or None when BTF has none."""
        for kind in kinds:
            found = self.find_id(_KINDS.get(kind, ()), name)
            if found is None:
                continue
            made = self.type(*found)
            if made.kind == kind:           # INT holds the booleans too
                return made
        return None

    def percpu(self, name: str) -> drgn.Type | None:
        """Return the type of a per-CPU variable, or None when BTF does not know it."""
        for blob in self._blobs():
            type_id = blob.index.percpu.get(name)
            if type_id is not None:
                return self.type(blob, blob.type(type_id).size_or_type)
        return None

    def function(self, name: str) -> drgn.Type | None:
        """Return the prototype of a function, or None when BTF does not know it."""
        for blob in self._blobs():
            type_id = blob.function(name)
            if type_id is not None:
                return self.type(blob, blob.type(type_id).size_or_type)
        return None

    def enumerator(self, name: str) -> drgn.Object | None:
        """Return the constant of a name, or None when no enum has it."""
        for blob in self._blobs():
            type_id = blob.index.enumerators.get(name)
            if type_id is not None:
                made = self.type(blob, type_id)
                for item_name, value in blob.enumerator_values(blob.type(type_id)):
                    if item_name == name:
                        return drgn.Object(self.prog, made, value=value)
        return None

    def type(self, blob: Btf, type_id: int, depth: int = 0) -> drgn.Type:
        """Return the drgn type of a type id of `blob`.

        Raises:
            DamagedDump: the BTF breaks its own rules.
        """
        if type_id == 0:
            return self.prog.void_type()
        if blob.base and type_id < blob.first_id:
            blob = blob.base
        key = (blob, type_id)
        made = self._made.get(key)
        if made is None:
            if depth > _DEEPEST:
                raise DamagedDump("BTF's types go in a circle", where=f"type id {type_id}")
            with _as_damage(type_id):
                made = self._made[key] = self._make(blob, blob.type(type_id), depth + 1)
        return made

    def _make(self, blob: Btf, record: BtfType, depth: int) -> drgn.Type:
        prog, kind, target = self.prog, record.kind, record.size_or_type
        if kind in (Kind.STRUCT, Kind.UNION):
            make = prog.struct_type if kind == Kind.STRUCT else prog.union_type
            return make(record.name or None, target,
                        [self._member(blob, member) for member in blob.members(record)])
        if kind == Kind.PTR:
            return prog.pointer_type(self.type(blob, target, depth))
        if kind == Kind.TYPEDEF:
            return prog.typedef_type(record.name, self.type(blob, target, depth))
        if kind in _QUALIFIERS:
            inner = self.type(blob, target, depth)
            return inner.qualified(inner.qualifiers | _QUALIFIERS[kind])
        if kind == Kind.INT:
            return self._integer(blob, record)
        if kind == Kind.ARRAY:
            element, count = blob.array_of(record)
            # BTF tells [] and [0] not apart; both have no elements to read.
            return prog.array_type(self.type(blob, element, depth), count or None)
        if kind in (Kind.ENUM, Kind.ENUM64):
            return self._enum(blob, record)
        if kind == Kind.FWD:
            return self._forward(blob, record)
        if kind == Kind.FUNC_PROTO:
            return self._prototype(blob, record, depth)
        if kind in _TRANSPARENT or kind in (Kind.FUNC, Kind.VAR):
            return self.type(blob, target, depth)
        if kind == Kind.FLOAT:
            return prog.float_type(record.name, target)
        if kind > max(Kind):        # newer than kdumpy: an incomplete type stands for it
            return prog.struct_type(record.name or f"BTF kind {kind}")
        raise DamagedDump("BTF uses a record as a type that is none", where=f"type id {record.id}",
                          why=Kind(kind).name)

    def _integer(self, blob: Btf, record: BtfType) -> drgn.Type:
        encoding, _, bits = blob.integer(record)
        size = record.size_or_type
        if not 0 < size <= 16 or bits > size * 8:
            raise DamagedDump("BTF holds an integer of an impossible size", where=f"type id {record.id}",
                              why=f"{size} bytes, {bits} bits")
        if encoding & _INT_BOOL:
            return self.prog.bool_type(record.name, size)
        return self.prog.int_type(record.name, size, bool(encoding & _INT_SIGNED))

    def _enum(self, blob: Btf, record: BtfType) -> drgn.Type:
        values = list(blob.enumerator_values(record))
        if not record.vlen:
            return self.prog.enum_type(record.name or None)
        signed, size = any(value < 0 for _, value in values), record.size_or_type
        names = _SIGNED_NAMES if signed else _UNSIGNED_NAMES
        if size not in names:
            raise DamagedDump("BTF holds an enum of an impossible size", where=f"type id {record.id}",
                              why=f"{size} bytes")
        compatible = self.prog.int_type(names[size], size, signed)
        return self.prog.enum_type(record.name or None, compatible,
                                   [TypeEnumerator(name, value) for name, value in values])

    def _forward(self, blob: Btf, record: BtfType) -> drgn.Type:
        """Return the type that a forward declaration of `blob` announces, or an incomplete one.

        Its own blob and the kernel's know best. Modules have private structs of equal names, so
        that another module's is taken only where no second one has it.
        """
        kind = int(Kind.UNION if record.flag else Kind.STRUCT)
        own = [blob, blob.base or blob]
        for owner in own:
            if record.name in owner.index.names[kind]:
                return self.type(owner, owner.index.names[kind][record.name])
        others = [owner for owner in self._blobs() if owner not in own and record.name in owner.index.names[kind]]
        if len(others) == 1:
            return self.type(others[0], others[0].index.names[kind][record.name])
        return self.prog.union_type(record.name) if record.flag else self.prog.struct_type(record.name)

    def _prototype(self, blob: Btf, record: BtfType, depth: int) -> drgn.Type:
        parameters = list(blob.parameters(record))
        variadic = bool(parameters) and parameters[-1][1] == 0
        if variadic:
            parameters.pop()
        return self.prog.function_type(
            self.type(blob, record.size_or_type, depth),
            [TypeParameter(self._later(blob, type_id), name or None) for name, type_id in parameters],
            variadic)

    def _later(self, blob: Btf, type_id: int) -> Callable[[], drgn.Type]:
        return lambda: self.type(blob, type_id)

    def _member(self, blob: Btf, member: BtfMember) -> TypeMember:
        def field() -> drgn.Object | drgn.Type:
            made = self.type(blob, member.type_id)
            bits = member.bit_size or self._legacy_bits(blob, member.type_id)
            with _as_damage(member.type_id):
                return drgn.Object(self.prog, made, bit_field_size=bits) if bits else made

        return TypeMember(field, member.name or None, member.bit_offset)

    @staticmethod
    def _legacy_bits(blob: Btf, type_id: int) -> int:
        """Return the width of a bit-field that is encoded in its integer type, 0 for a plain integer.

        So it is without kind_flag (before Linux 5.0: 9d5f9f701b18 "bpf: btf: fix struct/union/fwd
        types with kind_flag"). A plain integer fills its bytes.
        """
        if not type_id:
            return 0
        record = blob.type(type_id)
        if record.kind != Kind.INT:
            return 0
        bits = blob.integer(record)[2]
        return 0 if bits == record.size_or_type * 8 else bits
