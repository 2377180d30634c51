"""`p`: the value of an expression."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.expression import evaluate
from kdumpy.crash.layout import Layout
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import in_user_space
from kdumpy.errors import UsageError

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class ValueRow:
    """A value."""

    expression: str
    cpu: int | None
    """The CPU of a per-CPU variable."""
    type: str
    address: int | None
    """None for a value that has no place."""
    text: str


class P(Command[ValueRow]):
    """Show the value of an expression of C: variables, members, casts, arithmetic.

    `VARIABLE:CPUS` shows a per-CPU variable on some CPUs: `p runqueues:0`, `:a` on all.

    Example:
        crash> p init_task.comm
        init_task.comm = $1 = "swapper/0"
    """

    names = ("p",)
    example = "p init_task.comm"
    row = ValueRow
    args = (
        Arg("words", nargs="+", metavar="EXPRESSION[:CPUS]", help="the expression; quotes hold a '|' or '>' in it"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-u", dest="user", action="store_true", help="what the expression refers to lies in the task's user space"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[ValueRow]:
        """Yield the value, or one a CPU."""
        text = " ".join(options.words)
        expression, colon, cpus = text.rpartition(":") if ":" in text else (text, "", "")
        layout = Layout(session, options.radix)
        value = evaluate(session, expression)
        if options.user and value.address_ is not None:
            value = in_user_space(session, value.type_, value.address_)
        if colon:
            if not _is_percpu(session, value):
                raise UsageError("this is no per-CPU variable", where=expression)
            for cpu in session.cpus(cpus) if cpus else session.cpus("a"):
                each = per_cpu(value, cpu)
                yield ValueRow(expression, cpu, each.type_.type_name(), each.address_, layout.value(each))
            return
        yield ValueRow(expression, None, value.type_.type_name(), value.address_, layout.value(value))

    def render(self, rows: Iterable[ValueRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the values out as crash does."""
        for row in rows:
            name = row.expression if row.cpu is None else f"per_cpu({row.expression}, {row.cpu})"
            yield f"{name} = ${next(_NUMBERS)} = {row.text}"


def _is_percpu(session: Session, value: drgn.Object) -> bool:
    try:
        start, end = (session.prog.symbol(name).address for name in ("__per_cpu_start", "__per_cpu_end"))
    except LookupError:
        return value.address_ is not None
    return value.address_ is not None and start <= value.address_ < end


COMMAND = P()
