"""Edits of a kernel command line: the parameter is set or gone, and every other byte is where it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.errors import UsageError
from kdumpy.host.bootloaders import parameters

WORD = st.text(st.sampled_from('abcr=,.-_"$/\\:é'), min_size=1, max_size=8).filter(
    lambda word: word.count('"') % 2 == 0 and not word.strip('"').replace("-", "_").startswith("ck")
    and word != "--")
BLANKS = st.text(st.sampled_from(" \t"), min_size=1, max_size=3)
LINE = st.lists(st.tuples(BLANKS, WORD), max_size=6).map(lambda parts: "".join(blank + word for blank, word in parts))
VALUE = st.text(st.sampled_from("0123456789MG-:,@ "), min_size=1, max_size=12)


def test_a_value_is_replaced_where_it_stands() -> None:
    assert parameters.edit("ro crashkernel=128M  quiet", "crashkernel", "256M") == "ro crashkernel=256M  quiet"


def test_a_new_one_goes_to_the_end_before_init_s_own_words() -> None:
    assert parameters.edit("ro quiet\n", "crashkernel", "256M") == "ro quiet crashkernel=256M\n"
    assert parameters.edit("ro -- single", "crashkernel", "256M") == "ro crashkernel=256M -- single"
    assert parameters.edit("", "crashkernel", "256M") == "crashkernel=256M"


def test_what_follows_two_dashes_is_init_s() -> None:
    assert parameters.values("ro -- crashkernel=1M", "crashkernel") == []
    assert parameters.edit("ro -- crashkernel=1M", "crashkernel", None) == "ro -- crashkernel=1M"


def test_of_several_the_last_is_kept() -> None:
    line = "crashkernel=72M,low ro crashkernel=300M,high quiet"
    assert parameters.edit(line, "crashkernel", "512M") == "ro crashkernel=512M quiet"
    assert parameters.edit(line, "crashkernel", None) == "ro quiet"


def test_quotes_hold_blanks_together() -> None:
    line = 'dyndbg="file a.c +p" "crashkernel=1M" x="crashkernel=2M y"'
    assert parameters.values(line, "crashkernel") == ["1M"]
    assert parameters.values(line, "dyndbg") == ["file a.c +p"]
    assert parameters.edit(line, "crashkernel", None) == 'dyndbg="file a.c +p" x="crashkernel=2M y"'
    assert parameters.edit("ro", "dyndbg", "file a.c +p") == 'ro dyndbg="file a.c +p"'


def test_a_dash_and_an_underscore_are_the_same_and_a_longer_name_is_another() -> None:
    assert parameters.values("page-poison=1 page_poison=0", "page_poison") == ["1", "0"]
    assert parameters.edit("crashkernel_x=1 xcrashkernel=2", "crashkernel", None) == "crashkernel_x=1 xcrashkernel=2"


def test_a_bare_name_is_an_empty_value() -> None:
    assert parameters.edit("ro", "nokaslr", "") == "ro nokaslr"
    assert parameters.splices("ro nokaslr", "nokaslr", "") == []


@pytest.mark.parametrize(("name", "value"), [("a b", "1"), ("", "1"), ("a", 'x"y'), ("a", "x\ny"), ("a=", "1")])
def test_what_is_no_parameter_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="no kernel parameter"):
        parameters.spell(name, value)


@given(LINE, VALUE)
def test_set_and_removed_again_gives_the_bytes_back(line: str, value: str) -> None:
    there = parameters.edit(line, "ck", value)
    assert parameters.values(there, "ck") == [value]
    assert parameters.edit(there, "ck", None) == line


@given(LINE, LINE, st.lists(VALUE, min_size=1, max_size=3), VALUE)
def test_all_other_words_stay(before: str, after: str, olds: list[str], new: str) -> None:
    line = before + "".join(" " + parameters.spell("ck", old) for old in olds) + after
    others = before.split() + after.split()
    for value in (new, None):
        edited = parameters.edit(line, "ck", value)
        assert parameters.values(edited, "ck") == ([] if value is None else [value])
        gone = parameters.edit(edited, "ck", None)
        assert gone.split() == others
        assert parameters.splices(edited, "ck", value) == []
