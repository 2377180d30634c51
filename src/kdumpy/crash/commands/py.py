"""`py`: Python on the dump, a line or a whole prompt."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import drgn

from kdumpy.crash import pipes
from kdumpy.crash.command import Arg, Command, Line, Options
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.debuginfo.lazyhelpers import load_all
from kdumpy.errors import KdumpyError, UsageError

_BANNER = ("prog, kernel, task, frames; rows('ps -k') gives a command's rows, run('bt') shows them. "
           "Ctrl-D leads back.")
_SHOWN_WHOLE = (drgn.Object, drgn.Type, drgn.StackTrace, drgn.StackFrame, drgn.Symbol)
"""What is shown by str(), as drgn's own prompt does."""


class Py(Command[Any]):
    """Run a line of Python, or without one open a Python prompt. What is assigned stays for the lines that follow.

    There are prog (drgn's), kernel (kdumpy's), task (the context's task_struct), frames (its stack), drgn's names and
    helpers, rows(LINE): a command's rows as values, run(LINE): its text. The value of an expression is shown; a list of
    rows or dicts as a table, which `|:` can filter. `;` belongs to Python here, and a `|` or `>` outside of brackets
    to the shell.

    Example:
        crash> py sum(row.rss_kb for row in rows("ps -u"))
        11888
    """

    names = ("py",)
    example = 'py len(rows("mod"))'
    row = Line
    args = (Arg("words", nargs="...", metavar="[CODE]", help="an expression or statements; none opens a prompt"),)

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take everything: the code is the text of the line."""
        return Options(words=list(words), json=False, help=False)

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Run the code; yield what its value shows."""
        names = namespace(session, options.typed)
        if not options.typed:
            _converse(session, names)
            return
        unhurried = contextlib.nullcontext() if session.deadline.chosen else session.deadline.paused()
        with unhurried, contextlib.redirect_stdout(session.output), _failures():
            value = _run(options.typed, names)
            if value is None:
                return
            names["_"] = value
            yield from _as_rows(value)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Yield text as it is, records as a table."""
        found = list(rows)
        if found and all(isinstance(row, pipes.Record) for row in found):
            yield from pipes.table(found)
            return
        for row in found:
            yield row.line if isinstance(row, Line) else str(row)


def namespace(session: Session, code: str = "frames") -> dict[str, Any]:
    """Return the names that Python code sees; those of the context are read anew."""
    names = session.python
    if not names:
        from drgn.cli import default_globals

        load_all()
        drgn.set_default_prog(session.prog)
        names.update(default_globals(session.prog))
        names.update(__name__="__console__", kernel=session.kernel, session=session,
                     rows=lambda line: list(session.answer(line).rows), run=session.run)
    try:
        names["task"] = session.context
        if "frames" in code:
            names["frames"] = session.kernel.stacks.walk(session.kernel.stacks.trace(session.context))
    except Exception:       # of whatever kind: the code may not need them
        names.setdefault("task", None)
        names.setdefault("frames", [])
    return names


def _run(code: str, names: dict[str, Any]) -> Any:
    """Run code; return the value of an expression."""
    try:
        compiled = compile(code, "<py>", "eval")
    except SyntaxError:
        exec(compile(code, "<py>", "exec"), names)
        return None
    return eval(compiled, names)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Tell in one line how the user's code fails, be it when a generator of it is asked for more; exit() ends it.

    Raises:
        KdumpyError: it fails.
    """
    try:
        yield
    except SystemExit:
        return
    except (KdumpyError, drgn.FaultError) as error:
        raise explain(error, "py") from error
    except SyntaxError as error:
        raise UsageError(f"this is no Python: {error.msg}", where="py") from None
    except Exception as error:      # of the user's code, of whatever kind
        place = _line_of(error)
        raise KdumpyError(f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0], where="py",
                          why=place) from error


def _line_of(error: Exception) -> str:
    """Return in which function of the user's an error came up; empty for the line itself."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == "<py>" and code.co_name != "<module>":
            found = f"in {code.co_name}"
        trace = trace.tb_next
    return found


def _as_rows(value: Any) -> Iterator[Any]:
    """Yield a value as rows: those of a list of them, else its text."""
    if isinstance(value, Iterator) or (isinstance(value, list | tuple) and value and not hasattr(value, "_fields")):
        for one in value:
            yield _as_row(one) if _is_row(one) else Line(text_of(one))
        return
    yield from map(Line, text_of(value).splitlines() or [""])


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _as_row(value: Any) -> pipes.Record:
    if isinstance(value, Mapping):
        return pipes.Record({str(name): one for name, one in value.items()})
    return pipes.Record({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})


def text_of(value: Any) -> str:
    """Return how a prompt shows a value.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    return str(value) if isinstance(value, _SHOWN_WHOLE) else repr(value)


def _converse(session: Session, names: dict[str, Any]) -> None:
    """Open a Python prompt: IPython's where it is installed.

    Raises:
        UsageError: nobody sits at a terminal.
    """
    if not session.interactive:
        raise UsageError("a Python prompt needs a terminal", where="py", mend="py CODE; or 'kdumpy shell VMCORE'")
    shown = sys.displayhook

    def display(value: Any) -> None:
        if value is not None:
            names["_"] = value
            print(text_of(value))

    with session.deadline.paused():
        try:
            import IPython  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            sys.displayhook = display
            try:
                _plain_prompt(names)
            finally:
                sys.displayhook = shown
        else:
            print(_BANNER)
            IPython.start_ipython(argv=["--no-banner", "--no-confirm-exit"], user_ns=names)


def _plain_prompt(names: dict[str, Any]) -> None:
    import code
    import rlcompleter

    with contextlib.suppress(ImportError):
        import readline

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    with contextlib.suppress(SystemExit):
        code.InteractiveConsole(names).interact(banner=_BANNER, exitmsg="")


def complete(session: Session, word: str) -> Iterator[str]:
    """Yield what a word of Python can go on as."""
    import rlcompleter

    start = re.split(r"[^\w.]", word)[-1]
    completer, number = rlcompleter.Completer(namespace(session, "")), 0
    while (found := completer.complete(start, number)) is not None and number < 100:
        number += 1
        yield word[: len(word) - len(start)] + found.rstrip("(").rstrip()


COMMAND = Py()
