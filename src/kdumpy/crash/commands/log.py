"""`log`: the kernel's log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash import waiting
from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError


@dataclass(frozen=True)
class LogRow:
    """One record."""

    seconds: float
    """Since the boot; below zero where the kernel did not keep it."""
    level: int
    """0 emergency to 7 debug; below zero where it is not known."""
    caller: str
    """T and a process id, or C and a CPU."""
    text: str
    device: str


class Log(Command[LogRow]):
    """Show the kernel's log.

    Example:
        crash> log | grep -i bug
        [    6.894905] BUG: kernel NULL pointer dereference, address: 0000000000000000
    """

    names = ("log",)
    example = "log -t"
    row = LogRow
    args = (
        Arg("-T", dest="human", action="store_true", help="the time of day (UTC), reckoned back from the crash"),
        Arg("-t", dest="bare", action="store_true", help="no times"),
        Arg("-m", dest="levels", action="store_true", help="the level of each line, as <6>"),
        Arg("-c", dest="callers", action="store_true", help="the task (T) or CPU (C) that printed each line"),
        Arg("-a", dest="audit", action="store_true", help="audit messages that no daemon has taken yet"),
        Arg("-s", dest="safe", action="store_true",
            help="messages that stand in the CPUs' own buffers still (kernels before 5.15 have such)"),
        Arg("-R", dest="rust", action="store_true", help="names of Rust as people write them: not done here"),
        Arg("-d", dest="details", action="store_true", help="the device that a line is about, below it"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[LogRow]:
        """Yield the records, oldest first."""
        if options.rust:
            raise UsageError("names of Rust are shown as the kernel has them", where="log", mend="log | rustfilt")
        if options.audit or options.safe:
            yield from (LogRow(-1.0, -1, "", text, "")
                        for text in (waiting.audit(session) if options.audit else waiting.in_cpu_buffers(session)))
            return
        records = session.kernel.log
        if not records:
            raise NotInDump("the log cannot be read", why=session.kernel.problems.get("log", "it is empty"))
        for record in records:
            yield LogRow(record.ts_ns / 1e9 if record.ts_ns >= 0 else -1.0, record.level, record.caller, record.text,
                         record.device)

    def render(self, rows: Iterable[LogRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the records out as crash does."""
        records = list(rows)
        boot = None
        crashed = session.kernel.system.panic_time
        if options.human and crashed is not None:
            boot = crashed - max((row.seconds for row in records), default=0.0)
        for row in records:
            # The kernel cuts what lies below a microsecond off; half a nanosecond makes up for the float.
            shown = int(row.seconds * 1e6 + 5e-4) / 1e6
            prefix = "" if options.bare or row.seconds < 0 else f"[{shown:12.6f}] "
            if boot is not None and not options.bare:
                prefix = time.strftime("[%a %b %e %H:%M:%S UTC %Y] ", time.gmtime(boot + row.seconds))
            if options.callers and row.caller:
                prefix += f"[{row.caller:>6}] "
            if options.levels and row.level >= 0:
                prefix += f"<{row.level}>"
            for number, line in enumerate(row.text.split("\n")):
                yield (prefix if number == 0 else " " * len(prefix)) + line
            if options.details and row.device:
                yield f"{' ' * len(prefix)}DEVICE={row.device}"
        problem = session.kernel.problems.get("log")
        if problem:
            yield f"({problem})"


COMMAND = Log()
