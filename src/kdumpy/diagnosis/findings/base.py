"""What a check of the machine is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.errors import DamagedDump, NotInDump
from kdumpy.kernel import Kernel, Task

if TYPE_CHECKING:
    from kdumpy.diagnosis.disks import Disk
    from kdumpy.diagnosis.memoryuse.sockets import Socket
    from kdumpy.diagnosis.verdict import Judgement

_HELD_UP = frozenset({"soft-lockup", "hard-lockup", "rcu-stall", "deadlock", "nmi"})
"""Causes that hold up a CPU, and with it what waits for that one."""
_MOST_TASKS = 65_536
CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO


@dataclass(frozen=True)
class Found:
    """What a check found."""

    severity: Severity
    title: str
    detail: str = ""
    command: str = ""


class Machine:
    """What the checks look at."""

    def __init__(self, crash: Crash, account: MemoryAccount | None, judgement: Judgement | None = None) -> None:
        self.crash = crash
        self._account = account
        self.judgement = judgement
        """The verdict, beside which the checks tell what else there is; None where there is none."""

    @property
    def cause(self) -> str:
        """The verdict's cause; empty where there is none."""
        return self.judgement.cause if self.judgement else ""

    @cached_property
    def blamed_cpus(self) -> frozenset[int]:
        """The CPUs that the verdict says were held up: those on whose stack the culprit stands."""
        culprit = self.judgement.finding.culprit if self.judgement else None
        if culprit is None or self.cause not in _HELD_UP or self.crash.kernel is None:
            return frozenset()
        return frozenset(cpu.number for cpu in self.crash.kernel.cpus
                         if any(frame.symbol == culprit.symbol for frame in cpu.stack.frames))

    @cached_property
    def told_lines(self) -> frozenset[int]:
        """The lines of the log that are the verdict's own: those of the event, and of the panic that closed it."""
        events = [event for event in (self.crash.event, self.crash.closing) if event is not None and not event.inferred]
        return frozenset(number for event in events
                         for number in range(event.position, event.position + len(event.lines)))

    @property
    def kernel(self) -> Kernel:
        """The opened dump.

        Raises:
            NotInDump: only the log could be read.
        """
        if self.crash.kernel is None:
            raise NotInDump("only the log could be read")
        return self.crash.kernel

    @property
    def account(self) -> MemoryAccount:
        """Where the memory went.

        Raises:
            NotInDump: the dump does not tell.
        """
        if self._account is None:
            raise NotInDump("the counters of memory are not in the dump")
        return self._account

    @cached_property
    def cpus(self) -> int:
        """CPUs online; at least one."""
        return max(1, self.kernel.system.cpus or 1)

    @cached_property
    def disks(self) -> tuple[Disk, ...]:
        """The disks, whatever is behind them, with their requests in flight.

        Raises:
            READ_ERRORS: they cannot be read.
        """
        return self.crash.waits.disks.all if self.crash.waits else ()

    @cached_property
    def sockets(self) -> tuple[Socket, ...]:
        """The sockets of TCP and UDP that are open.

        Raises:
            READ_ERRORS: they cannot be read.
        """
        from kdumpy.diagnosis.memoryuse.sockets import sockets

        return tuple(sockets(self.kernel.prog, self.tasks))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, up to a bound; read once for all checks.

        Raises:
            READ_ERRORS: their list cannot be read to its end.
        """
        return tuple(islice(self.kernel.tasks(), _MOST_TASKS))

    @cached_property
    def jiffies(self) -> int:
        """Ticks since boot, as the kernel counts them."""
        return int(self.kernel.prog["jiffies_64"].value_())

    @cached_property
    def ticks(self) -> int:
        """Ticks a second (CONFIG_HZ).

        Raises:
            DamagedDump: ticks and uptime do not fit together.
        """
        from kdumpy.diagnosis.crashed.tracking import ticks_per_second

        found = ticks_per_second(self.kernel)
        if found is None:
            raise DamagedDump("how long a tick of the kernel's clock lasts cannot be told")
        return found

    def seconds_since(self, jiffies: int) -> float:
        """Return the seconds since a count of ticks."""
        return ((self.jiffies - jiffies) % (1 << 64)) / self.ticks

    def share(self, name: str) -> int:
        """Return the bytes of a use of memory."""
        return sum(share.size for share in self.account.shares if share.name == name)

    def has(self, symbol: str) -> bool:
        """Whether the kernel or a loaded module has a symbol: whether a part of it is there at all."""
        with contextlib.suppress(LookupError):
            return bool(self.kernel.prog.symbol(symbol).address)
        return False

    def lacks(self, need: str) -> str:
        """Return why a need is not met, empty where it is; see `Check.needs`."""
        kind, _, name = need.partition(" ")
        if self.crash.kernel is None:
            return "" if need == "the log" else "only the log could be read"
        if need == "the log":
            return self.crash.kernel.problems.get("log", "")
        if need == "the account of memory":
            return "" if self._account else "the counters of memory are not in the dump"
        try:
            if kind == "variable":
                self.crash.kernel.prog[name]
            elif kind == "symbol":
                self.crash.kernel.prog.symbol(name)
            else:
                self.crash.kernel.prog.type(need)
        except READ_ERRORS:
            # 36e68442d1af "bpf: Load and verify kernel module BTFs" (5.11)
            return f"{need} is described nowhere in this dump" + (
                "; kernels before 5.11 have no types of their modules" if kind in ("struct", "enum") else "")
        return ""


@dataclass(frozen=True)
class Check:
    """A check, by name. What it cannot read it raises: then it is not judged."""

    name: str
    look: Callable[[Machine], Iterable[Found]]
    needs: tuple[str, ...] = ()
    """What the dump has to hold: `the log`, `the account of memory`, `variable NAME`, `symbol NAME`, or a type."""
    only_if: Callable[[Machine], bool] | None = None
    """Whether that part of the kernel is there at all: where it is not, there is nothing to judge."""
    unless: str = ""
    """Another check, made before: where that found something, this one would only say it again."""
    of_a_cpu: bool = False
    """It finds what a CPU holds up; where the verdict blames that CPU, it would only say it again."""


def with_symbol(symbol: str) -> Callable[[Machine], bool]:
    """Return whether the kernel or one of its modules has a symbol."""
    return lambda machine: machine.has(symbol)


def text(value: drgn.Object) -> str:
    """Return a C string of the dump; what is not UTF-8 in it is shown as such.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    return str(value.string_().decode("utf-8", "backslashreplace"))
