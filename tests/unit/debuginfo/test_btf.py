"""The BTF parser on small blobs made by hand: what it reads, and what it refuses."""

from __future__ import annotations

import struct

import drgn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btfblob import Blob
from kdumpy.debuginfo.btf import Btf, Kind
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.errors import DamagedDump, NotInDump

PLATFORM = drgn.Platform(drgn.Architecture.X86_64)


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
    assert values(made, "RED", "BLUE", "MINUS", "HUGE") == {"RED": 0, "BLUE": 7, "MINUS": -1, "HUGE": 2 << 32 | 1}


def values(made: BtfTypes, *names: str) -> dict[str, int | None]:
    return {name: constant.value_() if (constant := made.enumerator(name)) is not None else None for name in names}


def test_without_signs_only_small_negative_numbers_are_negative() -> None:
    blob = Blob()
    blob.add("errors", Kind.ENUM, 4, blob.name("OK"), 0, blob.name("EINVAL"), 0x1_0000_0000 - 22, vlen=2)
    blob.add("inodes", Kind.ENUM, 4, blob.name("ROOT"), 1, blob.name("IPC"), 0xEFFFFFFF,
             blob.name("LAST"), 0xFFFFFFFF, vlen=3)
    blob.add("priorities", Kind.ENUM, 4, blob.name("FIRST"), 1 << 31, blob.name("EARLY"), 0x1_0000_0000 - 400, vlen=2)
    blob.add("flags", Kind.ENUM, 4, blob.name("BUSY"), 1 << 31, vlen=1)
    blob.add("reasons", Kind.ENUM, 4, blob.name("SUBSYSTEM"), 0xFFFF0000, vlen=1)
    made = types(blob)
    assert values(made, "OK", "EINVAL", "ROOT", "IPC", "LAST") == {
        "OK": 0, "EINVAL": -22, "ROOT": 1, "IPC": 0xEFFFFFFF, "LAST": 0xFFFFFFFF}
    assert values(made, "FIRST", "EARLY") == {"FIRST": -1 << 31, "EARLY": -400}
    assert values(made, "BUSY", "SUBSYSTEM") == {"BUSY": 1 << 31, "SUBSYSTEM": 0xFFFF0000}


def test_a_blob_with_enum64_is_new_enough_to_know_signs() -> None:
    blob = Blob()
    blob.add("wide", Kind.ENUM64, 8, blob.name("TOP"), 0, 1 << 31, vlen=1)
    blob.add("plain", Kind.ENUM, 4, blob.name("ALL"), 0xFFFFFFFF, vlen=1)
    assert values(types(blob), "TOP", "ALL") == {"TOP": 1 << 63, "ALL": 0xFFFFFFFF}


def test_an_enum_that_was_truncated_has_no_enumerators() -> None:
    blob = Blob()
    wide = blob.add("wide", Kind.ENUM, 8, blob.name("CUT"), 0, blob.name("LOW"), 0xFFFFFFFF, vlen=2)
    made = types(blob)
    assert values(made, "CUT", "LOW") == {"CUT": None, "LOW": None}
    enum = made.type(made.btf, wide)
    assert (drgn.sizeof(enum), list(enum.enumerators or ())) == (8, [])


def test_split_btf_knows_of_signs_what_its_base_knows() -> None:
    base = Btf(small().bytes())                         # its enum `signed` says so
    split = Blob(base)
    split.add("unsigned", Kind.ENUM, 4, split.name("ALL"), 0xFFFFFFFF, vlen=1)
    made = BtfTypes(drgn.Program(PLATFORM), base)
    made.modules["split"] = Btf(split.bytes(), base=base)
    assert values(made, "ALL", "MINUS") == {"ALL": 0xFFFFFFFF, "MINUS": -1}


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


def test_a_function_is_found_by_its_name_as_in_the_table_of_all() -> None:
    blob = small()
    prototype = blob.add("", Kind.FUNC_PROTO, 0)
    blob.add("redraw", Kind.FUNC, prototype)
    blob.add("raw", Kind.FUNC, prototype)               # a tail of "redraw", and of "draw"
    blob.add("draw", Kind.FUNC, prototype)              # again: the first stays
    blob.add("point_of", Kind.TYPEDEF, prototype)       # a name, and no function's
    btf = Btf(blob.bytes())
    assert len(btf.functions) == 3
    assert {name: btf.function(name) for name in btf.functions} == btf.functions
    assert [btf.function(name) for name in ("", "aw", "point_of", "redraws")] == [None] * 4
    module = Blob(btf)
    own = module.add("shade", Kind.FUNC, prototype)
    split = Btf(module.bytes(), base=btf)
    assert (split.function("shade"), split.function("redraw")) == (own, None)


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


def modules_with(*privates: bool) -> BtfTypes:
    """A kernel that points to `struct private`, and a module each, with such a struct or with a pointer to it."""
    kernel = Blob()
    kernel.add("kernel_p", Kind.TYPEDEF, kernel.add("", Kind.PTR, kernel.add("private", Kind.FWD, 0)))
    made = types(kernel)
    for number, private in enumerate(privates, 1):
        module = Blob(made.btf)
        if private:
            module.add("private", Kind.STRUCT, number)
        else:
            module.add("module_p", Kind.TYPEDEF, module.add("", Kind.PTR, module.add("private", Kind.FWD, 0)))
        made.modules[f"m{number}"] = Btf(module.bytes(), base=made.btf)
    return made


def test_a_forward_declaration_means_the_struct_of_the_only_module_that_has_it() -> None:
    made = modules_with(False, True, False)
    for name in ("kernel_p", "module_p"):
        assert find(made, drgn.TypeKind.TYPEDEF, name).type.type.size == 2


def test_a_forward_declaration_is_not_guessed_among_modules() -> None:
    made = modules_with(True, True, False)
    for name in ("kernel_p", "module_p"):
        assert not find(made, drgn.TypeKind.TYPEDEF, name).type.type.is_complete()


def test_a_forward_declaration_means_the_struct_of_its_own_blob_first() -> None:
    made = modules_with(True, True)
    module = Blob(made.btf)
    module.add("own_p", Kind.TYPEDEF, module.add("", Kind.PTR, module.add("private", Kind.FWD, 0)))
    module.add("private", Kind.STRUCT, 77)
    made.modules["own"] = Btf(module.bytes(), base=made.btf)
    assert find(made, drgn.TypeKind.TYPEDEF, "own_p").type.type.size == 77


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


def test_a_record_of_kind_0_is_refused_with_its_place() -> None:
    blob = small()
    blob.add("", 0, 0)
    with pytest.raises(DamagedDump, match="type id 11"):
        Btf(blob.bytes())


@pytest.mark.parametrize("kind", [20, 31, 32, 127])
def test_a_newer_kind_is_told_apart_from_damage(kind: int) -> None:
    blob = small()
    blob.add("", kind, 0)
    with pytest.raises(NotInDump, match=r"type id 11.*newer") as caught:
        Btf(blob.bytes())
    assert f"kind {kind}" in caught.value.why


def with_newer_kind() -> Blob:
    """Kind 99 has 4 bytes behind the record and 8 for each item."""
    blob = small()
    blob.layout = dict.fromkeys(range(100), (0, 0))
    blob.layout[99] = (4, 8)
    newer = blob.add("newer", 99, 0, 1, 2, 3, 4, 5, vlen=2)
    pointer = blob.add("", Kind.PTR, newer)
    blob.add("after", Kind.TYPEDEF, pointer)
    return blob


def test_the_layout_section_leads_past_a_newer_kind() -> None:
    made = types(with_newer_kind())
    after = find(made, drgn.TypeKind.TYPEDEF, "after")
    assert not after.type.type.is_complete()
    assert find(made, drgn.TypeKind.STRUCT, "point").size == 16     # known kinds have the sizes that are known


def test_split_btf_without_a_layout_section_has_its_base_s() -> None:
    base = Btf(with_newer_kind().bytes())
    split = Blob(base)
    split.add("newest", 99, 0, 1, vlen=0)
    own = split.add("own", Kind.STRUCT, 4)
    assert Btf(split.bytes(), base=base).index.names[Kind.STRUCT] == {"own": own}


def test_a_layout_section_outside_of_the_blob_is_refused() -> None:
    raw = bytearray(with_newer_kind().bytes())
    struct.pack_into("<I", raw, 28, len(raw))
    with pytest.raises(DamagedDump, match="cut short"):
        Btf(bytes(raw))


def test_a_struct_may_have_more_than_65535_members() -> None:
    count = 70_000
    blob = Blob()
    number = blob.add("int", Kind.INT, 4, 1 << 24 | 32)
    member = (blob.name("m"), number, 0)
    many = blob.add("many", Kind.STRUCT, 4 * count, *member * count, vlen=count)
    btf = Btf(blob.bytes())
    assert btf.type(many).vlen == count
    assert sum(1 for _ in btf.members(btf.type(many))) == count


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
                assert all(member.type for member in found.members or ())
    except (DamagedDump, NotInDump):
        pass
