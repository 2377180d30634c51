"""`rd`: read memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import read_user
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError

_MOST = 1 << 36
"""Bytes that one command shows, or writes into a file."""
_MOST_TEXT = 64 << 20
"""Bytes of text."""
_CHUNK = 1 << 20
_LINE = 16
_PAGE = 4096
"""Bytes that are read at a time: what is missing is missing by the page."""
_SHOWN = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))


@dataclass(frozen=True)
class MemoryRow:
    """Up to 16 bytes of memory."""

    address: int
    values: tuple[int, ...]
    """In units as asked for, 8 bytes each if not."""
    symbols: tuple[str, ...]
    """For each value, the symbol that it points into, or empty; empty without -s and -S."""
    caches: tuple[str, ...]
    """For each value, the slab cache that it points into, or empty; empty without -S."""
    text: str
    """The bytes as ASCII."""


class Rd(Command[MemoryRow]):
    """Read memory: of the kernel, of physical addresses (-p), of the context task's user space (-u).

    Example:
        crash> rd -a linux_banner
        ffffffffaa8001a0:  Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) ...
    """

    names = ("rd",)
    example = "rd -a linux_banner"
    row = MemoryRow
    args = (
        Arg("address", metavar="ADDRESS|SYMBOL", help="hexadecimal, or a symbol"),
        Arg("count", nargs="?", metavar="COUNT", help="how many units; 1 if not given"),
        *(Arg(f"-{bits}", dest="bits", action="store_const", const=bits, help=f"units of {bits} bits")
          for bits in (8, 16, 32, 64)),
        Arg("-a", dest="ascii", action="store_true", help="text alone: up to the first zero, or COUNT bytes"),
        Arg("-d", dest="signed", action="store_true", help="signed decimal numbers"),
        Arg("-D", dest="unsigned", action="store_true", help="unsigned decimal numbers"),
        Arg("-x", dest="no_text", action="store_true", help="no text beside the numbers"),
        Arg("-s", dest="symbolic", action="store_true", help="symbols where a value is the address of one"),
        Arg("-p", dest="physical", action="store_true", help="the address is physical"),
        Arg("-u", dest="user", action="store_true", help="the address is of the context task's user space"),
        Arg("-o", dest="offset", metavar="BYTES", help="this far beyond the address"),
        Arg("-e", dest="end", metavar="ADDRESS", help="up to this address"),
        Arg("-r", dest="file", metavar="FILE", help="write COUNT bytes to a file"),
        Arg("-f", dest="in_file", action="store_true", help="the address is an offset in the dump's file"),
        Arg("-m", dest="machine", action="store_true", help="a Xen host's machine address: no such dump is read"),
        Arg("-S", dest="slabs", action="count", default=0, help="symbols, and the slab cache where a value points into "
            "one; twice: with the value"),
        Arg("-N", dest="network", action="store_true", help="units in network byte order"),
        Arg("-R", dest="reverse", action="store_true", help="COUNT units up to the one at the address"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[MemoryRow]:
        """Yield 16 bytes at a time; what is missing raises when it is reached.

        Raises:
            UsageError: the options do not go together, or it is too much.
            NotInDump: the slab caches cannot be told; said behind the memory.
        """
        _check(options)
        start = session.address(options.address) + (_number(options.offset) if options.offset else 0)
        unit = (options.bits or 64) // 8
        size = self._size(session, options, start, 1 if options.ascii or options.file else unit)
        if options.reverse:
            start -= size - (1 if options.ascii or options.file else unit)
            if start < 0:
                raise UsageError("this is more than lies in front of the address", where=f"rd {options.typed}")
        if options.file:
            with Path(options.file).expanduser().open("wb") as file:
                for at in range(0, size, _CHUNK):
                    file.write(_read(session, start + at, min(_CHUNK, size - at), options))
            return
        if options.ascii:
            data = _read(session, start, size, options) if options.count or options.end else \
                _text(session, start, options)
            for at in range(0, len(data), 60):
                yield MemoryRow(start + at, (), (), (), _ascii(data[at:at + 60]))
            return
        names = _Names(session, options, unit)
        kind = ("bhiq" if options.signed else "BHIQ")[unit.bit_length() - 1]
        order = ">" if options.network else "<"
        done = 0
        while done < size:
            # The lines that end on this page; one that does not is read alone.
            room = _PAGE - (start + done) % _PAGE
            step = _LINE if options.in_file else max(room // _LINE, 1) * _LINE
            data = _read(session, start + done, min(step, size - done), options)
            words = struct.unpack(f"{order}{len(data) // unit}{kind}", data)
            for at in range(0, len(data), _LINE):
                values = words[at // unit:(at + _LINE) // unit]
                yield MemoryRow(start + done + at, values, *names.of(values), _ascii(data[at:at + _LINE]))
            done += len(data)
        if names.problem:
            raise NotInDump("the slab caches cannot be told", why=names.problem)

    @staticmethod
    def _size(session: Session, options: Options, start: int, unit: int) -> int:
        size = unit * (_number(options.count) if options.count else 1)
        if options.end:
            size = session.address(options.end) - start
            if size > 0:
                size = max(size - size % unit, unit)        # whole units
        most = _MOST_TEXT if options.ascii else _MOST
        if not 0 < size <= most:
            raise UsageError("this many bytes cannot be shown", why=f"{size}; at most {most}")
        return size

    def render(self, rows: Iterable[MemoryRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the memory out as crash does."""
        unit = (options.bits or 64) // 8
        per_line = _LINE // unit
        digits = 1 if options.physical or options.in_file else 16       # as crash does
        for row in rows:
            if not row.values:
                yield f"{row.address:0{digits}x}:  {row.text}"
                continue
            cells = [_cell(value, unit, options) for value in row.values]
            if row.symbols:
                cells = [f"{symbol:<16}" if symbol else cell for cell, symbol in zip(cells, row.symbols, strict=True)]
                for place, cache in enumerate(row.caches):
                    if cache:
                        value = f"{row.values[place]:x}:" if options.slabs > 1 else ""
                        cells[place] = f"{f'[{value}{cache}]':<16}"
                yield f"{row.address:0{digits}x}:  {' '.join(cells)}".rstrip()
                continue
            width = per_line * (len(cells[0]) + 1) - 1
            text = "" if options.no_text or options.signed or options.unsigned else f"   {row.text}"
            yield f"{row.address:0{digits}x}:  {' '.join(cells):<{width}}{text}".rstrip()
        if options.file:
            yield f"written to {options.file}"


class _Names:
    """What the words of memory point at."""

    def __init__(self, session: Session, options: Options, unit: int) -> None:
        self.session = session
        self.wanted = unit == 8 and bool(options.symbolic or options.slabs) and not options.network
        self.slabs = self.wanted and options.slabs
        self.problem = ""
        """Why the slab caches cannot be told; empty when they can."""

    def of(self, values: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the symbols and the slab caches of some words; both empty where they are not asked for."""
        if not self.wanted:
            return (), ()
        words = [value & (1 << 64) - 1 for value in values]     # -d shows them with a sign
        symbols = tuple(map(self.session.place, words))
        if not self.slabs:
            return symbols, ()
        return symbols, tuple("" if symbol else self._cache(word) for word, symbol in zip(words, symbols, strict=True))

    def _cache(self, word: int) -> str:
        if not word >> 63 or self.problem:
            return ""
        try:
            return self.session.slab_names.of(word)
        except READ_ERRORS as error:
            self.problem = str(explain(error))
            return ""


def _check(options: Options) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: the options do not.
        NotInDump: there is no such memory.
    """
    if options.machine:
        raise NotInDump("there are no machine addresses", why="the dump is not of a Xen host")
    if options.reverse and options.end:
        raise UsageError("-R goes up to the address, and -e from there", where=f"rd {options.typed}")
    if options.slabs and (options.bits or 64) != 64:
        raise UsageError("-S is about words of 64 bits", where=f"rd {options.typed}")


def _cell(value: int, unit: int, options: Options) -> str:
    if options.signed or options.unsigned:
        return f"{value:>{len(str(1 << 8 * unit))}}"
    return f"{value:0{2 * unit}x}"


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        try:
            return int(text, 16)
        except ValueError:
            raise UsageError(f"{text!r} is no number") from None


def _read(session: Session, address: int, size: int, options: Options) -> bytes:
    if options.user:
        return read_user(session, address, size)
    if options.in_file:
        source = session.kernel.dump.source
        if not 0 <= address <= source.size - size:
            raise NotInDump(f"the file ends before {address + size:#x}", why=f"it has {source.size:#x} bytes")
        return bytes(source.read(address, size))
    if options.physical:
        return session.kernel.dump.read_physical(address, size)
    data: bytes = session.prog.read(address, size)
    return data


def _text(session: Session, address: int, options: Options) -> bytes:
    if options.user:
        data = b""
        while b"\0" not in data and len(data) < 4096:
            data += read_user(session, address + len(data), 64)
        return data.partition(b"\0")[0]
    text: bytes = session.prog.read_c_string(address, options.physical, max_size=1 << 16)
    return text


def _ascii(data: bytes) -> str:
    return data.translate(_SHOWN).decode("ascii")


COMMAND = Rd()
