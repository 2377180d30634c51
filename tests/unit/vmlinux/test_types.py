"""Types of BTF blobs made by hand, as drgn finds them in the DWARF that is made of them."""

from __future__ import annotations

import random
from pathlib import Path

import drgn
import pytest

from btfblob import Blob
from kdumpy.debuginfo.btf import Btf, Kind
from kdumpy.errors import KdumpyError
from typesfile import BASE, describe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vmlinux"


def kernel() -> Blob:
    blob = Blob()
    number = blob.add("int", Kind.INT, 4, 1 << 24 | 32)
    character = blob.add("char", Kind.INT, 1, 1 << 24 | 8)
    blob.add("unsigned char", Kind.INT, 1, 8)
    blob.add("_Bool", Kind.INT, 1, 4 << 24 | 8)
    inner = blob.add("", Kind.UNION, 4, blob.name("a"), number, 0, blob.name("b"), number, 0, vlen=2)
    empty = blob.add("", Kind.ARRAY, 0, character, number, 0)
    three = blob.add("", Kind.ARRAY, 0, number, number, 3)
    tagged = blob.add("__rcu", Kind.TYPE_TAG, number)
    pointer = blob.add("", Kind.PTR, tagged)
    void_pointer = blob.add("", Kind.PTR, 0)
    const = blob.add("", Kind.CONST, pointer)
    volatile = blob.add("", Kind.VOLATILE, const)
    forward = blob.add("secret", Kind.FWD, 0)
    blob.add("opaque", Kind.FWD, 0, flag=True)
    blob.add("many", Kind.STRUCT, 64,
             blob.name("low"), number, 3 << 24 | 0, blob.name("high"), number, 5 << 24 | 3,
             blob.name("offset"), empty, 8, 0, inner, 32, blob.name("row"), three, 64,
             blob.name("next"), volatile, 192, blob.name("any"), void_pointer, 256,
             blob.name("secret"), blob.add("", Kind.PTR, forward), 320, blob.name("tail"), empty, 512,
             vlen=9, flag=True)
    return blob


def test_a_struct_has_its_members(path: Path) -> None:
    blob = kernel()
    prog, debug = describe(path, blob.bytes())
    assert str(prog.type("struct many")).splitlines() == [
        "struct many {", "\tint low : 3;", "\tint high : 5;", "\tchar offset[0];", "\tunion {", "\t\tint a;",
        "\t\tint b;", "\t};", "\tint row[3];", "\tint * const volatile next;", "\tvoid *any;",
        "\tstruct secret *secret;", "\tchar tail[];", "}"]
    made = prog.type("struct many")
    assert made.size == 64
    assert [member.bit_offset for member in made.members] == [0, 3, 8, 32, 64, 192, 256, 320, 512]
    assert not made.member("secret").type.type.is_complete()
    assert debug.types == sum(1 for _ in range(1, Btf(blob.bytes()).end_id)) - 1    # the tag has no entry


def test_base_types_have_their_encodings(path: Path) -> None:
    prog, _ = describe(path, kernel().bytes())
    assert prog.type("_Bool").kind == drgn.TypeKind.BOOL
    assert prog.type("char").is_signed
    assert not prog.type("unsigned char").is_signed


@pytest.mark.parametrize(("kind", "size", "flag", "words", "value"), [
    (Kind.ENUM, 4, False, (7,), 7), (Kind.ENUM, 4, True, (0xFFFFFFEA,), -22),
    (Kind.ENUM, 4, False, (0xFFFFFFEA,), 0xFFFFFFEA), (Kind.ENUM64, 8, False, (1, 2), 0x200000001),
    (Kind.ENUM64, 8, True, (0, 0xFFFFFFFF), -(1 << 32)), (Kind.ENUM64, 8, False, (0, 1 << 31), 1 << 63),
])
def test_enumerators_have_their_values_and_signs(path: Path, kind: Kind, size: int, flag: bool,
                                                 words: tuple[int, ...], value: int) -> None:
    blob = kernel()
    blob.add("kinds", kind, size, blob.name("FIRST"), *words, vlen=1, flag=flag)
    blob.add("other", Kind.ENUM64, 8, blob.name("SIGNS"), 0, 0, vlen=1)     # a kernel that tells signed from unsigned
    prog, _ = describe(path, blob.bytes())
    assert prog.constant("FIRST").value_() == value
    assert drgn.sizeof(prog.type("enum kinds")) == size


def test_functions_have_prototypes_where_one_has_the_name(path: Path) -> None:
    blob = kernel()
    prototype = blob.add("", Kind.FUNC_PROTO, 1, blob.name("count"), 1, 0, 0, vlen=2)
    quiet = blob.add("", Kind.FUNC_PROTO, 0)
    for name, made in (("printk", prototype), ("nop", quiet), ("nowhere", quiet)):
        blob.add(name, Kind.FUNC, made)
    blob.add("wrong", Kind.FUNC, 1)                                         # no prototype
    prog, debug = describe(path, blob.bytes(), symbols={"printk": BASE + 16, "nop": BASE + 32, "wrong": BASE + 48})
    assert debug.functions.count == 2
    assert prog.function("printk").type_.type_name() == "int (int count, ...)"
    assert prog.function("printk").address_ == BASE + 16
    assert prog.function("nop").type_.type_name() == "void (void)"
    with pytest.raises(LookupError):
        prog.function("nowhere")


def test_a_module_s_types_refer_to_the_kernel_s_and_hide_none(path: Path) -> None:
    base = kernel()
    base.add("shape", Kind.STRUCT, 8, base.name("x"), 1, 0, vlen=1)
    base.add("colour", Kind.ENUM, 4, base.name("RED"), 0, vlen=1)
    base.add("number_t", Kind.TYPEDEF, 1)
    known = Btf(base.bytes())
    module = Blob(known)
    same = module.add("shape", Kind.STRUCT, 8, module.name("x"), 1, 0, vlen=1)
    module.add("private", Kind.STRUCT, 16, module.name("shape"), same, 0, module.name("many"),
               known.index.names[Kind.STRUCT]["many"], 64, vlen=2)
    module.add("colour", Kind.ENUM, 4, module.name("RED"), 5, vlen=1)
    module.add("number_t", Kind.TYPEDEF, 1)
    module.add("late", Kind.STRUCT, 4, module.name("x"), 1, 0, vlen=1)
    other = Blob(known)
    other.add("late", Kind.STRUCT, 8, other.name("y"), 1, 0, vlen=1)
    prog, debug = describe(path, base.bytes(), {"one": module.bytes(), "two-2": other.bytes()})
    assert debug.left_out == {}
    assert debug.renamed == {"one": ["colour"], "two-2": ["late"]}
    assert debug.modules == {"one": 3, "two-2": 1}              # struct shape and number_t are the kernel's
    assert [member.type.type_name() for member in prog.type("struct private").members] == ["struct shape",
                                                                                          "struct many"]
    assert prog.constant("RED").value_() == 0
    assert prog.constant("RED__one").value_() == 5
    assert prog.type("struct late").size == 4
    assert prog.type("struct late__two_2").size == 8


def test_a_module_s_broken_types_are_left_out_and_told(path: Path) -> None:
    base = kernel()
    known = Btf(base.bytes())
    bad, good = Blob(known), Blob(known)
    bad.add("loop", Kind.TYPEDEF, known.end_id + 99)
    good.add("fine", Kind.STRUCT, 4, good.name("x"), 1, 0, vlen=1)
    prog, debug = describe(path, base.bytes(), {"bad": bad.bytes(), "good": good.bytes()})
    assert "does not have" in debug.left_out["bad"]
    assert debug.modules == {"good": 1}
    assert prog.type("struct fine").members[0].name == "x"


def test_tags_in_a_circle_are_damage(path: Path) -> None:
    blob = kernel()
    blob.add("a", Kind.TYPE_TAG, blob.next_id + 1)
    blob.add("b", Kind.TYPE_TAG, blob.next_id - 1)
    with pytest.raises(KdumpyError, match="circle"):
        describe(path, blob.bytes())


def test_damaged_btf_is_told_or_written_never_a_crash(path: Path) -> None:
    """300 blobs with a few wrong words: each is refused in our words, or drgn can read what was made."""
    whole = kernel().bytes()
    chance = random.Random(7)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(24, len(data))
            data[at] = chance.choice((0, 0xFF, chance.randrange(256)))
        try:
            describe(path, bytes(data))
        except KdumpyError:
            refused += 1
    assert 20 < refused < 280
