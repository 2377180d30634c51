"""The state of a shell session: the context task, the radix, aliases; and names turned into addresses and back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import drgn

from kdumpy.crash.recent import Recent
from kdumpy.crash.workers import Lot, Part, count_cpus, in_order
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel.deadline import Deadline
from kdumpy.kernel.kernel import Kernel

if TYPE_CHECKING:
    from kdumpy.crash.areas import Spaces
    from kdumpy.crash.command import Command, Options
    from kdumpy.crash.engine import Engine
    from kdumpy.crash.memory.arrays import Arrays
    from kdumpy.crash.memory.slabnames import SlabNames
    from kdumpy.crash.memory.slabs import Slabs

_KERNEL_HALF = 1 << 63
_MOST_CPUS = 8192
_MOST_LINES = 512
"""Of the session that are kept."""
_MOST_PIDS = 4 << 20
"""PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h)."""


class Answer(NamedTuple):
    """What a command answers."""

    rows: Iterable[Any]
    render: Callable[[Iterable[Any]], Iterator[str]]
    """Lays rows out."""


class Call(NamedTuple):
    """A line that is parsed, of a command of ours."""

    command: Command[Any]
    options: Options


class Session:
    """A dump, and what the user has set."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.prog = kernel.prog
        self.radix = 10
        """10 or 16: how integers of structures are shown."""
        self.scroll = True
        """On a terminal, long output goes through a pager."""
        self.print_max = 200
        """Elements of an array that are shown, as gdb does."""
        self.variables: dict[str, str] = {}
        """crash's variables that were set and mean nothing here."""
        self.stale_traces = False
        """Stack traces are those of `bt -o`."""
        self.aliases: dict[str, str] = {}
        self.deadline = Deadline()
        """Stops commands that do not end."""
        self.workers = count_cpus()
        """Processes that long work is shared among; see `share`."""
        self.interactive = False
        """Somebody sits at a prompt."""
        self.run: Callable[[str], bool] = lambda line: False
        """Run a line of commands; set by the shell."""
        self.answer: Callable[[str], Answer] = lambda line: Answer((), lambda rows: iter(()))
        """Ask for what a line answers, as rows; set by the shell."""
        self.call: Callable[[str], Call | None] = lambda line: None
        """Parse a line; None where its command is drgn's. Set by the shell."""
        self.expression: Callable[[str], int] = lambda text: 0
        """Return the address that an expression means; set by the shell."""
        self.tell: Callable[[Exception], None] = lambda error: None
        """Say what went wrong, where the command goes on; set by the shell."""
        self.load_packages: Callable[[], bool] = lambda: False
        """Make the commands of installed packages known; return whether that was not done before. Set by the shell."""
        self.output: IO[str] = sys.stdout
        """Where the command that runs writes what is not a row; set by the shell."""
        self.open_files = Recent[Any]()
        """What `files` has read, by the table (struct files_struct) that threads share."""
        self.lines: dict[int, str] = {}
        """The last lines that were typed, or read from a file, by number."""
        self.values: list[drgn.Object] = []
        """What `p` has shown: `$1` is the first."""
        self.python: dict[str, Any] = {}
        """The names of `py`."""
        self._context: drgn.Object | None = None

    @cached_property
    def engine(self) -> Engine:
        """drgn's own crash commands."""
        from kdumpy.crash.engine import Engine

        made = Engine(self.kernel)
        if self._context is not None:
            made.set_context(self._context)
        return made

    @cached_property
    def arrays(self) -> Arrays:
        """The kernel's memory as numpy arrays, for commands that go through much of it."""
        from kdumpy.crash.memory.arrays import Arrays

        return Arrays(self.prog, self.kernel.dump, self.deadline.alive)

    @cached_property
    def slabs(self) -> Slabs:
        """The slab allocator, all slabs at a time."""
        from kdumpy.crash.memory.slabs import Slabs

        return Slabs(self.prog, self.arrays, self.share)

    @cached_property
    def slab_names(self) -> SlabNames:
        """Which slab cache an address lies in, for some addresses."""
        from kdumpy.crash.memory.slabnames import SlabNames

        return SlabNames(self.prog, self.kernel.dump)

    @cached_property
    def spaces(self) -> Spaces:
        """The address spaces of processes."""
        from kdumpy.crash.areas import Spaces

        return Spaces(self.prog)

    def share(self, lots: Sequence[Lot], work: Callable[[Lot], Iterator[Part]]) -> Iterator[Part]:
        """Yield what `work` makes of each lot, the lots in their order, several at a time where it pays.

        With DWARF one process does it all: drgn reads that with threads of its own, which a forked process lacks.
        """
        return in_order(lots, work, 1 if self.kernel.debuginfo.dwarf else self.workers, self.deadline,
                        self.output)

    @property
    def context(self) -> drgn.Object:
        """The `struct task_struct *` that commands are about when none is named; the panic task at first."""
        if self._context is None:
            try:
                self._context = self.prog.crashed_thread().object
            except (ValueError, LookupError, drgn.FaultError):
                try:
                    self._context = next(iter(self.tasks_running()))
                except StopIteration:
                    raise NotInDump("there is no task to begin with", why="the dump names no panic task",
                                    mend="set one: set PID") from None
        return self._context

    def set_context(self, task: drgn.Object) -> None:
        """Make a task the context, for drgn's commands too."""
        self._context = task
        if "engine" in self.__dict__:       # else it takes it over when it is made
            self.engine.set_context(task)

    def tasks_running(self) -> Iterator[drgn.Object]:
        """Yield the `struct task_struct *` on each online CPU."""
        from drgn.helpers.linux.sched import cpu_curr

        from kdumpy.kernel.online import online_cpus

        for cpu in online_cpus(self.prog):
            yield cpu_curr(self.prog, cpu)

    def active(self) -> set[int]:
        """Return the addresses of the tasks on the CPUs; those that cannot be read are left out."""
        found: set[int] = set()
        try:
            for task in self.tasks_running():
                found.add(task.value_())
        except READ_ERRORS:
            pass
        return found

    def task(self, text: str) -> drgn.Object:
        """Return the task of a process id (decimal or hexadecimal) or of the address of a task_struct.

        Raises:
            NotInDump: there is none.
            UsageError: the text is neither.
        """
        from drgn.helpers.linux.pid import find_task
        from drgn.helpers.linux.sched import idle_task

        if text.isdecimal() and len(text) < 12:
            if int(text) == 0:
                return idle_task(self.prog, 0)
            found = find_task(self.prog, int(text))
            if not found:
                raise NotInDump(f"there is no task with process id {text}")
            return found
        try:
            address = int(text, 16)
        except ValueError:
            raise UsageError(f"{text!r} is neither a process id nor the address of a task") from None
        if 0 <= address < _MOST_PIDS:
            return self.task(str(address))
        task = self.kernel.task_object(address)
        if not self.is_task(task):
            raise NotInDump(f"there is no task at {text}")
        return task

    def is_task(self, task: drgn.Object) -> bool:
        """Whether a `struct task_struct *` is that of a task."""
        from drgn.helpers.linux.pid import find_task

        try:
            pid = task.pid.value_()
            return task.value_() in self.idle_tasks if pid == 0 else bool(find_task(self.prog, pid) == task)
        except drgn.FaultError:
            return False

    @cached_property
    def idle_tasks(self) -> frozenset[int]:
        """The addresses of the idle tasks, one a CPU, which no table of process ids has."""
        from drgn.helpers.linux.sched import idle_task

        found = set()
        for cpu in self.cpus("a"):
            try:
                found.add(idle_task(self.prog, cpu).value_())
            except READ_ERRORS:
                continue
        return frozenset(found)

    def tasks_of(self, named: Sequence[str | drgn.Object]) -> list[drgn.Object]:
        """Return the tasks that are named, or given as they are, or the context."""
        return [self.task(one) if isinstance(one, str) else one for one in named] if named else [self.context]

    def remember(self, line: str) -> None:
        """Add a line to those of the session; the oldest gives way."""
        self.lines[next(reversed(self.lines), 0) + 1] = line
        if len(self.lines) > _MOST_LINES:
            del self.lines[next(iter(self.lines))]

    def value(self, name: str) -> drgn.Object:
        """Return a value that `p` has shown, by gdb's names: `$3`; `$` the last, `$$` the one before, `$$2` …

        Raises:
            NotInDump: there is none.
        """
        if name[1:2].isalpha() or name[1:2] == "_":
            raise NotInDump(f"{name} means nothing here", why="gdb's names for registers and its variables need gdb",
                            mend="'bt' shows the registers")
        if name.startswith("$$"):
            number = len(self.values) - int(name[2:] or 1)
        else:
            number = int(name[1:] or len(self.values))
        if not 0 < number <= len(self.values):
            raise NotInDump(f"there is no value {name}", why=f"'p' has shown {len(self.values)}")
        return self.values[number - 1]

    def address(self, text: str) -> int:
        """Return the address of `SYMBOL`, `SYMBOL+OFFSET` or a hexadecimal number, as crash reads it.

        In brackets it may be any expression: `(schedule+20)`, `(init_task.tasks.next)`.

        Raises:
            UsageError: it is none of these.
        """
        if text.startswith("(") and text.endswith(")"):
            inner = text[1:-1].strip()
            if not re.fullmatch(r"&?\w+(\s*\+\s*\w+)?", inner):
                return self.expression(text)
            text = re.sub(r"\s", "", inner)
        name, plus, offset = text.partition("+")
        try:
            more = int(offset, 0) if plus else 0
        except ValueError:
            raise UsageError(f"{offset!r} is no offset", where=text) from None
        # A symbol goes first only where it cannot be a number: `add` is both.
        try:
            return int(name, 16) + more
        except ValueError:
            pass
        try:
            return int(self.prog.symbol(name.lstrip("&")).address) + more
        except LookupError:
            raise UsageError(f"{name!r} is neither a symbol nor an address") from None

    def symbol(self, address: int) -> drgn.Symbol | None:
        """Return the symbol that holds an address of the kernel, or None."""
        if address < _KERNEL_HALF:
            return None
        try:
            return self.prog.symbol(address)
        except LookupError:
            return None

    def place(self, address: int, *, radix: int | None = None) -> str:
        """Return an address as `symbol+offset`, or empty when no symbol is near."""
        symbol = self.symbol(address)
        if symbol is None:
            return ""
        offset = address - symbol.address
        if not offset:
            return str(symbol.name)
        return f"{symbol.name}+{offset:#x}" if (radix or self.radix) == 16 else f"{symbol.name}+{offset}"

    def check_lines(self) -> None:
        """Say that no lines of source are known; behind what was asked for with them.

        Raises:
            NotInDump: there is no DWARF.
        """
        if not self.kernel.debuginfo.dwarf:
            raise NotInDump("no file and line is known", why="they stand in DWARF, and none is at hand",
                            mend=f"kdumpy crash {self.kernel.path.name} VMLINUX")

    def module(self, address: int) -> str | None:
        """Return the name of the module that holds an address."""
        symbols = self.kernel.debuginfo.module_symbols
        return symbols.module_at(address) if symbols else None

    def cpus(self, text: str) -> list[int]:
        """Return the CPUs of a list such as `0,2-3`, `a` or `all`.

        Raises:
            UsageError: it is no such list, or names a CPU that the machine does not have.
        """
        from drgn.helpers.linux.cpumask import for_each_possible_cpu

        possible = list(for_each_possible_cpu(self.prog))[:_MOST_CPUS]
        if text in ("a", "all"):
            return possible
        found: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise UsageError(f"{text!r} is no list of CPUs", mend="such as 0,2-3 or a")
            low, high = int(first), int(last or first)
            if high > max(possible) or low not in possible:
                raise UsageError(f"there is no CPU {high if low in possible else low}",
                                 why=f"the machine has {len(possible)}")
            found += [cpu for cpu in range(low, high + 1) if cpu in possible]
        return sorted(set(found))
