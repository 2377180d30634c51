"""`dis`: machine code as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from drgn import Symbol, SymbolKind

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.disassembler import Disassembler, Instruction
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import read_user
from kdumpy.errors import NotInDump, UsageError

_MOST = 100_000


@dataclass(frozen=True)
class InstructionRow:
    """An instruction."""

    address: int
    place: str
    """function+offset."""
    bytes: str
    """In hexadecimal."""
    text: str
    """In the syntax of the GNU assembler."""
    target: str
    """Where a call or jump goes, as function+offset, or empty."""
    source: str | None
    """file:line where DWARF is at hand."""
    fault: bool
    """The kernel died in this one."""
    registers: dict[str, int]
    """What the registers that it uses held then; of the marked one alone."""


class Dis(Command[InstructionRow]):
    """Disassemble a function, or the instructions at an address, as they were in memory.

    The instruction in which the kernel died is marked, with what the registers that it uses held.

    Example:
        crash> dis flaky_poll_channel
        0xffffffffc0559020 <flaky_poll_channel>:	nopl   (%rax,%rax)
        ...
        0xffffffffc055902f <flaky_poll_channel+15>:	mov    (%rax),%eax  <== the kernel died here: rax=0
    """

    names = ("dis",)
    example = "dis schedule 3"
    row = InstructionRow
    args = (
        Arg("address", metavar="FUNCTION|ADDRESS", help="a function, or an address in hexadecimal, or FUNCTION+OFFSET"),
        Arg("count", nargs="?", metavar="COUNT",
            help="how many instructions; a whole function, or one at an address, if not given"),
        Arg("-r", dest="reverse", action="store_true", help="from the function's begin to the address"),
        Arg("-f", dest="forward", action="store_true", help="from the address to the function's end"),
        Arg("-l", dest="lines", action="store_true", help="file and line, where DWARF is at hand"),
        Arg("-s", dest="lines", action="store_true", help="the same"),
        Arg("-x", dest="radix", action="store_const", const=16, help="offsets in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="offsets in decimal"),
        Arg("-u", dest="user", action="store_true", help="the address is of the context task's user space"),
        Arg("-b", dest="bytes", action="store_true", help="the bytes too"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[InstructionRow]:
        """Yield the instructions."""
        address = session.address(options.address)
        count = _count(options.count)
        symbol = None if options.user else session.symbol(address)
        if symbol is None and (options.reverse or options.forward):
            raise NotInDump(f"no function holds the address {address:016x}")
        disassembler = Disassembler(session.prog, _user_reader(session) if options.user else None)
        fault = _fault(session)
        begin, end = (symbol.address, symbol.address + max(symbol.size, 1)) if symbol else (address, address + 16)
        if options.reverse:
            found = list(disassembler.range(begin, end, last=address))
            found = found[-count:] if count else found
        elif options.forward or (symbol and address == begin and count is None and _is_code(session, symbol)):
            found = disassembler.without_padding(disassembler.range(address, end))
            found = found[:count] if count else found
        else:
            found = list(disassembler.some(address, count or 1))
        if not found:
            raise NotInDump(f"no code at {address:016x} can be read")
        for instruction in found:
            yield self._row(session, instruction, options, fault)
        if options.lines:
            session.check_lines()

    @staticmethod
    def _row(session: Session, instruction: Instruction, options: Options, fault: int | None) -> InstructionRow:
        radix = options.radix or session.radix
        source = None
        if options.lines:
            try:
                place = session.prog.source_location(instruction.address)[0]
                source = f"{place.filename}:{place.line}"
            except LookupError:
                pass
        target = session.place(instruction.target, radix=radix) if instruction.target else ""
        return InstructionRow(instruction.address, session.place(instruction.address, radix=radix),
                              instruction.data.hex(), instruction.text, target, source, instruction.address == fault,
                              _registers(session, instruction.text) if instruction.address == fault else {})

    def render(self, rows: Iterable[InstructionRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the code out as crash does."""
        last = None
        for row in rows:
            if options.lines and row.source and row.source != last:
                last = row.source
                yield row.source.replace(":", ": ")
            place = f" <{row.place}>" if row.place else ""
            code = f"{row.bytes:<22}\t" if options.bytes else ""
            target = f" <{row.target}>" if row.target else ""
            held = ", ".join(f"{name}={value:#x}" if value else f"{name}=0" for name, value in row.registers.items())
            mark = f"  <== the kernel died here{': ' if held else ''}{held}" if row.fault else ""
            yield f"{row.address:#x}{place}:\t{code}{row.text}{target}{mark}"


def _is_code(session: Session, symbol: Symbol) -> bool:
    """Whether a symbol is a function's: by where it lies, for 7.2's kallsyms calls every global variable one."""
    text = session.kernel.debuginfo.text
    return symbol.address in text if text is not None else symbol.kind != SymbolKind.OBJECT


_NARROW = {**{f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")},
           **{name: f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")},
           **{f"{name}{part}": f"r{name}x" for name in "abcd" for part in "lh"},
           **{f"{name}l": f"r{name}" for name in ("si", "di", "bp", "sp")},
           **{f"r{number}{size}": f"r{number}" for number in range(8, 16) for size in "dwb"}}
"""The whole register by the name of a part of it (x86-64)."""


def _registers(session: Session, text: str) -> dict[str, int]:
    """Return the registers of the fault that an instruction names, in its order."""
    panic = session.kernel.panic
    if panic is None:
        return {}
    names = re.findall(r"%(\w+)", text) or re.findall(r"\b([xw]\d+|sp)\b", text)
    found = {}
    for name in names:
        whole = _NARROW.get(name, name.replace("w", "x", 1) if re.fullmatch(r"w\d+", name) else name)
        if whole in panic.registers:
            found[whole] = panic.registers[whole]
    return found


def _user_reader(session: Session) -> Callable[[int, int], bytes]:
    """Return how the context task's user space is read."""
    return lambda address, size: read_user(session, address, size)


def _fault(session: Session) -> int | None:
    panic = session.kernel.panic
    return panic.fault.pc if panic and panic.fault else None


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        count = int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is no count") from None
    if not 0 < count <= _MOST:
        raise UsageError(f"a count lies between 1 and {_MOST}")
    return count


COMMAND = Dis()
