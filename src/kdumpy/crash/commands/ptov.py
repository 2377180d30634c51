"""`ptov`: the kernel's virtual address of physical memory, or of a per-CPU variable on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import drgn
from drgn.helpers.linux.mm import phys_to_virt
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.numbers import hexadecimal
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_WIDEST = 52
"""Bits of a physical address, of x86-64 and arm64 alike."""


@dataclass(frozen=True)
class VirtualRow:
    """An address and what it is to the kernel."""

    given: int
    """A physical address; with a CPU, the offset of a per-CPU variable."""
    cpu: int | None
    """None for a physical address."""
    virtual: int


class Ptov(Command[VirtualRow]):
    """Turn physical addresses into virtual ones of the direct map, or per-CPU offsets into a CPU's addresses.

    Example:
        crash> ptov 1000
        VIRTUAL           PHYSICAL
        ff26bcbcc0001000  1000
        crash> ptov b0c0:a
        PER-CPU OFFSET: b0c0
          CPU  VIRTUAL
          [0]  ff26bcbce6e0b0c0
          [1]  ff26bcbce6f0b0c0
    """

    names = ("ptov",)
    example = "ptov 1000"
    row = VirtualRow
    args = (Arg("addresses", nargs="+", metavar="ADDRESS|OFFSET:CPUS", help="physical addresses, hexadecimal; or an "
                "offset with CPUs (0-3, a; none: the context's)"),)

    def rows(self, session: Session, options: Options) -> Iterator[VirtualRow]:
        """Yield a row an address, or one a CPU.

        Raises:
            UsageError: one is no address, or there is no such CPU.
        """
        for text in options.addresses:
            given, colon, cpus = text.partition(":")
            address = hexadecimal(given)
            if colon:
                pointer = drgn.Object(session.prog, "void *", value=address)
                for cpu in session.cpus(cpus) if cpus else [_context_cpu(session)]:
                    yield VirtualRow(address, cpu, per_cpu_ptr(pointer, cpu).value_())
                continue
            if address >> _WIDEST:
                raise UsageError(f"{text!r} is no physical address", why=f"it has more than {_WIDEST} bits")
            yield VirtualRow(address, None, phys_to_virt(session.prog, address).value_())

    def render(self, rows: Iterable[VirtualRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the addresses out as crash does."""
        begun = False
        for (given, percpu), found in groupby(rows, key=lambda row: (row.given, row.cpu is not None)):
            if begun:
                yield ""
            begun = True
            if not percpu:
                for row in found:
                    yield f"{'VIRTUAL':<16}  PHYSICAL"
                    yield f"{row.virtual:<16x}  {given:x}"
                continue
            yield f"PER-CPU OFFSET: {given:x}"
            yield "  CPU  VIRTUAL"
            yield from (f"  {f'[{row.cpu}]':<3}  {row.virtual:x}" for row in found)


def _context_cpu(session: Session) -> int:
    from drgn.helpers.linux.sched import task_cpu

    return int(task_cpu(session.context))


COMMAND = Ptov()
