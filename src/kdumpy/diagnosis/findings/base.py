"""What a check of the machine is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.errors import NotInDump
from kdumpy.kernel import Kernel

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

    def __init__(self, crash: Crash, account: MemoryAccount | None) -> None:
        self.crash = crash
        self._account = account

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

    def share(self, name: str) -> int:
        """Return the bytes of a use of memory."""
        return sum(share.size for share in self.account.shares if share.name == name)


@dataclass(frozen=True)
class Check:
    """A check, by name. What it cannot read it raises: then it is not judged."""

    name: str
    look: Callable[[Machine], Iterable[Found]]
