"""Worker processes: batches are read and compressed on all CPUs; their results come back in order.

Processes and not threads, since the page compressors are called once a page and would queue for the interpreter's
lock. They are forked, so that nothing is imported or opened again. A worker leaves its stored bytes in a slot of
shared memory, and sends the rest of its result, a few KiB, through a socket. With no workers all is done in place.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from kdumpy.capture.batch import Batch, Packer
from kdumpy.dumpfile.compressors import Packed
from kdumpy.errors import HostError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOTS = 3
"""Of a worker: one in work, one that waits for its turn to be written, one between."""

_MESSAGE = 1 << 18
"""Bytes; more than any result without its stored bytes."""


@dataclass(slots=True)
class _Worker:
    pid: int
    link: socket.socket
    slots: list[memoryview]
    free: list[int]


class Pool:
    """Packs batches; `submit` them in order, and take the results in the same order from `results`."""

    def __init__(self, packer: Packer, workers: int, batch_bytes: int) -> None:
        """Fork `workers` processes (0: none) for batches of up to `batch_bytes` bytes of pages."""
        self._packer = packer
        self._workers: list[_Worker] = []
        self._poll = select.poll()
        self._by_descriptor: dict[int, _Worker] = {}
        self._sent = self._returned = 0
        self._waiting: dict[int, tuple[_Worker, int, Batch]] = {}
        self._inline: Batch | None = None
        for _ in range(workers):
            self._fork(batch_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        for worker in self._workers:
            worker.link.close()
            if kind is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
        self._workers.clear()

    def submit(self, pfns: NDArray[np.int64]) -> Iterator[Batch]:
        """Hand in a batch; yield the results that are ready (each is valid until the next one is asked for)."""
        if not self._workers:
            yield self._packer.pack(pfns)
            return
        while not (ready := [worker for worker in self._workers if worker.free]):
            yield from self._collect()
        # The one with the most free slots has the least to do.
        worker = max(ready, key=lambda one: len(one.free))
        slot = worker.free.pop()
        try:
            worker.link.send(b"%12d%4d" % (self._sent, slot) + np.ascontiguousarray(pfns, np.int64).tobytes())
        except OSError as error:
            raise self._died(worker) from error
        self._sent += 1

    def finish(self) -> Iterator[Batch]:
        """Yield the results that are still to come."""
        while self._returned < self._sent:
            yield from self._collect()

    def _collect(self) -> Iterator[Batch]:
        """Wait for at least one result, and yield those whose turn has come."""
        for descriptor, _ in self._poll.poll():
            worker = self._by_descriptor[descriptor]
            try:
                message = worker.link.recv(_MESSAGE)
            except OSError:
                message = b""
            if not message:
                raise self._died(worker)
            answer = pickle.loads(message)          # from our own child
            if isinstance(answer, BaseException):
                raise answer
            number, slot, batch = answer
            self._waiting[number] = worker, slot, batch
        while self._returned in self._waiting:
            worker, slot, batch = self._waiting.pop(self._returned)
            if batch.packed is not None:
                size = int(batch.packed.sizes.sum())
                batch = replace(batch, packed=replace(batch.packed, data=worker.slots[slot][:size]))
            yield batch
            worker.free.append(slot)
            self._returned += 1

    def _died(self, worker: _Worker) -> HostError:
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(worker.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            why = f"signal {-code}" if code < 0 else f"exit code {code}"
            return HostError("a worker process died", why=why,
                             mend="signal 9 is most often a lack of memory: use fewer workers")
        return HostError("a worker process died")

    def _fork(self, batch_bytes: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MESSAGE)
        slots = [memoryview(mmap.mmap(-1, batch_bytes)) for _ in range(SLOTS)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for worker in self._workers:        # else a worker would not see that we are gone
                    worker.link.close()
                ours.close()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                _work(theirs, slots, self._packer)
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        worker = _Worker(pid, ours, slots, list(range(SLOTS)))
        self._workers.append(worker)
        self._by_descriptor[ours.fileno()] = worker
        self._poll.register(ours.fileno(), select.POLLIN)


def _work(link: socket.socket, slots: list[memoryview], packer: Packer) -> None:
    """Pack what comes until nobody is there any more."""
    while message := link.recv(_MESSAGE):
        try:
            number, slot = int(message[:12]), int(message[12:16])
            batch = packer.pack(np.frombuffer(message, np.int64, offset=16))
            if batch.packed is not None:
                slots[slot][:len(batch.packed.data)] = batch.packed.data
                batch = replace(batch, packed=Packed(b"", batch.packed.sizes, batch.packed.flags))
            answer: object = (number, slot, batch)
        except Exception as error:                  # told by the parent, who knows what to do
            answer = error
        link.send(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
