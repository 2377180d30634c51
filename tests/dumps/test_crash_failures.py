"""What the shell says of what cannot be done, and of damaged dumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import drgn
import pytest

import kdumpy
import lab
from console import Console, kernel_of
from kdumpy.crash import registry

NAMES = sorted(registry.COMMANDS)


@pytest.fixture(params=(20, 50, 80, 99))
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    """A dump of which only so many hundredths are left."""
    whole = lab.dump("6.1", "null-workqueue").path
    part = tmp_path / "vmcore"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * request.param // 100])
    with kdumpy.open(part) as kernel:
        yield Console(kernel)


def test_a_cut_dump_answers_what_it_can_and_says_what_it_cannot(cut: Console) -> None:
    assert "RELEASE: 6.1" in cut("sys")
    lost = cut.kernel.debuginfo.missing
    for name in NAMES:
        good, _, errors = cut.attempt(registry.command(name).example)
        assert good or "kdumpy: " in errors, name
        assert "Traceback" not in errors
        assert "internal" not in errors
        if "symbols" in lost and name in ("ps", "vm", "files", "sym", "struct", "p"):
            assert not good
            assert "this dump has no symbols" in errors, errors
    assert not cut.attempt("mod -t")[1].startswith("no tainted modules")


def test_rows_before_a_page_that_is_missing_are_shown(old: Console) -> None:
    begin = old.prog.symbol("linux_banner").address & ~0xFFF
    start = next(address for address in range(begin, begin + (64 << 20), 4096) if not _readable(old, address))
    good, text, errors = old.attempt(f"rd {start - 32:x} 8")
    assert not good
    assert text.splitlines()[0].startswith(f"{start - 32:016x}:  ")
    assert errors.startswith(("kdumpy: page ", "kdumpy: no memory at "))


def _readable(console: Console, address: int) -> bool:
    try:
        return bool(console.prog.read(address, 1))
    except drgn.FaultError:
        return False


@pytest.mark.parametrize("line", [
    "nothing", "bt 99999", "bt zz", "bt -c 99", "bt --no-such-option", "dis", "dis nothing", "dis 123", "rd",
    "rd zz", "ps --bogus", "task 99999", "vm zz", "files 99999", "sym", "p", "p 1 +", "struct", "log -q", "kmem -Q",
    "help nothing", "mod -Z", "< /no/such/file", "log > /no/such/folder/file", "log | /no/such/program", "'",
    "exec", "waitq 12", "list 0", "kmem zz",
])
def test_what_cannot_be_done_is_one_line_and_the_session_lives(old: Console, line: str) -> None:
    good, _, errors = old.attempt(line)
    assert not good
    lines = [text for text in errors.splitlines() if text.startswith("kdumpy: ")]
    assert len(lines) == 1
    assert "Traceback" not in errors
    assert old("sym schedule")


class _Interrupt:
    """What a command meets when Ctrl-C is pressed, as such or in the middle of somebody's `finally`."""

    def __init__(self, *, hidden: bool) -> None:
        self.hidden, self.calls = hidden, 0

    def __call__(self, *_: object) -> None:
        self.calls += 1
        try:
            raise KeyboardInterrupt
        finally:
            if self.hidden:
                raise AttributeError("half made")


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interrupt_ends_the_whole_line_and_nothing_else(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(kernel_of("6.1", "null-workqueue"))
    press = _Interrupt(hidden=hidden)
    with monkeypatch.context() as patched:
        patched.setattr("kdumpy.crash.commands.bt.backtrace", press)
        assert console.attempt("foreach bt; sys") == (False, "", "^C\n")
    assert press.calls == 1
    assert "KERNEL" in console("sys")


@pytest.mark.parametrize("line", ["ps | grep ^>", "ps | grep '['", "ps | exit 3", "ps | no_such_program"])
def test_a_pipeline_that_fails_is_a_failure(old: Console, line: str) -> None:
    assert "the pipeline " in old.fails(line)


def test_a_pipeline_that_finds_nothing_or_has_read_enough_is_none(old: Console) -> None:
    assert old("ps | grep nothing_of_this_name") == ""
    assert old("sym -l | head -1").count("\n") == 1
    assert old("ps | kill -PIPE $$") == ""


@pytest.mark.parametrize(("line", "expected"), [
    ("rd -u 400000", "the context task has no user space (set another: set PID)"),
    ("rd -u -a 400000", "the context task has no user space (set another: set PID)"),
    ("rd 6b6b6b6b6b6b6b6b", "no memory at 6b6b6b6b6b6b6b6b: no page table of the kernel's reaches there"),
    ("struct list_head 6b6b6b6b6b6b6b6b", "no memory at 6b6b6b6b6b6b6b6b: no page table of the kernel's reaches there"),
    ("p $rip", "$rip means nothing here"), ("x/i $rip", "$rip means nothing here"), ("p $9", "there is no value $9"),
    ("repeat", "kdumpy: repeat wants a command (see"), ("list 0", "no memory at 0000000000000000"),
    ("irq 9999", "there is no interrupt 9999"), ("tsk_struct ffff888000000000", "did you mean 'task_struct'?"),
    ("kmem -p |: where flags~slab |: count", "flags is a number, which holds no 'slab'"),
    ("irq |: where name~virtio", "did you mean 'actions.name'?"),
    ("foreach 1 files |: where path~x", "did you mean 'files.path'?"),
])
def test_what_is_said_names_the_cause_and_nothing_stands_in_front(old: Console, line: str, expected: str) -> None:
    good, text, errors = old.attempt(line)
    assert not good
    assert text == ""
    assert expected in errors


def test_a_kernel_without_maple_trees_says_so() -> None:
    console = Console(kernel_of("5.10", "null-workqueue"))
    assert "no maple trees are known" in console.fails("tree -t maple 0")


@pytest.mark.parametrize("line", ["py while True: pass", "py sum(1 for _ in iter(int, 1))"])
def test_a_timeout_that_was_set_holds_for_python_too(old: Console, line: str) -> None:
    old("set timeout 1")
    assert "stopped after 1 s of work" in old.fails(line)


@pytest.mark.parametrize("line", ["dis -l schedule 2", "dis -s schedule 2", "bt -l", "foreach active bt -l"])
def test_lines_of_source_that_are_not_known_are_told_once_and_behind(old: Console, line: str) -> None:
    good, text, errors = old.attempt(line)
    assert not good
    assert text == old.attempt(line.replace(" -l", "").replace(" -s", ""))[1] != ""
    assert errors.count("no file and line is known") == errors.count("\n") == 1
