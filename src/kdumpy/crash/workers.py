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
from typing import IO, Any, NoReturn, TypeVar

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
_TOGETHER = 1024
"""Parts that travel in one message: what a lot gives may not fit into memory."""
_HEAD = struct.Struct("<Q??")
"""In front of a message: its bytes; whether the lot goes on; whether its text is ready to be written."""


class Bulk(bytes):
    """Text, whole lines of it, of megabytes: a process writes it by itself where the output is a file or a pipe."""


class Shown(str):
    """Text to be shown, without its last line's end. A process whose lot gives nothing else writes it by itself."""

    __slots__ = ()


_leaving: set[int] = set()
"""Processes that have done their work and were still there when they were looked at last."""


def count_cpus() -> int:
    """Return how many processes work is shared among where the user has not said it."""
    return min(len(os.sched_getaffinity(0)), _MOST)


def in_order(lots: Sequence[Lot], work: Callable[[Lot], Iterator[Part]], workers: int, deadline: Deadline,
             output: IO[str] | None = None) -> Iterator[Part]:
    """Yield the parts that `work` makes of each lot, the lots in their order.

    What `work` raises is raised behind the parts that the lot has given. Parts travel as pickles, many at once.

    Args:
        lots: what there is to do.
        work: does one of them; what it changes is lost where others do it.
        workers: processes; with fewer than two, or for few lots, all is done in this one, part by part.
        deadline: each process has this much time for a lot.
        output: where `Bulk` parts go, which are then not yielded; without a descriptor they are.

    Raises:
        HostError: a process died.
        OSError: text could not be written.
    """
    if workers < 2 or len(lots) < _FEWEST:
        for lot in lots:
            yield from work(lot)
        return
    _reap()
    target = _descriptor(output)
    with contextlib.ExitStack() as stack:
        team = [stack.enter_context(_Worker(lots[first::workers], work, deadline, target))
                for first in range(min(workers, len(lots)))]
        for number in range(len(lots)):
            more = True
            while more:
                parts: list[Part]
                parts, error, more = team[number % len(team)].answer(output)
                deadline.alive()
                yield from parts
                if error is not None:
                    raise error


def _descriptor(output: IO[str] | None) -> int | None:
    if output is not None:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            return output.fileno()
    return None


class _Worker:
    """A process that does its lots one after the other, and may be ahead of who reads its answers."""

    def __init__(self, lots: Sequence[Any], work: Callable[[Any], Iterator[Any]], deadline: Deadline,
                 target: int | None) -> None:
        self._seconds = deadline.seconds
        self._lots = len(lots)
        """How many are still to come."""
        self._link, theirs = os.pipe()
        turn, self._turn = os.pipe()
        with contextlib.suppress(OSError):      # the user has too many; smaller ones serve
            fcntl(self._link, F_SETPIPE_SZ, _AHEAD)
        with warnings.catch_warnings():         # of threads, since 3.12; ours draws on the terminal and holds no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            os.close(self._turn)                # so that the end of whoever forked us is seen
            _run(theirs, turn, target, lots, work, deadline)
        os.close(theirs)
        os.close(turn)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._link)
        os.close(self._turn)
        _leaving.add(self._pid)
        if self._lots:          # nobody wants the rest
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        _reap()

    def answer(self, output: IO[str] | None) -> tuple[list[Any], BaseException | None, bool]:
        """Return the next parts of a lot, what ended it early, and whether it goes on; its text is written by then.

        Raises:
            HostError: the process is dead.
            OSError: the text could not be written.
        """
        size, more, ready = _HEAD.unpack(self._read(_HEAD.size))
        parts, error = pickle.loads(self._read(size))        # from our own child
        self._lots -= not more
        if ready and output is not None:
            output.write("")                                # it lives
            output.flush()
            os.write(self._turn, b"\1")
            (failure,) = self._read(1)
            if failure:
                raise OSError(failure, os.strerror(failure))
        return parts, error, more

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
        self._lots = 0          # its number may be another's from now on
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGVTALRM:           # the second clock: the engine's C code did not come back
            return TookTooLong(self._seconds, "the engine")
        return HostError("a process that did part of the work died",
                         why=f"signal {-code}" if code < 0 else f"exit code {code}",
                         mend="signal 9 is most often a lack of memory; 'set workers 1' does all in one process")


def _run(link: int, turn: int, target: int | None, lots: Sequence[Any], work: Callable[[Any], Iterator[Any]],
         deadline: Deadline) -> NoReturn:
    """Do some lots in a process of their own."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C: whoever forked us ends us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.freeze()                                         # what was there stays, and is shared
        for lot in lots:
            deadline.begin()
            parts: list[Any] = []
            texts: list[Bulk] = []
            error: BaseException | None = None
            try:
                for part in work(lot):
                    if target is not None and isinstance(part, Bulk):
                        texts.append(part)
                        continue
                    parts.append(part)
                    if len(parts) == _TOGETHER:
                        _send(link, parts, None, more=True)
                        parts = []
                        deadline.alive()
            except BrokenPipeError:
                raise
            except BaseException as raised:                 # raised by the parent, who knows what to do
                error = raised
            if target is not None and error is None and not texts:
                texts = _text_of(parts)
                parts = [] if texts else parts
            _send(link, parts, error, ready=bool(texts))
            if texts and target is not None:
                if not os.read(turn, 1):
                    break                                   # nobody wants the rest
                _write(link, bytes((_written(target, texts),)))
            if isinstance(error, TookTooLong):
                break
        code = 0
    except BrokenPipeError:
        pass                                                # nobody wants the rest
    finally:
        os._exit(code)


def _text_of(parts: list[Any]) -> list[Bulk]:
    """Return a lot's text, where there is nothing else and nothing in it that a terminal would obey."""
    if not parts or not all(isinstance(part, Shown) for part in parts):
        return []
    text = "\n".join(parts)
    return [Bulk(text.encode() + b"\n")] if text.isascii() and text.replace("\n", "").isprintable() else []


def wait_for_all() -> None:
    """Wait for all that have done their work, so that their CPU time counts as this process's."""
    _reap(0)


def _reap(options: int = os.WNOHANG) -> None:
    """Take leave of processes that have ended; to wait for them takes some milliseconds."""
    for pid in list(_leaving):
        try:
            ended, _ = os.waitpid(pid, options)
        except ChildProcessError:
            ended = pid
        if ended:
            _leaving.discard(pid)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest):]


def _written(target: int, texts: list[Bulk]) -> int:
    """Write texts; return 0, or the number of the error."""
    try:
        for text in texts:
            _write(target, text)
    except OSError as error:
        return error.errno or 0
    return 0


def _send(link: int, parts: list[Any], error: BaseException | None, *, more: bool = False, ready: bool = False) -> None:
    try:
        data = pickle.dumps((parts, error), pickle.HIGHEST_PROTOCOL)
    except Exception:       # an error of somebody's that pickle cannot carry
        data = pickle.dumps((parts, KdumpyError(str(error), why=type(error).__name__)), pickle.HIGHEST_PROTOCOL)
    _write(link, _HEAD.pack(len(data), more, ready) + data)
