"""Runs lines of commands on an opened dump; whatever fails becomes one line, and the session lives."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TextIO

from kdumpy.crash import pipes, registry
from kdumpy.crash.command import Command, Line, Options
from kdumpy.crash.failures import UNKNOWN, explain
from kdumpy.crash.output import SafeOutput, destination, find_pager, run_in_shell
from kdumpy.crash.parser import ParsedLine, parse
from kdumpy.crash.partial import Partial
from kdumpy.crash.patience import Patience
from kdumpy.crash.session import Answer, Call, Session
from kdumpy.errors import KdumpyError, NotInDump, UsageError
from kdumpy.kernel.deadline import TookTooLong
from kdumpy.kernel.kernel import Kernel

_UNPAGED = ("py",)
"""Lines that talk to the user themselves."""
_DEEPEST = 16
"""Files that run files, aliases that name aliases."""
_THEIR_OWN = ("py", "drgn", "repeat", "extend", "gdb")
"""Commands that run what the user wrote, or that have a prompt of their own."""
_SETTINGS = ("set", "alias")
"""What a crashrc does without a word."""
_OF_A_NAME = re.compile(r"symbol|variable|could not find")
"""What errors say that may come of a symbol that is lost."""


class Leave(Exception):
    """The user wants to end the session."""


class Shell:
    """A session and where its output goes."""

    def __init__(self, kernel: Kernel, out: TextIO, errors: TextIO, *, interactive: bool = False,
                 packages: bool = False) -> None:
        self.session = Session(kernel)
        self.session.run = self.run
        self.session.answer = self._answer_of
        self.session.call = self._call_of
        self.session.tell = lambda error: self._tell(self._with_cause(explain(error)))
        self.session.expression = self._address_of
        self.session.interactive = interactive
        self.out = out
        self.errors = errors
        self.interactive = interactive
        """The output may go through a pager."""
        self.session.load_packages = self._load_packages
        self._packages = packages
        """Commands of installed packages may be loaded, and were not yet."""
        self._starting = False
        """A crashrc is run."""
        self._patience = Patience(errors)
        self._depth = 0
        self._target: IO[str] | None = None
        """Where the output of a command goes that another one runs (foreach)."""

    def run(self, text: str) -> bool:
        """Run a line; return whether every command of it did what it should.

        Raises:
            Leave: the line says `exit`.
        """
        try:
            if not self._depth:
                text = self._remembered(text)
            lines = parse(text)
        except KdumpyError as error:
            self._tell(error)
            return False
        good = True
        try:
            for line in lines:
                with self.session.deadline.running():
                    good = self._attempt(line) and good
        except KeyboardInterrupt:
            if self._depth:         # a command of a command: the whole line ends
                raise
            print("^C", file=self.errors)
            return False
        except TookTooLong as error:
            if self._depth:
                raise
            self._tell(KdumpyError(f"stopped after {error.seconds:g} s of work without a line of output",
                                   why=f"it was in {error.where}" if error.where else "",
                                   mend="'set timeout SECONDS' gives it more, 0 any time"))
            return False
        return good

    def _address_of(self, text: str) -> int:
        """Return the address that an expression means.

        Raises:
            UsageError: it has none.
        """
        from kdumpy.crash.expression import address_of, evaluate  # only where one was typed in brackets

        try:
            return address_of(evaluate(self.session, text))
        except TypeError:
            raise UsageError(f"{text!r} has no address") from None

    def _remembered(self, text: str) -> str:
        """Keep a line for `h`; return what is to be run, which `r` takes from there.

        Raises:
            KdumpyError: there is no such line.
        """
        if text.split(None, 1)[:1] == ["r"]:
            from kdumpy.crash.commands.h import recalled

            text = recalled(self.session, text)
        if text.strip():
            self.session.remember(text.strip())
        return text

    def run_file(self, path: Path) -> bool:
        """Run the lines of a file; return whether every command did what it should."""
        good = True
        with path.expanduser().open(errors="replace") as file:
            for text in file:
                good = self.run(text) and good
        return good

    def start_with(self, path: Path) -> None:
        """Run the lines of a crashrc. What it sets is set in silence, as by crash; what else it says is no answer to
        what was asked: where that may go to a program, it goes beside it.
        """
        out = self.out
        self._starting = True
        if not self.interactive:
            self.out = self.errors
        try:
            self.run_file(path)
        finally:
            self._starting, self.out = False, out

    def banner(self) -> None:
        """Say what was opened, as crash does: the machine, its panic, the context."""
        from kdumpy.crash.commands.sys import context_facts, facts

        output = SafeOutput(self.out)
        for fact in facts(self.session):
            output.write(f"{fact.name:>12}: {fact.value}\n")
        try:
            for fact in context_facts(self.session, self.session.context):
                output.write(f"{fact.name:>12}: {fact.value}\n")
        except Exception as error:      # the session is of use without a context
            self._tell(explain(error, "context"))
        for what, why in self.session.kernel.debuginfo.missing.items():
            output.write(f"{'MISSING':>12}: {what}: {why}\n")
        output.write("\n")

    def _waiting(self, line: ParsedLine) -> contextlib.AbstractContextManager[None]:
        """Tell on a terminal what takes longer than a second; not while the user's own code or program has it."""
        if line.shell is not None or line.source is not None or line.name in _THEIR_OWN:
            return contextlib.nullcontext()
        return self._patience.watching(line.text)

    def _alive(self) -> None:
        """A line came out."""
        self.session.deadline.alive()
        self._patience.heard()

    def _attempt(self, line: ParsedLine) -> bool:
        if self._depth >= _DEEPEST:
            self._tell(UsageError("commands run commands too deeply", where=line.text))
            return False
        self._depth += 1
        try:
            line = self._without_alias(line)
            with self._waiting(line):
                return self._run(line)
        except Leave:
            raise
        except BrokenPipeError:
            if line.pipeline is None:
                raise
            return True
        except Exception as error:      # of drgn, of the dump's data, of ours: the session goes on
            if isinstance(error.__context__, KeyboardInterrupt | TookTooLong):      # it broke somebody's cleaning up
                raise error.__context__ from None
            self._tell(self._with_cause(explain(error, line.name)))
            return False
        finally:
            self._depth -= 1

    def _with_cause(self, error: KdumpyError) -> KdumpyError:
        """Say why nothing is known of a name, where the dump lost its symbols or types; a reason of its own stands."""
        info = self.session.kernel.debuginfo
        part = next((part for part in ("symbols", "types", "some symbols") if part in info.missing), None)
        if part is None or info.dwarf or error.where == "sys" or (error.why and error.why != UNKNOWN):
            return error
        if not isinstance(error, NotInDump) and not (isinstance(error, UsageError) and "symbol" in error.what):
            return error
        if part == "some symbols" and not _OF_A_NAME.search(error.what):
            return error
        lost = "lost some symbols" if part == "some symbols" else f"has no {part}"
        return type(error)(error.what, where=error.where, why=f"this dump {lost}: {info.missing[part]}",
                           mend=f"the kernel's vmlinux has them: kdumpy crash {self.session.kernel.path.name} VMLINUX")

    def _tell(self, error: KdumpyError) -> None:
        self._patience.heard()
        self.out.flush()
        SafeOutput(self.errors).write(f"kdumpy: {error}".replace("\n", " ") + "\n")

    def _without_alias(self, line: ParsedLine) -> ParsedLine:
        for _ in range(_DEEPEST):
            meant = self.session.aliases.get(line.name) or registry.meaning(line.name)
            if meant is None:
                return line
            made = parse(meant + line.text[len(line.name):])
            if len(made) != 1:
                raise UsageError("an alias stands for one command", where=line.name)
            line = replace(line, text=made[0].text, words=made[0].words)
        return line

    def _run(self, line: ParsedLine) -> bool:
        if line.shell is not None:
            self.out.flush()
            with self.session.deadline.paused():
                # The user's own words, as typed behind the "!".
                return run_in_shell(line.shell or '"${SHELL:-sh}" -i') == 0
        if line.source is not None:
            return self.run_file(Path(line.source))
        if line.name in registry.LEAVING:
            raise Leave
        if self._target is not None and not line.file and not line.pipeline:
            self._answer(line, self._target)
            return True
        pages = self.interactive and self.session.scroll and line.text not in _UNPAGED and line.name != "set"
        pager = find_pager() if pages else None
        with destination(line, self.out, pager) as target:
            outer, self._target = self._target, target
            try:
                self._answer(line, target)
            finally:
                self._target = outer
            target.flush()
        return True

    def _answer(self, line: ParsedLine, target: IO[str]) -> None:
        found = self._find(line)
        if found is None:
            self._ask_engine(line, target)
            return
        command, name, words = found
        if "--help" in words:
            target.write(f"{registry.help_of(name)}\n")
            return
        if command.for_engine(words):
            self._ask_engine(line, target)
            return
        options = self._options(command, name, words, line)
        options.as_text = not options.json and not line.filters
        output = self._output(line, target)
        self.session.output = output    # type: ignore[assignment]
        rows = Partial(command.rows(self.session, options))
        if self._starting and name in _SETTINGS and words:
            for _ in rows:
                pass
            return
        self._show(rows, line, output, lambda found: command.render(found, self.session, options), json=options.json)
        if rows.failure is not None:
            raise rows.failure

    def _answer_of(self, text: str) -> Answer:
        """Return the rows of a line's answer and their layout, for a command that runs another.

        Raises:
            KdumpyError: what the command's arguments deserve. The rows raise the rest.
        """
        call = self._call_of(text)
        if call is None:
            (line,) = map(self._without_alias, parse(text))
            return Answer((Line(line) for line in self.session.engine.lines(line.text)),
                          lambda rows: (row.line for row in rows))
        return Answer(call.command.rows(self.session, call.options),
                      lambda rows: call.command.render(rows, self.session, call.options))

    def _call_of(self, text: str) -> Call | None:
        """Parse a line; None where its command, or one of its options, is drgn's.

        Raises:
            KdumpyError: what the command's arguments deserve.
        """
        (line,) = map(self._without_alias, parse(text))
        found = self._find(line)
        if found is None or found[0].for_engine(found[2]):
            return None
        command, name, words = found
        return Call(command, self._options(command, name, words, line))

    @staticmethod
    def _options(command: Command[Any], name: str, words: tuple[str, ...], line: ParsedLine) -> Options:
        options = command.parse(name, words)
        options.command, options.typed = name, line.text[len(line.name):].strip()
        options.as_text = False         # the rows may go anywhere
        return options

    def _output(self, line: ParsedLine, target: IO[str]) -> SafeOutput:
        """Return what a command writes to; what goes into a file leaves the terminal silent."""
        return SafeOutput(target, self.session.deadline.alive if line.file else self._alive)

    def _show(self, rows: Iterable[Any], line: ParsedLine, output: SafeOutput,
              render: Callable[[Iterable[Any]], Iterator[str]], *, json: bool) -> None:
        """Write rows, behind the line's filters, in the command's layout, as a table, or as JSON."""
        found, wants_json = pipes.apply(rows, line.filters)
        if json or wants_json:
            _write_json([pipes.plain(row) for row in found], output)
            return
        for text in _laid_out(found, render) if line.filters else render(found):
            output.write(f"{text}\n")

    def _find(self, line: ParsedLine) -> tuple[Command[Any], str, tuple[str, ...]] | None:
        """Return our command of a line, its name and arguments; None where it is drgn's.

        Raises:
            UsageError: nobody knows it.
        """
        if line.name in registry.COMMANDS or line.name in registry.EXTENSIONS:
            return registry.command(line.name), line.name, line.arguments
        if line.name in self.session.engine.names:
            return None
        if self._is_type(line.name):        # `list_head` is `* list_head`
            return registry.command("*"), "*", line.words
        if self._load_packages() and line.name in registry.EXTENSIONS:
            return registry.command(line.name), line.name, line.arguments
        known = [*registry.COMMANDS, *registry.EXTENSIONS, *self.session.engine.names]
        import difflib  # only where something is wrong

        from kdumpy.debuginfo.btf import Kind

        if line.name in registry.OF_GDB:
            raise UsageError(f"{line.name!r} is a command of gdb's, which is not here", mend="see 'help gdb'")
        types = self.session.kernel.debuginfo.types
        structures = (types.btf.index.names[Kind.STRUCT],) if types and line.arguments else ()
        near = difflib.get_close_matches(line.name, [*known, *itertools.chain(*structures)], n=1)
        raise UsageError(f"there is no command or structure {line.name!r}",
                         mend=f"did you mean {near[0]!r}?" if near else "see 'help'")

    def _load_packages(self) -> bool:
        wanted, self._packages = self._packages, False
        if wanted:
            from kdumpy.crash.startup import load_packages

            for problem in load_packages():
                print(f"kdumpy: {problem}", file=self.errors)
        return wanted

    def _is_type(self, name: str) -> bool:
        name = name.partition(".")[0]
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            return False
        for kind in ("struct ", "union ", ""):
            try:
                self.session.prog.type(kind + name)
            except (LookupError, SyntaxError):
                continue
            return True
        return False

    def _ask_engine(self, line: ParsedLine, target: IO[str]) -> None:
        if line.text == "drgn":
            raise UsageError("drgn's own prompt is not a part of this shell",
                             mend="'py' opens a Python prompt; or give it a line: drgn CODE")
        output = self._output(line, target)
        if "--json" not in line.words and not line.filters:
            warnings = self.session.engine.run(line.text, output)   # type: ignore[arg-type]
        else:
            answer = io.StringIO()
            warnings = self.session.engine.run(re.sub(r"\s--json(?=\s|$)", "", line.text), answer)
            self._show([Line(text) for text in answer.getvalue().splitlines()], line, output,
                       lambda found: (row.line for row in found), json="--json" in line.words)
        SafeOutput(self.errors).write(warnings)


def _laid_out(rows: Iterable[Any], render: Callable[[Iterable[Any]], Iterator[str]]) -> Iterator[str]:
    """Yield the lines of rows that came through filters: the command's layout, or a table of what a filter made."""
    given = iter(rows)
    first = next(given, None)
    if first is not None:
        both = itertools.chain((first,), given)
        yield from pipes.table(both) if isinstance(first, pipes.Record) else render(both)


def _write_json(value: object, output: SafeOutput) -> None:
    json.dump(value, output.below, indent=2)        # control characters are escaped
    output.write("\n")
