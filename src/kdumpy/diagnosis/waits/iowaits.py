"""Tasks that wait for a disk or a server: for which request of which disk, since when, and who carries it out.

A request is found by the page that it reads or writes, or by what it points to: the one who made it left there
what is on its own stack. Sources: block/bio.c (submit_bio_wait), block/blk-mq.c (blk_execute_rq), mm/filemap.c,
drivers/block/loop.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.disks import Disk, Disks, Request
from kdumpy.diagnosis.things import Things
from kdumpy.diagnosis.waits.waiting import Waited, Waiters
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.tasks import task_value
from kdumpy.kernel.values import Frame
from kdumpy.units import human_seconds

_ON_PAGES = ("page lock", "buffer lock", "bit lock")
_BY_STACK = ("I/O", "completion", *_ON_PAGES)
"""Kinds of wait that can be one for a disk; all others are not looked at."""
_RPC = "rpc_wait_bit_killable"
"""Where a task sleeps that waits for a server (net/sunrpc/sched.c)."""
_BITS = {"PG_locked": "which is locked, mostly to be read", "PG_writeback": "which is being written"}
"""enum pageflags, include/linux/page-flags.h."""
_LOOP = "lo_fops"
"""The operations of loop devices (drivers/block/loop.c)."""


class IoWaits:
    """Finds what those wait for who wait for disks."""

    def __init__(self, kernel: Kernel, disks: Disks) -> None:
        self.kernel = kernel
        self.disks = disks
        self.things = Things(kernel)
        self._carriers: dict[str, Task | None] = {}
        """By the disk: to find one is to go through all tasks."""

    def of(self, task: drgn.Object, found: Waited, words: tuple[int, Sequence[int]],
           frames: Sequence[Frame]) -> tuple[Waited, str] | None:
        """Return the wait and its name where a task waits for a disk or a server; None where it does not.

        Args:
            task: struct task_struct *.
            found: what it waits for by its stack alone.
            words: the part of the stack that is in use: its address, its words.
            frames: the stack.
        """
        if found.kind not in _BY_STACK:
            return None
        if found.kind == "bit lock" and any((frame.function or "") == _RPC for frame in frames):
            return self._call(found)
        try:
            request = self.disks.of_page(found.address) if found.kind == "page lock" and found.address else None
            request = request or self.disks.of_waiter(words[0], words[0] + 8 * len(words[1]), task.value_())
        except READ_ERRORS as error:
            self.kernel.problems["requests of disks"] = str(error)
            return None
        if request is not None:
            if request.disk not in self._carriers:
                self._carriers[request.disk] = self._carrier(request.disk)
            owner = self._carriers[request.disk]
            return Waited("I/O", request.address, owner, owner is not None, self._note(request)), request.words
        if found.kind != "page lock" or not found.address:
            return None
        file = self.things.of_page(found.address)
        if not file:
            return None
        device = self.things.device_of_page(found.address)
        why = f"{device} is suspended" if device and self.disks.is_suspended(device) else self._bit(found)
        return found._replace(note=why), f"a page of {file}"

    def _bit(self, found: Waited) -> str:
        """Say what a page is waited for, by the bit of its flags."""
        for name, words in _BITS.items():
            try:
                if found.bit is not None and int(self.kernel.prog.constant(name).value_()) == found.bit:
                    return words
            except LookupError:
                continue
        return found.note

    def _call(self, found: Waited) -> tuple[Waited, str] | None:
        """Return a wait for the answer to a call over RPC: the bit that is waited for lies in the struct rpc_task."""
        try:
            made = self.kernel.prog.type("struct rpc_task")
            begin = found.address - drgn.offsetof(made, "tk_runstate")
            call = drgn.Object(self.kernel.prog, "struct rpc_task *", begin)
            transport = call.tk_client.cl_xprt
            server = transport.servername.string_().decode("utf-8", "backslashreplace")
            program = call.tk_client.cl_program.name.string_().decode("utf-8", "backslashreplace")
            begun, now = int(call.tk_start.value_()), self.disks.now_ns
        except READ_ERRORS:
            return None
        note = f"in flight for {human_seconds((now - begun) / 1e9)}" if now is not None and 0 < begun < now else ""
        return Waited("I/O", call.value_(), note=note), f"answer of the server {server} ({program})"

    def _note(self, request: Request) -> str:
        disk = self.disks.named(request.disk)
        since = f"in flight for {human_seconds(request.seconds)}" if request.seconds is not None else "in flight"
        others = len(disk.requests) - 1 if disk else 0
        return since + (f", with {others} more of {request.disk}" if others > 0 else "")

    def _carrier(self, name: str) -> Task | None:
        """Return who carries out the requests of a disk: of a loop device, its worker, which uses a file for that."""
        disk = self.disks.named(name)
        if disk is None or disk.driver != _LOOP:
            return None
        try:
            return self._loop_worker(disk)
        except READ_ERRORS:
            # 87579e9b7d8d "loop: use worker per cgroup instead of kworker" (5.14); before, a thread of that name
            return next((task for task in self.kernel.tasks() if task.kernel_thread and task.comm == name), None)

    def _loop_worker(self, disk: Disk) -> Task | None:
        prog = self.kernel.prog
        begin = drgn.Object(prog, "struct gendisk *", disk.address).private_data.value_()
        end = begin + drgn.sizeof(prog.type("struct loop_device"))
        inside = drgn.offsetof(prog.type("struct loop_worker"), "work")
        for worker in Waiters(self.kernel).workers():
            work = int(worker.current_work.value_())
            if not work:
                continue
            if begin <= work < end:
                return task_value(worker.task)
            if self._is(worker, "loop_workfn") and \
                    drgn.Object(prog, "struct loop_worker *", work - inside).lo.value_() == begin:
                return task_value(worker.task)
        return None

    def _is(self, worker: drgn.Object, function: str) -> bool:
        try:
            return str(self.kernel.prog.symbol(worker.current_func.value_()).name).split(".")[0] == function
        except LookupError:
            return False
