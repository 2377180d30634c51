"""Work shared out among processes: each answers some lots of it, and the parts come back in order.

Processes, for drgn and Python hold the interpreter's lock. They are forked, with the dump open and its symbols and
types loaded; what one of them reads and keeps is lost to the others.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from fcntl import F_SETPIPE_SZ, fcntl
from typing import NoReturn, TypeVar

from kdumpy.errors import HostError, KdumpyError
from kdumpy.kernel.deadline import Deadline, TookTooLong

Lot = TypeVar("Lot")
Part = TypeVar("Part")

_MOST = 4
"""Processes, unless the user wants more: each takes some 20 MB of its own."""
_AHEAD = 1 << 20
"""Bytes that one may be ahead of the one whose turn it is: the largest pipe that anybody may have."""
_FEWEST = 4
"""Lots from which on it is worth the fork: some milliseconds."""
_SIZE = struct.Struct("<Q")


def count_cpus() -> int:
    """Return how many processes work is shared among where the user has not said it."""
    return min(len(os.sched_getaffinity(0)), _MOST)


def in_order(lots: Sequence[Lot], work: Callable[[Lot], Iterator[Part]], workers: int, deadline: Deadline
             ) -> Iterator[Part]:
    """Yield the parts that `work` makes of each lot, the lots in their order.

    What `work` raises is raised behind the parts that the lot has given. Parts travel as pickles, and a lot's at once.

    Args:
        lots: what there is to do.
        work: does one of them; what it changes is lost where others do it.
        workers: processes; with fewer than two, or for few lots, all is done in this one, part by part.
        deadline: each process has this much time for a lot.

    Raises:
        HostError: a process died.
    """
    if workers < 2 or len(lots) < _FEWEST:
        for lot in lots:
            yield from work(lot)
        return
    with contextlib.ExitStack() as stack:
        team = [stack.enter_context(_Worker(lots[first::workers], work, deadline))
                for first in range(min(workers, len(lots)))]
        for number in range(len(lots)):
            parts: list[Part]
            parts, error = team[number % len(team)].answer()
            deadline.alive()
            yield from parts
            if error is not None:
                raise error


class _Worker:
    """A process that does its lots one after the other, and may be ahead of who reads its answers."""

    def __init__(self, lots: Sequence[Lot], work: Callable[[Lot], Iterator[Part]], deadline: Deadline) -> None:
        self._seconds = deadline.seconds
        self._link, theirs = os.pipe()
        with contextlib.suppress(OSError):      # the user has too many; smaller ones serve
            fcntl(self._link, F_SETPIPE_SZ, _AHEAD)
        with warnings.catch_warnings():         # of threads, since 3.12; ours draws on the terminal and holds no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            _run(theirs, lots, work, deadline)
        os.close(theirs)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._link)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def answer(self) -> tuple[list[Part], BaseException | None]:
        """Return the parts of the next lot, and what ended it early.

        Raises:
            HostError: the process is dead.
        """
        (size,) = _SIZE.unpack(self._read(_SIZE.size))
        parts, error = pickle.loads(self._read(size))        # from our own child
        return parts, error

    def _read(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            some = os.read(self._link, min(size - len(data), _AHEAD))
            if not some:
                raise self._died()
            data += some
        return data

    def _died(self) -> BaseException:
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGVTALRM:           # the second clock: the engine's C code did not come back
            return TookTooLong(self._seconds, "the engine")
        return HostError("a process that did part of the work died",
                         why=f"signal {-code}" if code < 0 else f"exit code {code}",
                         mend="signal 9 is most often a lack of memory; 'set workers 1' does all in one process")


def _run(link: int, lots: Sequence[Lot], work: Callable[[Lot], Iterator[Part]], deadline: Deadline) -> NoReturn:
    """Do some lots in a process of their own."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C: whoever forked us ends us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.freeze()                                         # what was there stays, and is shared
        for lot in lots:
            deadline.begin()
            parts: list[Part] = []
            error: BaseException | None = None
            try:
                parts.extend(work(lot))
            except BaseException as raised:                 # raised by the parent, who knows what to do
                error = raised
            data = _packed(parts, error)
            data = _SIZE.pack(len(data)) + data
            while data:
                data = data[os.write(link, data):]
            if isinstance(error, TookTooLong):
                break
        code = 0
    except BrokenPipeError:
        pass                                                # nobody wants the rest
    finally:
        os._exit(code)


def _packed(parts: list[Part], error: BaseException | None) -> bytes:
    try:
        return pickle.dumps((parts, error), pickle.HIGHEST_PROTOCOL)
    except Exception:       # an error of somebody's that pickle cannot carry
        return pickle.dumps((parts, KdumpyError(str(error), why=type(error).__name__)), pickle.HIGHEST_PROTOCOL)
