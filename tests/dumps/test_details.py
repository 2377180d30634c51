"""What the page shows beside the diagnosis, on real dumps."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdumpy
import lab
from kdumpy.diagnosis import diagnose
from kdumpy.diagnosis.details import Details, gather, gather_log, log, tasks
from kdumpy.diagnosis.diagnose import diagnose_log
from kdumpy.diagnosis.memoryuse.usage import largest_slabs
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.dumpfile import open_dump
from kdumpy.report import html


def gathered(path: Path) -> tuple[Diagnosis, Details]:
    with kdumpy.open(path) as kernel:
        diagnosis = diagnose(kernel)
        return diagnosis, gather(kernel, diagnosis)


def test_every_task_has_its_stack_and_equal_ones_are_kept_once() -> None:
    with kdumpy.open(lab.bundled()) as kernel:
        details = gather(kernel, diagnose(kernel))
        assert [(row.pid, row.comm, row.state) for row in details.tasks] == \
            [(task.pid, task.comm, task.state) for task in kernel.tasks()]
        assert len(set(details.stacks)) == len(details.stacks) < len(details.tasks)
        for row in details.tasks:
            frames = [frame for frame in kernel.stack(row_task).frames if not frame.user] \
                if (row_task := next(task for task in kernel.tasks() if task.pid == row.pid)) else []
            assert row.stack is not None
            assert [name.split(" ")[0] for name in details.stacks[row.stack]] == [frame.function for frame in frames]
        assert {row.comm for row in details.tasks if row.rss} & {"init"}
        assert not [row for row in details.tasks if row.kernel_thread and row.rss]
        assert details.missing == {}


def test_the_faulting_instruction_is_marked_and_explained() -> None:
    diagnosis, details = gathered(lab.bundled())
    assert diagnosis.panic is not None
    block = next(code for code in details.code if code.fault)
    assert block.symbol == "flaky_poll_channel"
    assert [line.address for line in block.lines if line.marked] == [diagnosis.panic.instruction_address]
    marked = next(line for line in block.lines if line.marked)
    assert marked.note == "read 4 bytes at 0x0, with rax = 0x0"
    assert block.lines[0].offset == 0
    assert [line.address for line in block.lines] == sorted(line.address for line in block.lines)
    assert {item.name: item.words for item in details.registers}["rax"] == "NULL"
    assert {item.name: item.words for item in details.registers}["rip"] == "flaky_poll_channel+0xf"
    assert "this task's stack" in {item.name: item.words for item in details.registers}["rsp"]


def test_caches_of_nodes_that_are_not_there_are_not_counted() -> None:
    with kdumpy.open(lab.bundled()) as kernel:
        rows = largest_slabs(kernel)
        assert kernel.system.memory_bytes is not None
        assert 0 < sum(size for _, size in rows) < kernel.system.memory_bytes


def test_the_call_that_went_nowhere_is_marked() -> None:
    _, details = gathered(lab.dump("6.1", "jump-to-null").path)
    marked = [line for code in details.code for line in code.lines if line.marked]
    assert [line.note for line in marked] == ["went to 0x0, where no code is"]


def test_the_log_is_whole_and_its_trouble_marked() -> None:
    with kdumpy.open(lab.bundled()) as kernel:
        details = gather(kernel, diagnose(kernel))
        assert [line.text for line in details.log.lines] == \
            [line for record in kernel.log for line in record.text.split("\n")]
    cause = [event for event in details.log.events if event.cause]
    assert len(cause) == 1
    assert "NULL pointer dereference" in details.log.lines[cause[0].line].text


def test_what_is_too_much_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MOST_TASKS", 30)
    monkeypatch.setattr(tasks, "MOST_UNWOUND", 10)
    monkeypatch.setattr(log, "MOST_LINES", 50)
    _, details = gathered(lab.bundled())
    assert len(details.tasks) == 30
    assert sum(row.stack is not None for row in details.tasks) == 10
    assert set(details.missing) == {"tasks", "stacks"}
    assert len(details.log.lines) == 50
    assert details.log.left_out > 100
    assert "NULL pointer" in next(details.log.lines[event.line].text for event in details.log.events if event.cause)


def test_a_page_is_made_from_the_log_alone() -> None:
    path = lab.bundled()
    with open_dump(path) as dump:
        diagnosis = diagnose_log(path, dump, "for a test")
        details = gather_log(diagnosis, dump)
    assert details.tasks == ()
    assert details.log.lines
    text = html.render(diagnosis, details)
    assert 'id="log"' in text
    assert "everything but the log: for a test" in text


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_every_dump_of_the_laboratory_makes_a_page(kernel: str, fault: str) -> None:
    diagnosis, details = gathered(lab.dump(kernel, fault).path)
    text = html.render(diagnosis, details)
    assert 100_000 < len(text.encode()) < 400_000
    assert details.missing == {}
    assert len(details.tasks) > 40
