"""`p`: the value of an expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.expression import evaluate
from kdumpy.crash.layout import FORMATS, Layout, unaliased
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import in_user_space
from kdumpy.errors import UsageError


@dataclass(frozen=True)
class ValueRow:
    """A value."""

    expression: str
    number: int | None
    """`$1` is the first of the session; None where only the places of a per-CPU variable are told."""
    cpu: int | None
    """The CPU of a per-CPU variable."""
    type: str
    address: int | None
    """None for a value that has no place."""
    value: int | None
    """Of an integer or a pointer."""
    pointer: bool
    """It is an address, and `type` stands in front of it."""
    text: str


class P(Command[ValueRow]):
    """Show the value of an expression of C: variables, members, casts, arithmetic.

    `VARIABLE:CPUS` shows a per-CPU variable on some CPUs: `p runqueues:0`, `:a` on all; without, where it lies.
    As in gdb, `$1` is the first value that was shown, `$` the last, `$$2` the second before; `FIRST@COUNT` is an
    array; `p/x`, `p/d`, `p/u`, `p/o`, `p/t`, `p/z`, `p/c` and `p/a` choose how numbers look.

    Example:
        crash> p nr_cpu_ids
        nr_cpu_ids = $1 = 2
        crash> p init_task.tasks.next
        $2 = (struct list_head *) 0xff29ecb5011f0950
        crash> p *$
        $3 = {
          next = 0xff29ecb5011f4950,
          prev = 0xffffffffaae1b210 <init_task+2000>
        }
    """

    names = ("p",)
    example = "p nr_cpu_ids"
    row = ValueRow
    args = (
        Arg("words", nargs="+", metavar="EXPRESSION[:CPUS]", help="the expression; quotes hold a '|' or '>' in it"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-u", dest="user", action="store_true", help="what the expression refers to lies in the task's user space"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
        Arg("--format", dest="letter", choices=(*FORMATS, "s"), metavar="LETTER", help="what p/LETTER is short for"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[ValueRow]:
        """Yield the value, or one a CPU; or where a per-CPU variable lies.

        Raises:
            UsageError: the expression is none, or is one of a per-CPU variable and no CPU is named.
            NotInDump: a name in it is not known.
        """
        text = " ".join(options.words)
        expression, colon, cpus = text.rpartition(":") if ":" in text else (text, "", "")
        expression = expression.strip()
        layout = Layout(session, options.radix, (options.letter or "").replace("s", ""))
        value = evaluate(session, expression)
        if options.user and value.address_ is not None:
            value = in_user_space(session, value.type_, value.address_)
        percpu = _is_percpu(session, value)
        if colon:
            if not percpu:
                raise UsageError("this is no per-CPU variable", where=expression)
            for cpu in session.cpus(cpus or "a"):
                yield _row(session, layout, expression, per_cpu(value, cpu), cpu)
        elif percpu and re.fullmatch(r"\w+", expression):
            for cpu in session.cpus("a"):
                yield ValueRow(expression, None, cpu, value.type_.variable_declaration(expression),
                               per_cpu(value, cpu).address_, None, False, "")
        elif percpu:
            raise UsageError("every CPU has this of its own", where=expression, mend=f"p {expression}:0, or :a for all")
        else:
            yield _row(session, layout, expression, value)

    def render(self, rows: Iterable[ValueRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the values out as crash does: the name stands in front of a variable's."""
        told = False
        for row in rows:
            if row.number is None:
                if not told:
                    yield from ("PER-CPU DATA TYPE:", f"  {row.type};", "PER-CPU ADDRESSES:")
                    told = True
                yield f"  [{row.cpu}]: {row.address:x}"
                continue
            name = "" if not re.fullmatch(r"[A-Za-z_]\w*", row.expression) or row.address is None else row.expression
            name = name if row.cpu is None else f"per_cpu({row.expression}, {row.cpu})"
            yield f"{name and f'{name} = '}${row.number} = {f'({row.type}) ' if row.pointer else ''}{row.text}"


def _row(session: Session, layout: Layout, expression: str, value: drgn.Object, cpu: int | None = None) -> ValueRow:
    text = layout.value(value)
    session.values.append(value)
    made = unaliased(value.type_)
    pointer = made.kind == drgn.TypeKind.POINTER
    number = value.value_() if pointer or made.kind in (drgn.TypeKind.INT, drgn.TypeKind.ENUM) else None
    # gdb leaves the type of a text out, and that of an address that is shown as a number.
    typed = pointer and not layout.letter and not (value.type_.kind == drgn.TypeKind.POINTER
                                                   and re.fullmatch(r"(const )?char", made.type.type_name()))
    return ValueRow(expression, len(session.values), cpu, value.type_.type_name(), value.address_, number, typed, text)


def _is_percpu(session: Session, value: drgn.Object) -> bool:
    if value.address_ is None:
        return False
    try:
        start, end = (session.prog.symbol(name).address for name in ("__per_cpu_start", "__per_cpu_end"))
    except LookupError:
        return False
    return bool(start <= value.address_ < end)


COMMAND = P()
