"""`irq`: interrupts, who handles them, how often they came; the gates of x86, the soft interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.cpumask import cpumask_to_cpulist
from drgn.helpers.linux.irq import (
    for_each_irq_desc,
    gate_desc_func,
    irq_desc_affinity_mask,
    irq_desc_chip_name,
    irq_get_nr_irqs,
)
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.lists import chain
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel.online import online_cpus

_MOST_IRQS = 1 << 20


@dataclass(frozen=True)
class Action:
    """A driver's handler."""

    address: int
    """Of its struct irqaction."""
    name: str
    handler: str
    flags: int


@dataclass(frozen=True)
class IrqRow:
    """An interrupt."""

    irq: int
    descriptor: int
    """Address of its struct irq_desc; 0 where none is allocated."""
    actions: tuple[Action, ...]
    chip: str
    flow: str
    """edge, level, fasteoi …: how the kernel handles it; empty where that is not known."""
    affinity: str
    """A list of CPUs; empty where the kernel keeps none."""
    counts: dict[int, int]
    """How often it came, by CPU; with -s only."""


@dataclass(frozen=True)
class VectorRow:
    """A gate of the interrupt descriptor table, or a soft interrupt."""

    vector: int
    function: int
    symbol: str


class Irq(Command[Any]):
    """List the interrupts and who handles them.

    Example:
        crash> irq 4
         IRQ   IRQ_DESC/_DATA      IRQACTION      NAME
          4   ff26bcbcc114ac00  ff26bcbcc26ec000  "ttyS0"
    """

    names = ("irq",)
    example = "irq -u"
    row = IrqRow
    args = (
        Arg("which", nargs="*", metavar="NUMBER", help="these interrupts only"),
        Arg("-u", dest="used", action="store_true", help="only those that are in use"),
        Arg("-d", dest="gates", action="store_true", help="the interrupt descriptor table (x86)"),
        Arg("-b", dest="soft", action="store_true", help="the soft interrupts"),
        Arg("-a", dest="affinity", action="store_true", help="on which CPUs each may come"),
        Arg("-s", dest="counts", action="store_true", help="how often each came on each CPU"),
        Arg("-c", dest="cpus", metavar="CPUS", help="with -s: these CPUs only"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield the interrupts, gates or soft interrupts."""
        if options.gates:
            return _gates(session)
        if options.soft:
            return _soft(session)
        if options.cpus and not options.counts:
            raise UsageError("-c goes with -s", where="irq")
        return _interrupts(session, options)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay them out as crash does."""
        if options.gates:
            yield from (f"{f'[{row.vector}]':>5} {row.symbol or f'{row.function:x}'}" for row in rows)
        elif options.soft:
            yield "SOFTIRQ_VEC      ACTION"
            yield from (f"{f'[{row.vector}]':^11} {row.function:>20x}  <{row.symbol}>" for row in rows)
        elif options.affinity:
            yield "IRQ NAME                 AFFINITY"
            yield from (f"{row.irq:>3} {_names(row):<20} {row.affinity}".rstrip() for row in rows)
        elif options.counts:
            yield from _counts(list(rows))
        else:
            yield " IRQ   IRQ_DESC/_DATA      IRQACTION      NAME"
            for row in rows:
                yield from _lines(row)


def _interrupts(session: Session, options: Options) -> Iterator[IrqRow]:
    wanted = {_number(text) for text in options.which}
    cpus = (session.cpus(options.cpus) if options.cpus else list(online_cpus(session.prog))) \
        if options.counts else []
    narrow = options.used or options.affinity or options.counts
    unread = Unread("handlers of interrupts")
    descriptors = dict(unread.all(for_each_irq_desc(session.prog)))
    last = max(descriptors, default=-1)
    count = min(irq_get_nr_irqs(session.prog), _MOST_IRQS) if not narrow else last + 1
    if wanted and max(wanted) >= max(count, last + 1):
        raise NotInDump(f"there is no interrupt {max(wanted)}", why=f"they go to {max(count, last + 1) - 1}")
    for number in sorted(wanted) if wanted else range(max(count, last + 1)):
        descriptor = descriptors.get(number)
        if descriptor is None:
            if not narrow:
                yield IrqRow(number, 0, (), "", "", "", {})
            continue
        actions = tuple(unread.rows(chain(descriptor.action, "next"), lambda action: _action(session, action)))
        try:
            row = _row(number, descriptor, actions, cpus, affinity=options.affinity or options.json)
        except READ_ERRORS as error:
            unread.lost(f"interrupt {number}", error)
            continue
        if row.actions or not (options.affinity or options.counts):
            yield row
    unread.tell()


def _row(number: int, descriptor: drgn.Object, actions: tuple[Action, ...], cpus: list[int], *,
         affinity: bool) -> IrqRow:
    def read(value: Callable[[], str]) -> str:
        try:
            return value()
        except READ_ERRORS:
            return ""

    return IrqRow(
        number, descriptor.value_(), actions,
        read(lambda: (irq_desc_chip_name(descriptor) or b"").decode("utf-8", "backslashreplace")),
        read(lambda: descriptor.name.string_().decode("utf-8", "backslashreplace") if descriptor.name else ""),
        read(lambda: cpumask_to_cpulist(irq_desc_affinity_mask(descriptor))) if affinity else "",
        _came(descriptor, cpus))


def _action(session: Session, action: drgn.Object) -> Action:
    name = action.name.string_().decode("utf-8", "backslashreplace") if action.name else ""
    handler = action.handler.value_()
    return Action(action.value_(), name, session.place(handler) or f"{handler:x}", action.flags.value_())


def _came(descriptor: drgn.Object, cpus: list[int]) -> dict[int, int]:
    if not cpus or not descriptor.kstat_irqs:
        return dict.fromkeys(cpus, 0)
    counts = descriptor.kstat_irqs.read_()
    # Commit 86d2a2f51fba ("genirq: Convert kstat_irqs to a struct") (v6.10).
    each = counts.cnt if hasattr(counts, "cnt") else counts[0]
    return {cpu: per_cpu(each, cpu).value_() for cpu in cpus}


def _gates(session: Session) -> Iterator[VectorRow]:
    if session.kernel.system.machine != "x86_64":
        raise NotInDump("only x86 has an interrupt descriptor table")
    for vector, gate in enumerate(session.prog["idt_table"]):
        function = gate_desc_func(gate).value_()
        yield VectorRow(vector, function, session.place(function, radix=10))


def _soft(session: Session) -> Iterator[VectorRow]:
    for vector, action in enumerate(session.prog["softirq_vec"]):
        function = action.action.value_()
        yield VectorRow(vector, function, session.place(function, radix=10))


def _names(row: IrqRow) -> str:
    return ",".join(action.name for action in row.actions)


def _counts(rows: list[IrqRow]) -> Iterator[str]:
    if not rows:
        return
    yield ("     " + "".join(f"{f'CPU{cpu}':>10} " for cpu in rows[0].counts)).rstrip()
    chips = [f"{row.chip}-{row.flow}" if row.flow else row.chip for row in rows]
    width = max(map(len, chips))
    for row, chip in zip(rows, chips, strict=True):
        yield (f"{row.irq:>3}: " + "".join(f"{count:>10} " for count in row.counts.values())
               + f" {chip:<{width}}  {_names(row)}")


def _lines(row: IrqRow) -> Iterator[str]:
    descriptor = f"{row.descriptor:016x}" if row.descriptor else "    (unused)    "
    if not row.actions:
        yield f"{row.irq:>3}   {descriptor}      (unused)"
    for number, action in enumerate(row.actions):
        yield (f"{row.irq if not number else '':>3}   {descriptor if not number else '':16}  {action.address:016x}  "
               f'"{action.name}"')


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no number of an interrupt", where="irq")
    return int(text)


COMMAND = Irq()
