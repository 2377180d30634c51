"""Values laid out as crash shows them; on types made for the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import drgn
import pytest

from kdumpy.crash.expression import evaluate
from kdumpy.crash.layout import Layout, declaration, escape
from kdumpy.crash.session import Session
from kdumpy.errors import KdumpyError, NotInDump, UsageError


@pytest.fixture
def prog() -> drgn.Program:
    made = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    memory = bytearray(256)
    memory[0:8] = (0x1010).to_bytes(8, "little")
    memory[8:12] = (-7 & 0xFFFFFFFF).to_bytes(4, "little")
    memory[16:24] = b"init\0\0\0\0"
    memory[24:28] = b"\1\0\0\0"
    made.add_memory_segment(0x1000, len(memory), lambda address, count, offset, physical:
                            bytes(memory[offset:offset + count]))

    def find(prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, file: str | None) -> drgn.Type | None:
        return _pair(prog) if name == "pair" else None

    made.register_type_finder("test", find, enable_index=0)

    def find_object(prog: drgn.Program, name: str, flags: drgn.FindObjectFlags,
                    file: str | None) -> drgn.Object | None:
        return drgn.Object(prog, _pair(prog), address=0x1000) if name == "first" else None

    made.register_object_finder("test", find_object, enable_index=0)
    return made


def _pair(prog: drgn.Program) -> drgn.Type:
    integer, char = prog.int_type("int", 4, True), prog.int_type("char", 1, True)
    color = prog.enum_type("color", prog.int_type("unsigned int", 4, False),
                           [drgn.TypeEnumerator("RED", 0), drgn.TypeEnumerator("BLUE", 1)])
    return prog.struct_type("pair", 32, [
        drgn.TypeMember(prog.pointer_type(char), "text", 0), drgn.TypeMember(integer, "number", 64),
        drgn.TypeMember(prog.array_type(char, 8), "name", 128), drgn.TypeMember(color, "color", 192)])


@pytest.fixture
def session(prog: drgn.Program) -> Session:
    made = SimpleNamespace(print_max=200, prog=prog, radix=10, symbol=lambda address: None,
                           place=lambda address, radix=None: "", values=[])
    made.value = lambda name: Session.value(cast(Session, made), name)
    return cast(Session, made)


def test_a_structure_is_laid_out_as_gdb_does(session: Session) -> None:
    value = drgn.Object(session.prog, "struct pair", address=0x1000)
    assert Layout(session).value(value) == (
        '{\n  text = 0x1010 "init",\n  number = -7,\n  name = "init",\n  color = BLUE\n}')
    assert "number = 0xfffffff9" in Layout(session, 16).value(value)


@pytest.mark.parametrize(("letter", "text", "expected"), [
    ("x", "first.number", "0xfffffff9"), ("d", "first.number", "-7"), ("u", "first.number", "4294967289"),
    ("o", "8", "010"), ("t", "10", "1010"), ("z", "(short)5", "0x0005"), ("c", "65", "65 'A'"),
    ("c", "-1", r"-1 '\377'"),
    ("x", "first.color", "0x1"), ("x", "first.text", "0x1010"), ("d", "(unsigned char)255", "-1"),
    ("x", "first.name", "{0x69, 0x6e, 0x69, 0x74, 0x0, 0x0, 0x0, 0x0}"), ("a", "4096", "0x1000")])
def test_a_format_of_gdb_goes_for_every_number(session: Session, letter: str, text: str, expected: str) -> None:
    assert Layout(session, letter=letter).value(evaluate(session, text)) == expected


def test_a_character_below_zero_and_one_in_hexadecimal(session: Session) -> None:
    assert Layout(session).value(evaluate(session, "(char)-1")) == r"-1 '\377'"
    assert Layout(session, 16).value(evaluate(session, "(char)-1")) == "0xff"


def test_an_array_without_a_length_is_shown_as_where_it_begins(session: Session) -> None:
    integer, char = session.prog.int_type("int", 4, True), session.prog.int_type("char", 1, True)
    for element, text in ((integer, "0x1010"), (char, '0x1010 "init"')):
        for length in (None, 0):
            made = session.prog.array_type(element, length) if length is not None else session.prog.array_type(element)
            assert Layout(session).value(drgn.Object(session.prog, made, address=0x1010)) == text


def test_values_that_were_shown_have_the_names_of_gdb(session: Session) -> None:
    session.values.extend(evaluate(session, text) for text in ("first", "2", "3"))
    for text, expected in (("$1.number", -7), ("$", 3), ("$$", 2), ("$$1", 2), ("$3 + $$2.number", -4)):
        assert evaluate(session, text).value_() == expected
    for text in ("$4", "$$3", "$0", "$999999999"):
        with pytest.raises(NotInDump):
            evaluate(session, text)


def test_several_of_a_kind_are_an_array(session: Session) -> None:
    assert Layout(session).value(evaluate(session, "*first.text@4")) == '"init"'
    assert Layout(session).value(evaluate(session, "first.number@1+1")) == "{-7, 0}"


def test_a_member_that_is_not_in_the_dump_does_not_hide_the_others(session: Session) -> None:
    value = drgn.Object(session.prog, "struct pair", address=0x10F0)
    text = Layout(session).value(value)
    assert "text = 0x0" in text
    assert "name = <no memory at" in text


def test_runs_of_equal_elements_are_shown_once(session: Session) -> None:
    made = session.prog.array_type(session.prog.int_type("int", 4, True), 12)
    assert Layout(session).value(drgn.Object(session.prog, made, [5] * 11 + [6])) == "{5 <repeats 11 times>, 6}"


def test_a_long_array_ends(session: Session) -> None:
    made = session.prog.array_type(session.prog.int_type("int", 4, True), 1000)
    assert Layout(session).value(drgn.Object(session.prog, made, list(range(1000)))).endswith("199...}")


def test_a_declaration_has_offsets(session: Session) -> None:
    lines = list(declaration(session.prog.type("struct pair"), offsets=True))
    assert lines == ["struct pair {", "     [0] char *text;", "     [8] int number;", "    [16] char name[8];",
                     "    [24] enum color color;", "}"]


def test_control_characters_are_escaped() -> None:
    assert escape(b'a\x1b"\n') == r'a\033\"\n'


@pytest.mark.parametrize(("text", "expected"), [
    ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("1 << 4 | 1", 17), ("-3 + 5", 2), ("~0", -1), ("!5", 0),
    ("7 / 2", 3), ("7 % 4", 3), ("2 == 2 && 3 > 2", 1), ("0x10", 16), ("10UL", 10), ("'a'", 97),
    ("first.number", -7), ("(&first)->number + 1", -6), ("first.name[1]", ord("i") + 5), ("*first.text", ord("i")),
    ("((struct pair *)0x1000)->number", -7), ("*(int *)0x1008", -7), ("sizeof(struct pair)", 32),
    ("sizeof(first)", 32), ("(unsigned char)257", 1), ("first.color == 1", 1),
])
def test_expressions(session: Session, text: str, expected: int) -> None:
    assert evaluate(session, text).value_() == expected


@pytest.mark.parametrize(("text", "error"), [
    ("", UsageError), ("1 +", UsageError), ("(1", UsageError), ("1 2", UsageError), ("1 / 0", UsageError),
    ("first.", UsageError), ("first.nothing", NotInDump), ("nothing", NotInDump), ("*5", UsageError),
    ("first + first", UsageError), ("__import__('os')", KdumpyError), ("(" * 200 + "1" + ")" * 200, UsageError),
    ("-" * 500 + "1", UsageError), ("first[0]", UsageError), ("(struct none *)0", NotInDump), ("`id`", UsageError),
    ("5@2", UsageError), ("first.number@0", UsageError), ("first.number@99999999", UsageError), ("$", NotInDump),
])
def test_what_is_no_expression_says_so(session: Session, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        evaluate(session, text)


def test_a_budget_ends_what_never_ends(session: Session) -> None:
    layout: Any = Layout(session)
    layout._left = 2
    assert "..." in layout.value(drgn.Object(session.prog, "struct pair", address=0x1000))
