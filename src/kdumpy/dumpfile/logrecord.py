"""One record of the kernel log, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

CPU_CALLER = 0x80000000
"""Bit of caller_id: the number is a CPU's and not a task's. Source: kernel/printk/printk.c."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """What one printk() left."""

    seq: int
    """Number of the record since boot."""
    ts_ns: int
    """Nanoseconds since boot (the local clock of the CPU that printed); -1 where it is not known."""
    level: int
    """0 emergency to 7 debug; -1 where it is not known."""
    facility: int
    """0 kernel, 1 user, … as in syslog; -1 where it is not known."""
    caller: str
    """`T42` a task, `C1` a CPU in an interrupt; empty where the kernel does not keep it."""
    text: str
    """Without the closing newline; bytes that are not UTF-8 are shown as \\xNN."""
    subsystem: str = ""
    device: str = ""
    """What dev_printk() was given: `pci`, `+pci:0000:00:01.0`."""

    @property
    def seconds(self) -> float:
        """Seconds since boot."""
        return self.ts_ns / 1e9

    def prefix(self, *, callers: bool = False) -> str:
        """Return the time, and on demand the caller, as dmesg shows them."""
        if self.ts_ns < 0:
            return ""
        seconds, rest = divmod(self.ts_ns, 1_000_000_000)
        stamp = f"[{seconds:5}.{rest // 1000:06}] "
        return f"{stamp}[{self.caller:>6}] " if callers and self.caller else stamp

    def lines(self, *, callers: bool = False) -> Iterator[str]:
        """Yield the record's lines, each with its time, as `dmesg` prints them.

        Kernels built without CONFIG_PRINTK_CALLER keep the caller too and do not show it.
        """
        prefix = self.prefix(callers=callers)
        for line in self.text.split("\n"):
            yield prefix + line

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(slots=True)
class Progress:
    """What a reader could not read."""

    unreadable: int = 0
    why: str = ""
    """The first reason."""

    def lost(self, count: int, why: object) -> None:
        """Count records that cannot be read."""
        self.unreadable += count
        self.why = self.why or str(why)


def caller_of(number: int) -> str:
    """Return a caller_id as `T…` or `C…`."""
    return f"C{number - CPU_CALLER}" if number & CPU_CALLER else f"T{number}"


def text_of(raw: bytes) -> str:
    """Return a record's bytes as text."""
    return raw.decode("utf-8", "backslashreplace")
