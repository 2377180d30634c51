"""Tasks read thousands at a time: where each member lies is worked out once, and a task is one read.

What is told is what drgn's helpers tell (a test compares them); where a structure is not as known here, they are asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import drgn
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_cpu, task_on_cpu, task_state_to_char

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.circles import xarray_entries
from kdumpy.kernel.values import Task

_PF_KTHREAD = 0x00200000
"""include/linux/sched.h; the same since 2.6.27."""
_WORDS = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
_READER = "kdumpy task reader"
"""Its place in drgn's cache of a program."""
_COMM = 16
"""TASK_COMM_LEN."""
_LARGEST_TASK = 64 << 10
"""Bytes; a struct task_struct has about 10 KB."""
_HIGHEST = (1 << 64) - 1


def tasks_by_id(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield the `struct task_struct *` of every thread but the idle tasks, in the order of their ids.

    The namespace's tree of ids leads to a struct pid, whose first list holds the thread itself.

    Raises:
        DamagedDump, drgn.FaultError: the tree is damaged.
    """
    try:
        tree = prog["init_pid_ns"].idr.idr_rt           # an XArray since 4.20
        made = prog.type("struct task_struct")
        # "pid: replace pidmap with IDR API" (95846ecf9dac, 4.15); pid_links since 2c4704756cab (4.19).
        link = int(drgn.offsetof(made, "pid_links"))
        first = int(drgn.offsetof(prog.type("struct pid"), "tasks"))
        known = hasattr(tree, "xa_head")
    except (LookupError, AttributeError):
        known = False
    if not known:
        yield from for_each_task(prog)
        return
    pointer, read = prog.pointer_type(made), prog.read_u64
    for _, pid in xarray_entries(tree):
        task = read(pid + first & _HIGHEST)
        if task:
            yield drgn.Object(prog, pointer, value=task - link)


_HIDDEN = 0x1000 | 0x8000
"""TASK_RTLOCK_WAIT, TASK_FROZEN."""


class TaskReader:
    """Reads tasks of one program as values."""

    def __init__(self, prog: drgn.Program) -> None:
        """Find out where the members lie.

        Raises:
            LookupError: a structure is not as known here.
        """
        if prog.platform is None or prog.platform.flags & _WORDS != _WORDS:
            raise LookupError("not a machine of 64 bits and little endian")
        made = prog.type("struct task_struct")
        self.prog = prog
        at = {name: int(drgn.offsetof(made, name)) for name in ("pid", "tgid", "real_parent", "comm", "flags",
                                                                "exit_state", "on_cpu")}
        # __state: 2f064a59a11f "sched: Change task_struct::state" (5.14).
        modern = made.has_member("__state")
        at["state"] = int(drgn.offsetof(made, "__state" if modern else "state"))
        # thread_info.cpu: bcf9033e5449 "sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK" (5.16).
        inside = made.has_member("thread_info") and made.member("thread_info").type.has_member("cpu")
        at["cpu"] = int(drgn.offsetof(made, "thread_info.cpu" if inside else "cpu"))
        order = sorted((offset, name) for name, offset in at.items())
        # on_cpu is a byte in 7.2, with others behind it, and was an int before.
        on_cpu = "B" if drgn.sizeof(made.member("on_cpu").type) == 1 else "I"
        sizes = {"real_parent": "Q", "comm": f"{_COMM}s", "state": "I" if modern else "Q", "on_cpu": on_cpu}
        self._start, end, layout = order[0][0], order[0][0], "<"
        for offset, name in order:
            if not end <= offset < self._start + _LARGEST_TASK:
                raise LookupError("the members of struct task_struct lie in each other, or nowhere")
            kind = sizes.get(name, "I")
            layout += f"{offset - end}x{kind}"
            end = offset + struct.calcsize(f"<{kind}")
        self._fields = struct.Struct(layout)
        names = [name for _, name in order]
        self._places = [names.index(name) for name in ("pid", "tgid", "real_parent", "comm", "flags", "exit_state",
                                                       "on_cpu", "state", "cpu")]
        self._tgid = at["tgid"]
        self._states: dict[tuple[int, int], str] = {}
        """Letters by (state, exit_state): there are a dozen."""

    def value(self, task: drgn.Object) -> Task:
        """Read a `struct task_struct *`.

        Raises:
            drgn.FaultError: it is not wholly in the dump.
        """
        address = task.value_()
        found = self._fields.unpack(self.prog.read(address + self._start, self._fields.size))
        pid, tgid, parent, comm, flags, exit_state, on_cpu, state, cpu = (found[place] for place in self._places)
        letter = self._states.get((state, exit_state))
        if letter is None:
            letter = self._states[state, exit_state] = state_of(task)
        return Task(pid=_signed(pid), tgid=_signed(tgid), parent=self._parent(parent),
                    comm=comm.partition(b"\0")[0].decode("utf-8", "backslashreplace"), state=letter, cpu=cpu,
                    on_cpu=bool(on_cpu), kernel_thread=bool(flags & _PF_KTHREAD), address=address)

    def _parent(self, address: int) -> int:
        """Return the process id of a parent; 0 where it is not in the dump."""
        try:
            return _signed(self.prog.read_u32(address + self._tgid))
        except drgn.FaultError:
            return 0


def task_value(task: drgn.Object) -> Task:
    """Read a `struct task_struct *`.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    cache = task.prog_.cache
    if _READER not in cache:
        try:
            cache[_READER] = TaskReader(task.prog_)
        except LookupError:
            cache[_READER] = None
    reader = cache[_READER]
    if reader is not None:
        try:
            return reader.value(task)       # type: ignore[no-any-return]  # drgn's cache holds anything
        except drgn.FaultError:
            pass        # a member that is not asked for may lie in the page that is missing
    return by_helpers(task)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def state_of(task: drgn.Object) -> str:
    """Return the letter of a task's state; ? where it cannot be told."""
    try:
        letter = str(task_state_to_char(task))
        return "D" if letter == "R" and _asleep(task) else letter
    except READ_ERRORS:
        return "?"


def _asleep(task: drgn.Object) -> bool:
    """Tell whether a task that seems to run waits for a spinlock of PREEMPT_RT, or is frozen: the kernel says D then.

    Source: include/linux/sched.h, __task_state_index(); TASK_RTLOCK_WAIT since 5.15, TASK_FROZEN since 6.1.
    """
    return task.type_.type.has_member("__state") and bool(task.member_("__state").value_() & _HIDDEN)


def by_helpers(task: drgn.Object) -> Task:
    """Read a `struct task_struct *` a member at a time, by drgn's helpers.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    try:
        parent = task.real_parent.tgid.value_()
    except drgn.FaultError:
        parent = 0
    return Task(
        pid=task.pid.value_(), tgid=task.tgid.value_(), parent=parent,
        comm=task.comm.string_().decode("utf-8", "backslashreplace"), state=state_of(task), cpu=task_cpu(task),
        on_cpu=bool(task_on_cpu(task)), kernel_thread=bool(task.flags.value_() & _PF_KTHREAD),
        address=task.value_())
