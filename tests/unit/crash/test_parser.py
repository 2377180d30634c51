"""The shell's line syntax."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.crash.parser import ParsedLine, parse
from kdumpy.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [
    ("", []),
    ("   ", []),
    ("# all of it is a comment", []),
    ("bt -a", [ParsedLine("bt -a", ("bt", "-a"))]),
    ("bt # the panic", [ParsedLine("bt", ("bt",))]),
    ("sym a#b", [ParsedLine("sym a#b", ("sym", "a#b"))]),
    ("bt; ps", [ParsedLine("bt", ("bt",)), ParsedLine("ps", ("ps",))]),
    ("log | grep -i bug", [ParsedLine("log", ("log",), pipeline="grep -i bug")]),
    ("log | head -3; ps", [ParsedLine("log", ("log",), pipeline="head -3"), ParsedLine("ps", ("ps",))]),
    ("log | sh -c 'a; b' | c", [ParsedLine("log", ("log",), pipeline="sh -c 'a; b' | c")]),
    ("ps > out.txt", [ParsedLine("ps", ("ps",), file="out.txt")]),
    ("ps -k>out.txt", [ParsedLine("ps -k", ("ps", "-k"), file="out.txt")]),
    ("ps>>out.txt", [ParsedLine("ps", ("ps",), file="out.txt", append=True)]),
    ("p 1>2", [ParsedLine("p 1>2", ("p", "1>2"))]),
    ("struct task_struct.a->b", [ParsedLine("struct task_struct.a->b", ("struct", "task_struct.a->b"))]),
    ("ps >> 'two words'", [ParsedLine("ps", ("ps",), file="two words", append=True)]),
    ("!date; uptime", [ParsedLine(shell="date; uptime")]),
    ("bt; !date; uptime", [ParsedLine("bt", ("bt",)), ParsedLine(shell="date; uptime")]),
    ("!", [ParsedLine(shell="")]),
    ("< file", [ParsedLine(source="file")]),
    ("*list_head -o", [ParsedLine("*list_head -o", ("*", "list_head", "-o"))]),
    ("* list_head", [ParsedLine("* list_head", ("*", "list_head"))]),
    ("foreach 'kwork.*' bt", [ParsedLine("foreach 'kwork.*' bt", ("foreach", "kwork.*", "bt"))]),
    ("p init_task->mm", [ParsedLine("p init_task->mm", ("p", "init_task->mm"))]),
    ("p (a|b) >= 2", [ParsedLine("p (a|b) >= 2", ("p", "(a|b)", ">=", "2"))]),
    ("p a || b", [ParsedLine("p a || b", ("p", "a", "||", "b"))]),
    ('p "a;b" ', [ParsedLine('p "a;b"', ("p", "a;b"))]),
])
def test_a_line_is_taken_apart(text: str, expected: list[ParsedLine]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["bt 'open", 'bt "open', "ps >", "ps > a b", "| grep x", "log |", "< a b", "> file",
                                  "ps | grep sh |: head 1", "ps |: head 5 | cat |: count"])
def test_what_is_no_command_says_so(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    line = "command " + " ".join(map(shlex.quote, words))
    (parsed,) = parse(line)
    assert parsed.words == ("command", *words)
    assert parsed.pipeline is None
    assert parsed.file is None
    assert parsed.shell is None


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        lines = parse(text)
    except UsageError:
        return
    for line in lines:
        assert line != ParsedLine()


@given(st.text(alphabet="abc ;|'\"!#<>\\*()-"))
def test_a_pipeline_is_a_part_of_what_was_typed(text: str) -> None:
    try:
        lines = parse(text)
    except UsageError:
        return
    for line in lines:
        for part in (line.pipeline, line.shell, line.text):
            assert part is None or part in text
