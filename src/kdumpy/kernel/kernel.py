"""The opened dump: one object that answers what a panic raises as questions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import drgn

from kdumpy.debuginfo.attach import DebugInfo
from kdumpy.debuginfo.reading import READ_ERRORS, Losses
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.dmesg import LogRecord, read_log
from kdumpy.errors import KdumpyError
from kdumpy.kernel import modules, system, tasks
from kdumpy.kernel.panic import read_panic
from kdumpy.kernel.stacks import Stacks
from kdumpy.kernel.values import Cpu, Module, Panic, Stack, System, Task

_COMMON_STACK = 16384
"""Bytes of a kernel stack; x86-64 and arm64 without KASAN."""


class Kernel:
    """A crashed kernel: a `drgn.Program` with the dump's own debug information, and its story.

    Made by `kdumpy.open(path)`. Whatever the dump does not hold is None or absent, and the reason
    stands in `problems`. Use it as a context manager, or call `close`.
    """

    def __init__(self, path: Path, dump: Dump, prog: drgn.Program, info: DebugInfo) -> None:
        self.path = path
        self.dump = dump
        """The file: format, pages, notes (`kdumpy.dumpfile`)."""
        self.prog = prog
        """The engine; every helper of drgn works on it."""
        self.debuginfo = info
        """What the dump could tell of itself, and what it could not."""
        self.problems: dict[str, str] = {}
        """Why something is missing, by what."""
        self.stacks = Stacks(prog, info)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.dump.close()

    @cached_property
    def system(self) -> System:
        """The machine: names, times, sizes, taint."""
        return system.read_system(self.prog, self.dump, self.problems)

    @cached_property
    def log(self) -> tuple[LogRecord, ...]:
        """The kernel's log, oldest record first."""
        try:
            log = read_log(self.dump)
        except KdumpyError as error:
            self.problems["log"] = str(error)
            return ()
        if log.why:
            self.problems["log"] = f"{log.unreadable} records cannot be read: {log.why}"
        return log.records

    @cached_property
    def panic(self) -> Panic | None:
        """What took the kernel down; None for a dump of a kernel that did not panic."""
        return read_panic(self.prog, self.stacks, self.problems)

    def tasks(self) -> Iterator[Task]:
        """Yield every thread but the idle tasks. A task that cannot be read is left out and counted."""
        lost = Losses("task")
        try:
            for task in tasks.task_objects(self.prog):
                try:
                    yield tasks.task_value(task)
                except READ_ERRORS as error:
                    lost.add(error)
        except READ_ERRORS as error:
            self.problems["tasks"] = f"the list of tasks cannot be followed to its end: {error}"
        if lost:
            self.problems["tasks not read"] = str(lost)

    def task_object(self, address: int) -> drgn.Object:
        """Return the `struct task_struct *` at an address."""
        return drgn.Object(self.prog, "struct task_struct *", value=address)

    def stack(self, task: Task | int) -> Stack:
        """Return the kernel stack of a task, by value or by the address of its task_struct."""
        address = task.address if isinstance(task, Task) else task
        return self.stacks.of(self.task_object(address))

    @cached_property
    def stack_size(self) -> int:
        """Bytes of a kernel stack (THREAD_SIZE), a power of two: with KASAN twice or four times the common one."""
        try:
            size = int(self.prog["THREAD_SIZE"].value_())
        except READ_ERRORS:
            return _COMMON_STACK
        return size if size > 0 and size & size - 1 == 0 else _COMMON_STACK

    @cached_property
    def cpus(self) -> tuple[Cpu, ...]:
        """Every CPU that was online, and what it was doing."""
        try:
            return tuple(tasks.cpus(self.prog, self.stacks, self.panic.cpu if self.panic else None))
        except READ_ERRORS as error:
            self.problems["cpus"] = str(error)
            return ()

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """The loaded modules, newest first."""
        try:
            return tuple(modules.modules(self.prog, self.problems))
        except READ_ERRORS as error:
            self.problems["modules"] = str(error)
            return ()
