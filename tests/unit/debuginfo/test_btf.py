"""The BTF parser on small blobs made by hand: what it reads, and what it refuses."""

from __future__ import annotations

import struct
from pathlib import Path

import drgn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.debuginfo import cache
from kdumpy.debuginfo.btf import Btf, Kind
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.errors import DamagedDump

PLATFORM = drgn.Platform(drgn.Architecture.X86_64)


class Blob:
    """Writes BTF, record by record."""

    def __init__(self) -> None:
        self.types = b""
        self.strings = b"\0"
        self.next_id = 1

    def name(self, text: str) -> int:
        encoded = text.encode() + b"\0"
        if encoded not in self.strings:
            self.strings += encoded
        return self.strings.index(encoded) if text else 0

    def add(self, name: str, kind: Kind, size_or_type: int, *tail: int, vlen: int = 0, flag: bool = False) -> int:
        info = int(flag) << 31 | kind << 24 | vlen
        self.types += struct.pack(f"<III{len(tail)}I", self.name(name), info, size_or_type, *tail)
        self.next_id += 1
        return self.next_id - 1

    def bytes(self) -> bytes:
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return header + self.types + self.strings


def small() -> Blob:
    blob = Blob()
    number = blob.add("int", Kind.INT, 4, 1 << 24 | 32)
    point = blob.add("point", Kind.STRUCT, 16, blob.name("x"), number, 0, blob.name("y"), number, 32,
                     blob.name("flag"), number, 3 << 24 | 64, vlen=3, flag=True)
    pointer = blob.add("", Kind.PTR, point)
    blob.add("point_p", Kind.TYPEDEF, pointer)
    blob.add("colour", Kind.ENUM, 4, blob.name("RED"), 0, blob.name("BLUE"), 7, vlen=2)
    blob.add("signed", Kind.ENUM, 4, blob.name("MINUS"), 0xFFFFFFFF, vlen=1, flag=True)
    blob.add("wide", Kind.ENUM64, 8, blob.name("HUGE"), 1, 2, vlen=1)
    prototype = blob.add("", Kind.FUNC_PROTO, number, blob.name("p"), pointer, 0, 0, vlen=2)
    blob.add("draw", Kind.FUNC, prototype)
    blob.add("", Kind.ARRAY, 0, point, number, 3)
    return blob


def types(blob: Blob, *, base: Btf | None = None) -> BtfTypes:
    return BtfTypes(drgn.Program(PLATFORM), Btf(blob.bytes(), base=base))


def find(made: BtfTypes, kind: drgn.TypeKind, name: str) -> drgn.Type:
    found = made.find(drgn.TypeKindSet((kind,)), name)
    assert found is not None
    return found


def test_a_struct_has_its_members_and_bit_fields() -> None:
    point = find(types(small()), drgn.TypeKind.STRUCT, "point")
    assert point.size == 16
    assert [(m.name, m.bit_offset, m.bit_field_size) for m in point.members] == [
        ("x", 0, None), ("y", 32, None), ("flag", 64, 3)]


def test_a_pointer_leads_to_the_same_struct() -> None:
    made = types(small())
    assert find(made, drgn.TypeKind.TYPEDEF, "point_p").type.type.type_name() == "struct point"


def test_enumerators_keep_their_sign_and_width() -> None:
    made = types(small())
    values = {name: int(constant.value_()) for name in ("RED", "BLUE", "MINUS", "HUGE")
              if (constant := made.enumerator(name)) is not None}
    assert values == {"RED": 0, "BLUE": 7, "MINUS": -1, "HUGE": 2 << 32 | 1}


def test_a_prototype_is_variadic() -> None:
    draw = types(small()).function("draw")
    assert draw is not None
    assert draw.is_variadic
    assert [p.name for p in draw.parameters] == ["p"]


def test_a_name_may_be_the_tail_of_another_string() -> None:
    blob = Blob()
    blob.strings = b"\0task_struct\0"
    info = Kind.STRUCT << 24
    blob.types = struct.pack("<III", 6, info, 8)        # "struct", inside "task_struct"
    assert Btf(blob.bytes()).index.names[Kind.STRUCT] == {"struct": 1}


def test_split_btf_continues_ids_and_strings_of_its_base() -> None:
    base = Btf(small().bytes())
    split = Blob()
    split.strings = b"\0device\0"                       # its own table, behind the base's
    own = base.strings_size + 1
    body = struct.pack("<III", own, Kind.STRUCT << 24 | 1, 8)
    body += struct.pack("<III", base.data.index(b"x\0") - base._strings, 2, 0)      # member x: struct point
    split.types = body
    btf = Btf(split.bytes(), base=base)
    record = btf.type(base.end_id)
    assert record.name == "device"
    assert [(m.name, btf.type(m.type_id).name) for m in btf.members(record)] == [("x", "point")]


@pytest.mark.parametrize("cut", [0, 10, 23, 24, 60])
def test_a_blob_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(DamagedDump):
        Btf(small().bytes()[:cut])


def test_a_circle_of_typedefs_is_refused() -> None:
    blob = Blob()
    blob.add("a", Kind.TYPEDEF, 2)
    blob.add("b", Kind.TYPEDEF, 1)
    with pytest.raises(DamagedDump, match="circle"):
        find(types(blob), drgn.TypeKind.TYPEDEF, "a")


def test_an_unknown_kind_is_refused_with_its_place() -> None:
    blob = small()
    blob.types += struct.pack("<III", 0, 30 << 24, 0)
    with pytest.raises(DamagedDump, match="type id 11"):
        Btf(blob.bytes())


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_blobs_raise_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(small().bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = BtfTypes(drgn.Program(PLATFORM), Btf(bytes(raw)))
        for type_id in range(1, made.btf.end_id):
            found = made.type(made.btf, type_id)
            if found.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION):
                assert [member.type for member in found.members or ()] is not None
    except DamagedDump:
        pass


def test_the_cache_gives_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_CACHE", str(tmp_path))
    raw = small().bytes()
    first = cache.load_index(raw)
    (entry,) = tmp_path.iterdir()
    assert entry.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(Btf, "_scan", None)             # the second time nothing is scanned
    assert cache.load_index(raw).index == first.index


def test_a_broken_cache_entry_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_CACHE", str(tmp_path))
    raw = small().bytes()
    first = cache.load_index(raw)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:-3] + b"xyz")
    assert cache.load_index(raw).index == first.index
