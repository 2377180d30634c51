"""Tasks read thousands at a time are what drgn's helpers read one by one."""

from __future__ import annotations

import pytest
from drgn.helpers.linux.pid import for_each_task

import kdumpy
import lab
from kdumpy.kernel import taskreader


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_tasks_are_those_of_drgn(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        tasks = list(for_each_task(opened.prog))
        assert [task.value_() for task in taskreader.tasks_by_id(opened.prog)] == [task.value_() for task in tasks]
        reader = taskreader.TaskReader(opened.prog)
        assert [reader.value(task) for task in tasks] == [taskreader.by_helpers(task) for task in tasks]
        assert {task.state for task in map(reader.value, tasks)} >= {"R", "S", "I"}
