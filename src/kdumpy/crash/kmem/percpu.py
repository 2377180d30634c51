"""`kmem -o`: what is added to the address of a per-CPU variable to have that of a CPU's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.command import Options
from kdumpy.crash.session import Session


@dataclass(frozen=True)
class OffsetRow:
    """A CPU's offset."""

    cpu: int
    offset: int


def rows(session: Session, options: Options) -> Iterator[OffsetRow]:
    """Yield the offset of every CPU that the machine can have."""
    nothing = drgn.NULL(session.prog, "void *")
    for cpu in for_each_possible_cpu(session.prog):
        yield OffsetRow(cpu, per_cpu_ptr(nothing, cpu).value_())


def render(found: Iterable[OffsetRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the offsets out as crash does."""
    yield "PER-CPU OFFSET VALUES:"
    yield from (f"{f'CPU {row.cpu}':>7}: {row.offset:x}" for row in found)
