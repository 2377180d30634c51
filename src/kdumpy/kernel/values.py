"""The values that an opened dump gives out: plain, frozen, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Frame:
    """One frame of a kernel stack, innermost first."""

    pc: int
    """Program counter: the instruction itself where `interrupted`, else the return address."""
    symbol: str | None
    """The function's name as the kernel has it, with the compiler's suffixes; None when unknown."""
    offset: int | None
    """Bytes from the symbol's begin to pc."""
    module: str | None
    """Name of the module that holds pc; None for the kernel itself."""
    source: str | None = None
    """file:line where DWARF is at hand."""
    inline: bool = False
    """The frame of an inlined call: it shares pc with its caller."""
    interrupted: bool = False
    """An exception or interrupt hit here, so that the registers are those of that moment."""
    user: bool = False
    """pc lies in user space."""
    data: bool = False
    """No code: pc is the address of the variable `symbol`, which stands where no function can be named."""

    @property
    def function(self) -> str | None:
        """The function's name without the compiler's suffixes (.isra.0, .constprop.0, .cold, .part.0)."""
        return self.symbol.split(".", 1)[0] if self.symbol else None

    @property
    def jumped(self) -> bool:
        """It is on no stack: it ended in a jump to the function above it (a tail call), as its caller's call tells."""
        return self.symbol is not None and self.offset is None and not (self.inline or self.data or self.user)

    def __str__(self) -> str:
        if self.symbol is None:
            place = f"{self.pc:#x}"
        elif self.inline or self.offset is None:
            place = self.symbol
        else:
            place = f"{self.symbol}+{self.offset:#x}"
        return f"{place} [{self.module}]" if self.module else place


@dataclass(frozen=True)
class Stack:
    """The frames of a task's kernel stack, and why they end early, if they do."""

    frames: tuple[Frame, ...]
    problem: str = ""
    """Why the stack could not be unwound, or not to its end; empty when it is whole."""


@dataclass(frozen=True)
class Task:
    """A task: a thread of a process or of the kernel."""

    pid: int
    """Thread id (task_struct.pid)."""
    tgid: int
    """Process id (task_struct.tgid)."""
    parent: int
    """Process id of the parent."""
    comm: str
    state: str
    """The letter that ps shows: R S D T t X Z P I."""
    cpu: int
    """CPU it runs on or ran on last."""
    on_cpu: bool
    """It was on its CPU when the kernel died."""
    kernel_thread: bool
    address: int
    """Address of its task_struct."""


@dataclass(frozen=True)
class Cpu:
    """A CPU and what it was doing when the kernel died."""

    number: int
    task: Task | None
    panicked: bool
    """This CPU took the kernel down."""
    idle: bool
    stack: Stack
    doing: str
    """In a few words: "panicked", "idle", "in user space", "in the kernel: FUNCTION"."""


@dataclass(frozen=True)
class Module:
    """A loaded kernel module."""

    name: str
    address: int
    """Address of its struct module."""
    base: int
    """Where its code begins."""
    size: int
    """Bytes of its memory, all parts."""
    taints: str
    """Its taint letters (O out-of-tree, E unsigned, P proprietary, ...), empty when in-tree."""
    used_by: tuple[str, ...] = ()
    version: str = ""
    state: str = "live"
    source_version: str = ""
    """The checksum of its source (modinfo's srcversion); empty where the kernel does not keep it."""


@dataclass(frozen=True)
class System:
    """The machine that crashed. A value that the dump does not hold is None."""

    release: str
    version: str | None
    machine: str
    hostname: str | None
    cpus: int | None
    """CPUs online."""
    memory_bytes: int | None
    uptime_s: float | None
    boot_time: int | None
    """Seconds since 1970."""
    panic_time: int | None
    """Seconds since 1970."""
    cmdline: str | None
    taint: int | None
    """tainted_mask."""
    taints: tuple[str, ...] = ()
    """The taint flags that are set, in words."""
    load: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Panic:
    """What took the kernel down: the CPU, the task, its registers and stack."""

    cpu: int
    task: Task | None
    stack: Stack
    registers: dict[str, int] = field(default_factory=dict)
    """Registers at the fault; where there was none, those with which the kernel called panic()."""
    fault: Frame | None = None
    """The frame in which an exception was raised; None when the kernel called panic() by itself."""
    interrupted: Frame | None = None
    """The frame that was interrupted on the way to the panic, by an exception or by an interrupt that came by
    chance (a timer's, a watchdog's): then it says where the CPU was, and not that the code there is at fault."""
