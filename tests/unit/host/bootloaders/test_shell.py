"""Files of shell assignments: what is read is what /bin/sh reads, and an edit changes one parameter alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import parameters, shell

PIECE = st.one_of(
    st.text(st.sampled_from("abr=,.:/_-"), min_size=1, max_size=6),
    st.text(st.sampled_from("ab =,$\\\"`#;&|<>(){}*~\n"), max_size=8).map(lambda text: f"'{text}'"),
    st.lists(st.sampled_from(["a", "b", " ", "=", "'", "#", ";", "\\\"", "\\$", "\\`", "\\\\", "\\a", "\n", "\\\n=",
                              "$V", "${V}"]), max_size=8).map(lambda parts: '"' + "".join(parts) + '"'),
    st.sampled_from(["\\ ", "\\'", '\\"', "\\$", "\\\\", "\\\n=", "$V", "${V}", "$U"]))
RAW = st.lists(PIECE, max_size=5).map("".join)
"""A value as it may stand in a file."""

PLAIN = st.sampled_from(["# a comment with 'one quote", "", ":", "true; :", "V=x", "V='1 2' W=3", "export V=y",
                         "cat <<EOF >/dev/null\nX='\nEOF"])
LINE = st.one_of(PLAIN, RAW.map(lambda raw: f"V={raw}"))


def sourced(text: str, name: str, tmp_path: Path) -> str:
    """Return a variable's value after dash has read a file."""
    file = tmp_path / "settings"
    file.write_text(text)
    done = subprocess.run(["/bin/sh", "-c", f'. "$1"; printf "%s|" "${name}"', "sh", str(file)], capture_output=True,
                          text=True, env={"PATH": "/usr/bin:/bin"}, check=True)
    return done.stdout.removesuffix("|")


def last(text: str) -> shell.Assignment:
    return [one for one in shell.assignments(text, "file") if one.name == "X"][-1]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, max_size=3), RAW)
def test_a_value_is_what_the_shell_makes_of_it(tmp_path: Path, lines: list[str], raw: str) -> None:
    text = "\n".join([*lines, f"X={raw}", ""])
    assert shell.values(text, "file").get("X", "") == sourced(text, "X", tmp_path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PLAIN, max_size=2), RAW, st.sampled_from(["256M", "2G-64G:256M,64G-:512M", None]), st.booleans())
def test_an_edit_is_what_the_shell_sees(tmp_path: Path, lines: list[str], raw: str, value: str | None,
                                        there: bool) -> None:
    raw = raw + '" crashkernel=1M"' if there else raw
    text = "\n".join([*lines, f"X={raw}", "Y=1", ""])
    edited = shell.edited(text, last(text), "crashkernel", value, "file")
    before, after = sourced(text, "X", tmp_path), sourced(edited, "X", tmp_path)
    assume("--" not in before.split())      # put together of a variable, it is not known before
    assert after.split() == parameters.edit(before, "crashkernel", value).split()
    assert sourced(edited, "Y", tmp_path) == "1"
    assert edited.startswith("\n".join([*lines, "X="])[: -2 if lines else None])


def test_a_command_s_output_is_not_known_and_stays() -> None:
    text = 'X=`lsb_release -i -s 2> /dev/null || echo Debian`\nY="$(sed \'s, release .*$,,g\' /etc/x) a)"\n'
    found = {one.name: one for one in shell.assignments(text, "file")}
    assert found["X"].text == shell.OPAQUE
    assert found["Y"].text == f"{shell.OPAQUE} a)"
    edited = shell.edited(text, found["Y"], "crashkernel", "1M", "file")
    assert edited == text.replace(" a)", " a) crashkernel=1M")


@pytest.mark.parametrize("text", [
    "if true; then\nX=1\nfi", "f() {\nX=1\n}", "true && X=1", "( X=1 )", "X=1 | cat", "case a in\na) X=1;;\nesac",
    "for X in 1; do\nX=1\ndone", "X=1 &"])
def test_what_a_condition_or_a_process_sets_is_not_certain(text: str) -> None:
    assert not any(one.certain for one in shell.assignments(text, "file"))


@pytest.mark.parametrize("text", ["X=1 printenv X", "echo X=1", "# X=1", "cat <<E\nX=1\nE\n", "cat <<-'E'\nX=1\n\tE\n"])
def test_what_is_no_assignment_is_none(text: str) -> None:
    assert shell.assignments(text, "file") == []


@pytest.mark.parametrize("text", ["X=1", "export X=1", "if a; then b; fi; X=1", "echo a; X=1 # c", "X=1;", "  X=1",
                                  "f() { a; }\nX=1", "a && b\nX=1"])
def test_what_is_always_executed_is_certain(text: str) -> None:
    assert [one.certain for one in shell.assignments(text, "file") if one.name == "X"] == [True]


@pytest.mark.parametrize(("text", "why"), [
    ('A=1\nX="open\nmore', "line 2"), ("X='open", "a ' that"), ("X=`open", "a ` that"), ('X="$(open"', "a ( that"),
    ("X=${open", "a { that"), ("X=\0", "no text"), ("X=1\n" * 300_000, "too large")])
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    with pytest.raises(HostError) as caught:
        shell.assignments(text, "/etc/default/grub")
    assert why in str(caught.value)
    assert "/etc/default/grub" in str(caught.value)


@settings(max_examples=200)
@given(st.text(st.sampled_from("Xa=1'\"`$(){};&|<>#\\ \n\t"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = shell.assignments(text, "file")
    except HostError:
        return
    for one in found:
        assert 0 <= one.start <= one.end <= len(text)


@pytest.mark.parametrize(("text", "after"), [
    ("USE_KDUMP=1\n", "USE_KDUMP=0\n"), ('USE_KDUMP="1" # yes', 'USE_KDUMP="0" # yes'), ("A=1", "A=1\nUSE_KDUMP=0\n"),
    ("", "USE_KDUMP=0\n"), ("USE_KDUMP=1\nUSE_KDUMP='1'\n", "USE_KDUMP=1\nUSE_KDUMP=0\n")])
def test_a_variable_is_assigned(text: str, after: str) -> None:
    assert shell.assigned(text, "USE_KDUMP", "0", "file") == after


def test_a_variable_within_a_condition_is_not_assigned() -> None:
    with pytest.raises(HostError, match="at the end"):
        shell.assigned("if a; then USE_KDUMP=1; fi", "USE_KDUMP", "0", "file")
