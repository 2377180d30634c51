"""drgn's own crash commands, through drgn's public runner, for everything that kdumpy has no command of its own for.

Source: drgn.commands.run_command and the `crash` command (docs: crash_compatibility).
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TextIO

import drgn
from drgn.commands import CommandArgumentError, CommandError, CommandNotFoundError, run_command

from kdumpy.debuginfo.lazyhelpers import load_all
from kdumpy.errors import KdumpyError, UsageError
from kdumpy.kernel.kernel import Kernel

_NOT_OURS = {"exit", "q", "help", "*"}
"""Commands of drgn's shell that are the session's own here."""


class Engine:
    """Runs drgn's commands on one dump."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.globals: dict[str, object] = {}
        """The names that drgn's `drgn` command sees."""
        self._ready = False

    def run(self, line: str, out: TextIO) -> str:
        """Run a line of drgn's (without pipe or redirection), its output going to `out`; return what it warned of.

        Raises:
            UsageError: drgn refuses the arguments.
            KdumpyError: the command failed.
        """
        self._prepare()
        errors = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                run_command(self.kernel.prog, f"crash {line}", globals=self._globals())
        except CommandNotFoundError as error:
            raise UsageError(f"there is no command {error.name!r}", mend="see 'help'") from error
        except CommandArgumentError as error:
            why = str(error).strip() or errors.getvalue().strip()
            name = line.split()[0]
            what = why.splitlines()[-1].removeprefix(f"{name}: error: ") if why else "wrong usage"
            raise UsageError(what, where=name, mend=f"see 'help {name}'") from error
        except (CommandError, NotImplementedError, SyntaxError) as error:
            raise KdumpyError(str(error) or "not supported by drgn", where=line.split()[0]) from error
        except SystemExit:
            raise UsageError("this leaves drgn's shell, which is not in use", where=line, mend="use 'exit'") from None
        return errors.getvalue()

    def lines(self, line: str) -> Iterator[str]:
        """Run a line of drgn's and yield the lines of its answer; what it wrote before it failed comes first.

        Raises:
            UsageError, KdumpyError: as `run`.
            drgn.FaultError: what it needs is not in the dump.
        """
        answer = io.StringIO()
        failure: Exception | None = None
        try:
            self.run(line, answer)
        except Exception as error:      # of whatever kind: what was written stands
            failure = error
        yield from answer.getvalue().splitlines()
        if failure is not None:
            raise failure

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of drgn's crash commands, out of its own help."""
        answer = io.StringIO()
        self.run("help", answer)
        listed = answer.getvalue().partition("Commands:")[2].partition("Try ")[0]
        return tuple(sorted(set(listed.split()) - _NOT_OURS))

    def help(self, name: str) -> str:
        """Return drgn's help of one of its commands."""
        answer = io.StringIO()
        self.run(f"help {name}", answer)
        return answer.getvalue().rstrip()

    def options(self, name: str) -> tuple[str, ...]:
        """Return the options of a command, out of its help."""
        return tuple(dict.fromkeys(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", self.help(name))))

    def set_context(self, task: drgn.Object) -> None:
        """Let drgn's commands be about a task when none is named."""
        self.run(f"set {task.value_():x}", io.StringIO())

    def set_radix(self, radix: int) -> None:
        """Let drgn's commands show integers in base 10 or 16."""
        self.run(f"set radix {radix}", io.StringIO())

    def _globals(self) -> dict[str, object]:
        if not self.globals:
            from drgn.cli import default_globals

            load_all()
            drgn.set_default_prog(self.kernel.prog)
            self.globals = {**default_globals(self.kernel.prog), "kernel": self.kernel}
        return self.globals

    def _prepare(self) -> None:
        """Have drgn's commands registered, and turn its pager off: the shell pages by itself."""
        if not self._ready:
            from importlib.metadata import distribution  # 12 ms: most sessions ask drgn for nothing

            self._ready = True
            # They are plugins of drgn's own. It loads plugins once a process, with the first program, and then only
            # those that were not disabled at that moment.
            for plugin in distribution("drgn").entry_points.select(group="drgn.plugins"):
                plugin.load()
            self.run("set scroll off", io.StringIO())
