"""Tasks read thousands at a time are what drgn's helpers read one by one."""

from __future__ import annotations

import pytest
from drgn.helpers.linux.mm import task_rss
from drgn.helpers.linux.pid import for_each_task

import kdumpy
import lab
from kdumpy.kernel import taskreader
from kdumpy.kernel.resident import resident_pages


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_tasks_are_those_of_drgn(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        tasks = list(for_each_task(opened.prog))
        assert [task.value_() for task in taskreader.tasks_by_id(opened.prog)] == [task.value_() for task in tasks]
        reader = taskreader.TaskReader(opened.prog)
        assert [reader.value(task) for task in tasks] == [taskreader.by_helpers(task) for task in tasks]
        assert {task.state for task in map(reader.value, tasks)} >= {"R", "S", "I"}


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_resident_pages_are_those_of_drgn(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        tasks = [task for task in for_each_task(opened.prog) if task.mm]
        assert any(resident_pages(task) > 0 for task in tasks)
        assert [resident_pages(task) for task in tasks] == [task_rss(task).total for task in tasks]
