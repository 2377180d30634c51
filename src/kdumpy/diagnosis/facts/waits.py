"""Who waits for whom: the graph, its circles, and who is at its roots."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdumpy.diagnosis.facts.base import HEX


@dataclass(frozen=True)
class WaitEdge:
    """A task that waits for something, and who is known to hold it."""

    pid: int
    """Thread that waits."""
    comm: str
    """Its name."""
    kind: str
    """mutex, rwsem, percpu rwsem, semaphore, completion, wait queue, variable, page lock, buffer lock, bit lock, socket
    lock, RCU, SRCU, work, thread (its end), interrupt thread (the end of its interrupt), file in use, or I/O (a request
    that a disk or a server has not answered); rt_mutex; spinlock or rwlock, of a CPU that spins, or with PREEMPT_RT of
    a task; timer, high-resolution timer, interrupt, tasklet or call, of a CPU that spins until that has ended."""
    mode: str
    """read or write, where the kind tells them apart; empty otherwise."""
    name: str
    """What it waits for, by name where it has one, else by address; empty where it is not known."""
    address: int = field(metadata=HEX)
    """Where that lies; 0 where it is not known."""
    owner_pid: int | None
    """Thread that holds it; null where nobody does or nobody can be told."""
    owner_comm: str | None
    """Its name."""
    certain: bool
    """The owner is certain: a lock's word names its one owner; a reader is only the last of several."""
    function: str
    """The function that waits, the innermost one that is not the kernel's waiting itself."""
    seconds: float | None
    """Seconds since the task last ran; null where unknown."""
    note: str
    """What else is known: how many readers hold it, which CPUs a grace period waits for; may be empty."""


@dataclass(frozen=True)
class LockOrder:
    """What a task of a circle holds, and what it waits for."""

    pid: int
    """The thread."""
    comm: str
    """Its name."""
    function: str
    """Function in which it waits."""
    holds: str
    """The lock that it holds and that the one before it waits for."""
    wants: str
    """The lock that it waits for."""


@dataclass(frozen=True)
class WaitCircle:
    """Tasks of which each waits for the next one: none can go on."""

    orders: tuple[LockOrder, ...]
    """In the order of waiting; the last one waits for the first one."""


@dataclass(frozen=True)
class WaitRoot:
    """A task that others wait for and that waits for no other one."""

    pid: int
    """The thread."""
    comm: str
    """Its name."""
    state: str
    """Its state, as ps shows it."""
    waiters: tuple[int, ...]
    """Threads that wait for it, directly or through others."""
    doing: str
    """What it is doing, in words."""
    trace: tuple[str, ...]
    """Its stack, innermost first."""


@dataclass(frozen=True)
class WaitFamily:
    """Blocked tasks with the same stack."""

    count: int
    """How many there are."""
    pids: tuple[int, ...]
    """Their threads."""
    waits_for: str
    """What they wait for, in words."""
    trace: tuple[str, ...]
    """The functions of their stack, innermost first."""


@dataclass(frozen=True)
class WaitGraph:
    """Who waits for whom."""

    edges: tuple[WaitEdge, ...]
    """Every wait of a blocked task, of the owners that it leads to, and of the CPUs that spin."""
    circles: tuple[WaitCircle, ...]
    """Deadlocks."""
    roots: tuple[WaitRoot, ...]
    """Who holds the others up, the one with most waiters first."""
    families: tuple[WaitFamily, ...]
    """Blocked tasks by stack, the largest family first."""
