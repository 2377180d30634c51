"""The kernel's symbols out of kallsyms tables that are damaged, or of which pages are missing.

The tables are decoded in runs of 256 names. A marker says where each run begins (kernel/kallsyms.c,
get_symbol_offset), so that one length that is wrong takes its own run and not all that stands behind it. Where one
changed bit explains a run, it is changed back.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import drgn
from drgn import Symbol, SymbolBinding, SymbolKind

from kdumpy.debuginfo.reading import read_patchy
from kdumpy.errors import DamagedDump

_RUN = 256
"""Names between two markers (scripts/kallsyms.c, write_src)."""
_LONGEST_NAME = 2 * 512
"""Bytes that a name takes at most: KSYM_NAME_LEN, since b8a94bfb3395 ("kallsyms: increase maximum kernel symbol
length to 512", 6.1), with a margin."""
_LARGEST_GAP = 0x10000
"""Bytes from one symbol to the next from which on drgn gives a symbol no size (libdrgn/kallsyms.c)."""
_MOST_REPAIRS = 64
"""Runs in which a changed bit is looked for."""
_PAGE = 4096
_WORD = 1 << 64

_PLAUSIBLE = re.compile(rb"[aAbBdDgGnNrRsStTuUvVwW][A-Za-z_.$][\w.$]*\Z")
"""The letter of a symbol's kind, as nm gives it, and a name."""

_KINDS = {"b": SymbolKind.OBJECT, "c": SymbolKind.OBJECT, "d": SymbolKind.OBJECT, "g": SymbolKind.OBJECT,
          "r": SymbolKind.OBJECT, "v": SymbolKind.OBJECT, "t": SymbolKind.FUNC}
"""As drgn reads the letters."""


class Salvaged(NamedTuple):
    """What could be had of the tables."""

    symbols: list[Symbol]
    """In the order of the tables, which is that of their addresses."""
    total: int
    """How many the tables hold."""
    repaired: int
    """Runs that a changed bit had made unreadable."""

    def told(self, why: str) -> str:
        """Say what of the tables is lost, and why."""
        lost = self.total - len(self.symbols)
        parts = [f"{lost} of {self.total} names are lost"] if lost else [f"none of {self.total} names is lost"]
        if self.repaired:
            parts.append(f"{self.repaired} part{'s' if self.repaired > 1 else ''} with one changed bit "
                         f"{'were' if self.repaired > 1 else 'was'} mended")
        return f"the table is damaged ({why.rstrip('.')}); {', '.join(parts)}"


class _Names:
    """The table of names: lengths and tokens."""

    def __init__(self, data: bytes, count: int, markers: list[int], tokens: list[bytes], *, big: bool) -> None:
        self.data = data
        """Up to the markers, padding included."""
        self.tokens = tokens
        self.big = big
        """Whether a length of 128 and more takes two bytes: 73bbb94466fd ("kallsyms: support "big" kernel symbols",
        6.1)."""
        self.markers = markers
        self.lengths = [min(_RUN, count - _RUN * number) for number in range(len(markers))]
        self.starts = [self._walk(marker, length) for marker, length in zip(markers, self.lengths, strict=True)]

    def _walk(self, at: int, count: int) -> list[int]:
        """Return where each name of a run begins, and where the next run would; less where the table ends before."""
        starts = [at]
        while len(starts) <= count and at < len(self.data):
            at += self._step(self.data, at)
            starts.append(at)
        return starts

    def whole(self) -> list[bool]:
        """Return which runs end where the next one begins; the last: where the table ends, but for padding."""
        complete = [len(starts) == length + 1 for starts, length in zip(self.starts, self.lengths, strict=True)]
        ends = [starts[-1] == marker for starts, marker in zip(self.starts, self.markers[1:], strict=False)]
        ends.append(0 <= len(self.data) - self.starts[-1][-1] < 8)
        return [each and end for each, end in zip(complete, ends, strict=True)]

    def run(self, number: int) -> list[bytes]:
        """Return the names of a run that is whole, each behind the letter of its kind."""
        return [self._name(self.data, start, stop) for start, stop in itertools.pairwise(self.starts[number])]

    def _name(self, data: bytes, start: int, stop: int) -> bytes:
        begin = start + (2 if self.big and data[start] & 0x80 else 1)
        return b"".join([self.tokens[byte] for byte in data[begin:stop]])

    def repaired(self, number: int) -> list[bytes | None]:
        """Return the names of a run in which one bit of one length may have changed; None for each that is in doubt.

        A change explains a run if it makes it end where the next one begins, all its names being names. Where
        several do, what they have in common is what is known.
        """
        count = self.lengths[number]
        start = self.markers[number]
        end = self.markers[number + 1] if number + 1 < len(self.markers) else len(self.data)
        if not count <= end - start <= count * _LONGEST_NAME:
            return [None] * count
        answers = []
        for data in self._changes(start, end, count):
            names, at = [], 0
            for _ in range(count):
                following = at + self._step(data, at)
                names.append(self._name(data, at, following))
                at = following
            if all(map(_PLAUSIBLE.match, names)):
                answers.append(names)
        return [each[0] if len(set(each)) == 1 else None for each in zip(*answers, strict=True)] or [None] * count

    def _step(self, data: bytes, at: int) -> int:
        if self.big and data[at] & 0x80 and at + 1 < len(data):
            return (data[at] & 0x7f | data[at + 1] << 7) + 2
        return data[at] + 1

    def _changes(self, start: int, end: int, count: int) -> Iterator[bytes]:
        """Yield the run's bytes with a bit of a length changed, for each one that makes it end at its end."""
        data = self.data[start:end]
        left = {len(data): 0}       # names from each place to the end
        for at in range(len(data) - 1, -1, -1):
            following = left.get(at + self._step(data, at))
            if following is not None:
                left[at] = following + 1
        at = 0
        for number in range(count):
            if at >= len(data):
                return
            for bit in range(8):
                changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]
                if left.get(at + self._step(changed, at)) == count - number - 1:
                    yield changed
            at += self._step(data, at)


def salvage(prog: drgn.Program, tables: dict[str, int], count: int, known: dict[str, int]) -> Salvaged:
    """Decode what can be decoded.

    Args:
        prog: the program of the dump.
        tables: the addresses of the tables, by their names.
        count: how many symbols they hold.
        known: the addresses of some symbols, by their names.

    Raises:
        DamagedDump: nothing can.
    """
    names_at, tokens_at = tables["kallsyms_names"], tables["kallsyms_token_table"]
    if not count <= tokens_at - names_at <= count * _LONGEST_NAME:
        raise DamagedDump("the kernel's symbol table makes no sense", where=f"address {names_at:#x}",
                          why="its parts do not lie as they should")
    data = read_patchy(prog, names_at, tokens_at - names_at)
    markers, end = _markers(data, count, names_at)
    tokens = _tokens(prog, tokens_at, tables["kallsyms_token_index"])
    tries = [_Names(data[:end], count, markers, tokens, big=big) for big in (True, False)]
    names = max(tries, key=lambda one: sum(one.whole()))
    offsets, held = _offsets(prog, tables["kallsyms_offsets"], count)
    found: list[tuple[bytes, int]] = []
    repaired = 0
    broken = 0
    for number, whole in enumerate(names.whole()):
        broken += not whole
        run: list[bytes | None] = [*names.run(number)] if whole else \
            names.repaired(number) if broken <= _MOST_REPAIRS else []
        repaired += not whole and None not in run
        found += [(name, place) for place, name in enumerate(run, _RUN * number) if name and held[place]]
    if not found:
        raise DamagedDump("the kernel's symbol table makes no sense", where=f"address {names_at:#x}",
                          why="no part of it can be decoded")
    addresses = _addresses(prog, tables, offsets, found, known)
    return Salvaged([_symbol(name, place, addresses) for name, place in found], count, repaired)


def _markers(data: bytes, count: int, names_at: int) -> tuple[list[int], int]:
    """Return the markers, and where they begin: behind the names, aligned to 8 bytes, on newer kernels to 4.

    Marker n is the offset of name 256 * n, so that the last one lies within 256 names of the table's end.
    """
    runs = -(-count // _RUN)
    first = -names_at % 4
    words = memoryview(data)[first:first + (len(data) - first) // 4 * 4].cast("I")
    best, found = 0, 0
    for place in range(len(words) - runs + 1):
        if not words[place] and 0 < first + 4 * place - words[place + runs - 1] <= _RUN * _LONGEST_NAME:
            rising = sum(before < after for before, after in itertools.pairwise(words[place:place + runs]))
            best, found = max((best, found), (rising + 1, place))
    if best <= (runs - 1) * 3 // 4:
        raise DamagedDump("the kernel's symbol table makes no sense", where=f"address {names_at:#x}",
                          why="the marks of its parts were not found")
    return list(words[found:found + runs]), first + 4 * found


def _tokens(prog: drgn.Program, table: int, index: int) -> list[bytes]:
    """Return the 256 strings that names are made of."""
    starts = struct.unpack("<256H", prog.read(index, 512))
    text = read_patchy(prog, table, max(starts) + 64)
    tokens = [text[start:text.find(b"\0", start)] for start in starts]
    if [start + len(token) + 1 for start, token in zip(starts, tokens, strict=True)][:-1] != [*starts[1:]]:
        raise DamagedDump("the kernel's symbol table makes no sense", where=f"address {table:#x}",
                          why="the tokens that its names are made of are damaged")
    return tokens


def _offsets(prog: drgn.Program, start: int, count: int) -> tuple[tuple[int, ...], list[bool]]:
    """Return the offset of each symbol, and which of them the dump holds."""
    held = [True] * count
    for page in range(start & -_PAGE, start + 4 * count, _PAGE):
        try:
            prog.read(page, 1)
        except drgn.FaultError:
            for place in range(max(page - start, 0) // 4, min(-(-(page + _PAGE - start) // 4), count)):
                held[place] = False
    return struct.unpack(f"<{count}i", read_patchy(prog, start, 4 * count)), held


def _addresses(prog: drgn.Program, tables: dict[str, int], offsets: tuple[int, ...],
               names: list[tuple[bytes, int]], known: dict[str, int]) -> list[int]:
    """Return the address of each symbol.

    Source: kernel/kallsyms.c, kallsyms_sym_address(): with CONFIG_KALLSYMS_ABSOLUTE_PERCPU what is not negative is
    an address, and what is counts from the base downwards; without it nothing is negative. Kernels without a base
    (7.x) count from where each offset itself lies.
    """
    if "kallsyms_relative_base" not in tables:
        return [(tables["kallsyms_offsets"] + 4 * place + offset) % _WORD for place, offset in enumerate(offsets)]
    base = int.from_bytes(read_patchy(prog, tables["kallsyms_relative_base"], 8), "little")
    downwards = min(offsets) < 0
    # What the base must be for the symbols whose addresses are known, where it is damaged itself.
    places = {name[1:].decode("ascii", "replace"): place for name, place in names}
    implied = [known[name] + (1 + offsets[places[name]] if downwards else -offsets[places[name]])
               for name in known if name in places]
    if implied and base not in implied:
        base = max(implied, key=implied.count)
    if downwards:
        return [offset if offset >= 0 else (base - 1 - offset) % _WORD for offset in offsets]
    return [(base + offset) % _WORD for offset in offsets]


def _symbol(name: bytes, place: int, addresses: list[int]) -> Symbol:
    """Return a symbol as drgn makes it of the tables (libdrgn/kallsyms.c, drgn_symbol_from_kallsyms)."""
    address = addresses[place]
    gap = addresses[place + 1] - address if place + 1 < len(addresses) else 0
    text = name.decode("ascii", "replace")
    letter = text[0]
    binding = SymbolBinding.UNIQUE if letter == "u" else SymbolBinding.WEAK if letter in "vVwW" else \
        SymbolBinding.GLOBAL if letter.isupper() else SymbolBinding.UNKNOWN
    return Symbol(text[1:], address, gap if 0 <= gap < _LARGEST_GAP else 0, binding,
                  _KINDS.get(letter.lower(), SymbolKind.UNKNOWN))
