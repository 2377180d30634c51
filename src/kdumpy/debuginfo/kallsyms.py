"""The kernel's symbols, out of the dump: kallsyms of the kernel itself.

Since Linux 6.0 (5fd8fea935a10 "vmcoreinfo: include kallsyms symbols") VMCOREINFO says where the
tables are. Before, they are found by their shape: the table of tokens holds the digits and the
letters in order, and the other tables lie before it (kernel/kallsyms.c, scripts/kallsyms.c).
drgn decodes the tables, at C speed.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from operator import attrgetter

import drgn
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

from kdumpy.debuginfo import keptsymbols
from kdumpy.debuginfo.reading import is_damage, read_patchy
from kdumpy.debuginfo.symboltable import BOUNDARY, KERNEL_HALF, MOST_SYMBOLS
from kdumpy.errors import DamagedDump, KdumpyError, NotInDump

_CHUNK = 1 << 20
_MARKERS = 1 << 16
"""Bytes before the tokens in which the markers are; they have 3 KB (6 KB before 4.20)."""
_FEWEST_MARKERS = 16
_LONGEST_IMAGE = 96 << 20
"""Bytes from _stext that are searched; text and read-only data of a distribution's kernel are 30 MB."""
_TEXT = 8 << 20
"""Bytes of code that a distribution's kernel has at least; the tables of Debian's 5.10 for clouds begin at 16 MiB."""
Finder = Callable[[drgn.Program, "str | None", "int | None", bool], Sequence[drgn.Symbol]]
"""drgn's protocol of symbol finders: by name, by address, or all; one or all that there are."""
_DIGITS = b"".join(b"%c\0" % c for c in b"0123456789")
_LETTERS = b"".join(b"%c\0" % c for c in b"abcdefghijklmnopqrstuvwxyz")
_TABLES = ("kallsyms_names", "kallsyms_token_table", "kallsyms_token_index", "kallsyms_num_syms",
           "kallsyms_offsets", "kallsyms_relative_base")

_ANCHORS = ("_stext", "init_uts_ns", "prb", "clear_seq")
"""Symbols whose addresses VMCOREINFO tells too, from one end of the tables to the other; the first is a function's.
Source: kernel/crash_core.c (kernel/vmcore_info.c since 6.9), kernel/printk/printk.c."""


class KernelSymbols:
    """A drgn symbol finder over the kernel's kallsyms.

    Per-CPU variables stand in kallsyms at their offset in the per-CPU area, so an address in the
    lower half never names a symbol: without this rule NULL prints as `__per_cpu_start`.
    """

    def __init__(self, index: Finder, source: str) -> None:
        self._index = index
        self._others: drgn.SymbolIndex | None = None
        self.source = source
        """How the tables were found, in words."""
        self.damage = ""
        """What of the tables could not be decoded, in words; empty when they are whole."""

    def add(self, others: drgn.SymbolIndex) -> None:
        """Add symbols that the tables do not list; asked for names only, and when the tables have none."""
        self._others = others

    def others(self, prog: drgn.Program) -> Sequence[drgn.Symbol]:
        """Return the symbols that were added."""
        if self._others is None:
            return []
        found: Sequence[drgn.Symbol] = self._others(prog, None, None, False)
        return found

    def __call__(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> Sequence[drgn.Symbol]:
        """Find symbols by name, by address, or all: drgn's protocol of symbol finders."""
        if address is not None and address < KERNEL_HALF:
            return []
        found = self._index(prog, name, address, one)
        if not found and self._others is not None:
            found = self._others(prog, name, address, one)
        return found


class _Decoded:
    """What drgn decoded, with two of its answers put right: see `symboltable.pack`, which does the same for all."""

    def __init__(self, index: drgn.SymbolIndex) -> None:
        self.index = index
        self._marked: dict[str, list[drgn.Symbol]] = {}
        self._large: list[drgn.Symbol] | None = None
        self._image: range | None = None

    def __call__(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> Sequence[drgn.Symbol]:
        found: Sequence[drgn.Symbol] = self.index(prog, name, address, one)
        if address is None:
            return found
        if one and found and BOUNDARY.match(found[0].name):
            return self._function_at(prog, found[0]) or found
        return found or self._large_at(prog, address)

    def _large_at(self, prog: drgn.Program, address: int) -> list[drgn.Symbol]:
        """Return the symbol that holds an address and has no size in drgn's index: one of 64 KiB and more."""
        if self._image is None:
            self._image = range(*(found[0].address if found else 0 for found in (
                self.index(prog, name, None, True) for name in ("_text", "_end"))))
        if address not in self._image:      # most are of modules, and to look takes 0.15 s the first time
            return []
        if self._large is None:
            self._large = _without_size(self.index(prog, None, None, False))
        at = bisect_right(self._large, address, key=lambda symbol: symbol.address) - 1
        if at < 0 or address >= self._large[at].address + self._large[at].size:
            return []
        return [self._large[at]]

    def _function_at(self, prog: drgn.Program, mark: drgn.Symbol) -> list[drgn.Symbol]:
        """Return the function that begins where the linker's mark of a section lies; drgn knows the first name only."""
        if mark.name not in self._marked:
            self._marked[mark.name] = [
                drgn.Symbol(symbol.name, mark.address, mark.size, symbol.binding, symbol.kind)
                for symbol in self.index(prog, None, None, False)
                if symbol.address == mark.address and not BOUNDARY.match(symbol.name)][:1]
        return self._marked[mark.name]


def _without_size(symbols: Sequence[drgn.Symbol]) -> list[drgn.Symbol]:
    """Return the data at whose address no symbol has a size, by address, with the room up to the next one as size."""
    ordered = sorted((symbol for symbol in symbols if symbol.address >= KERNEL_HALF), key=attrgetter("address"))
    found = []
    for (address, same), following in pairwise(
            [(address, list(group)) for address, group in groupby(ordered, attrgetter("address"))]):
        symbol = same[0]
        if symbol.kind == drgn.SymbolKind.OBJECT and not any(other.size for other in same):
            found.append(drgn.Symbol(symbol.name, address, following[0] - address, symbol.binding, symbol.kind))
    return found


def load(prog: drgn.Program) -> KernelSymbols:
    """Decode the kernel's kallsyms tables.

    Raises:
        NotInDump: the dump does not hold the tables.
        DamagedDump: the tables make no sense.
    """
    text = prog["VMCOREINFO"].string_().decode("ascii", "replace")
    known = {name: int(value, 16) for name, value in re.findall(r"^SYMBOL\((\w+)\)=([0-9a-fA-F]+)$", text, re.M)}
    kept = keptsymbols.find(prog, text, known)
    if kept is not None and _keeps_step(prog, kept, known):
        return KernelSymbols(kept, "an earlier dump of this kernel, whose tables are the same")
    where = "VMCOREINFO" if "kallsyms_names" in known else "a search of the kernel's read-only data"
    try:
        tables = known if "kallsyms_names" in known else find_tables(prog, known["_stext"])
        _check_count(prog, tables["kallsyms_num_syms"])
    except KeyError as error:
        raise NotInDump("VMCOREINFO does not say where the kernel's text begins", why=f"no {error}") from None
    except drgn.FaultError as error:
        raise _missing(error) from error
    refusal: Exception | None = None
    try:
        decoded = _Decoded(load_vmlinux_kallsyms(prog) if tables is known else _load_at(prog, text, tables))
        if _keeps_step(prog, decoded, known):
            keptsymbols.keep(prog, text, known, tables, decoded.index)
            return KernelSymbols(decoded, where)
    except (drgn.FaultError, drgn.BadDataError, drgn.MissingDebugInfoError, ValueError, MemoryError,
            OverflowError) as error:
        refusal = error
    anchors = {name: known[name] for name in _ANCHORS if name in known}
    return _salvaged(prog, tables, anchors, refusal, where)


def _missing(error: drgn.FaultError) -> NotInDump | DamagedDump:
    if is_damage(error):
        return DamagedDump("the kernel's symbol table cannot be read", where=f"address {error.address:#x}",
                           why="the file is damaged there")
    return NotInDump("the kernel's symbol table is not in the dump", where=f"address {error.address:#x}",
                     why="its pages are missing")


def _keeps_step(prog: drgn.Program, index: Finder, known: dict[str, int]) -> bool:
    """Whether names that drgn decoded stand at their addresses: one wrong length shifts all that come behind it."""
    def at(name: str) -> bool | None:
        found = index(prog, name, None, True)
        return found[0].address == known[name] if found else None

    told = [at(name) for name in _ANCHORS if name in known]
    variables = told[1:]
    return bool(told[0]) and False not in told and (None not in variables or (
        not any(variables) and bool(index(prog, "_etext", None, True))))        # without CONFIG_KALLSYMS_ALL: functions


def _salvaged(prog: drgn.Program, tables: dict[str, int], anchors: dict[str, int], refusal: Exception | None,
              where: str) -> KernelSymbols:
    """Decode the tables in parts, where they cannot be as a whole."""
    from kdumpy.debuginfo.salvage import salvage  # hardly ever wanted

    try:
        parts = salvage(prog, tables, prog.read_u32(tables["kallsyms_num_syms"]), anchors)
    except drgn.FaultError as error:
        raise _missing(error) from error
    except KdumpyError:
        if isinstance(refusal, drgn.FaultError):
            raise _missing(refusal) from refusal
        raise
    symbols = KernelSymbols(_Decoded(drgn.SymbolIndex(parts.symbols)), where)
    symbols.damage = parts.told(str(refusal or "a length is wrong").splitlines()[0])
    return symbols


def _check_count(prog: drgn.Program, address: int) -> None:
    count = prog.read_u32(address)
    if not 0 < count <= MOST_SYMBOLS:
        raise DamagedDump("the kernel's symbol table makes no sense", where=f"address {address:#x}",
                          why=f"it claims {count} symbols")


def _load_at(prog: drgn.Program, vmcoreinfo: str, tables: dict[str, int]) -> drgn.SymbolIndex:
    """Have drgn decode tables that VMCOREINFO does not name, by showing it a VMCOREINFO that does."""
    completed = vmcoreinfo + "".join(f"SYMBOL({name})={value:x}\n" for name, value in tables.items())
    data = completed.encode() + b"\0"

    def find(prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None) -> drgn.Object | None:
        if name != "VMCOREINFO":
            return None
        return drgn.Object(prog, prog.array_type(prog.int_type("char", 1, True), len(data)), value=data)

    enabled = prog.enabled_object_finders()
    if "kdumpy-vmcoreinfo" not in prog.registered_object_finders():
        prog.register_object_finder("kdumpy-vmcoreinfo", find)
    prog.set_enabled_object_finders(["kdumpy-vmcoreinfo", *enabled])
    try:
        return load_vmlinux_kallsyms(prog)
    finally:
        prog.set_enabled_object_finders(enabled)


def find_tables(prog: drgn.Program, stext: int) -> dict[str, int]:
    """Find the kallsyms tables of a kernel before 6.0 by their shape.

    They follow each other in read-only data, each aligned to 8 bytes: offsets, relative_base,
    num_syms, names, markers, token_table, token_index (scripts/kallsyms.c, write_src, 4.6 to 5.19).

    Raises:
        NotInDump: there is nothing of this shape in the kernel's image.
    """
    token_table, token_index = _find_tokens(prog, stext)
    markers, last_marker, first = _find_markers(prog, token_table)
    count = len(markers)
    # names is as long as its last marker says, and at most 256 names longer.
    for num_syms in range((markers[0] - last_marker - 16) & ~7, (markers[0] - last_marker - 256 * 256) & ~7, -8):
        symbols, high = struct.unpack("<II", read_patchy(prog, num_syms, 8))
        if 256 * (count - 1) < symbols <= 256 * count and high == 0 and _names_match(prog, num_syms + 8, first):
            relative_base = num_syms - 8
            return dict(zip(_TABLES, (num_syms + 8, token_table, token_index, num_syms,
                                      relative_base - (symbols * 4 + 7 & ~7), relative_base), strict=True))
    raise NotInDump("the kernel's symbol table was not found", where=f"before address {token_table:#x}")


def _find_tokens(prog: drgn.Program, stext: int) -> tuple[int, int]:
    """Return the addresses of token_table and token_index."""
    # Read-only data lies behind the text; there are kernels with less of that than _TEXT, and they are read whole.
    for first, last in ((stext + _TEXT, stext + _LONGEST_IMAGE), (stext, stext + _TEXT + _CHUNK)):
        before = b""
        for start in range(first, last, _CHUNK):
            chunk = before + read_patchy(prog, start, _CHUNK)
            for match in re.finditer(re.escape(_DIGITS), chunk):
                digits = start - len(before) + match.start()
                table = _token_start(prog, digits)
                if table is not None:
                    return table
            before = chunk[-4096:]
    raise NotInDump("the kernel's symbol table was not found", where=f"after address {stext:#x}")


def _token_start(prog: drgn.Program, digits: int) -> tuple[int, int] | None:
    """Return (token_table, token_index) if the token of "0" at `digits` lies in a table of 256."""
    after = read_patchy(prog, digits, 8192)
    previous = read_patchy(prog, digits - 2048, 2048)
    tokens = after.split(b"\0")[: 256 - ord("0")]
    if _LETTERS not in after or len(tokens) < 256 - ord("0"):
        return None
    starts = [m.end() for m in re.finditer(b"\0", previous)]
    # The token before "0" ends with the NUL before `digits`; 48 tokens lie before it.
    if len(starts) < ord("0") + 1:
        return None
    table = digits - 2048 + starts[-(ord("0") + 1)]
    end = digits + sum(len(token) + 1 for token in tokens)
    offsets = []
    at = table
    for token in read_patchy(prog, table, end - table).split(b"\0")[:256]:
        offsets.append(at - table)
        at += len(token) + 1
    wanted = struct.pack("<256H", *offsets)
    found = read_patchy(prog, end, 1024).find(wanted)
    if found >= 0:
        return table, end + found
    # Leading tokens may be empty (characters that no name uses), so that the count above starts
    # too early or too late: let the index itself say where the table begins.
    for shift in range(8):
        base = (end + 7 & ~7) + 8 * shift
        index = struct.unpack("<256H", read_patchy(prog, base, 512))
        if index[0] == 0 and list(index) == sorted(index) and digits - index[ord("0")] <= digits and read_patchy(
                prog, digits - index[ord("0")] + index[ord("a")], 2) == b"a\0":
            return digits - index[ord("0")], base
    return None


def _find_markers(prog: drgn.Program, token_table: int) -> tuple[list[int], int, int]:
    """Return ([address of each marker], value of the last marker, value of the second).

    Marker n is the offset in `names` of symbol 256 * n. They are 32 bits wide since 4.20, and 64
    before (RHEL 8 has 4.18): 80ffbaa5b1bd "kallsyms: reduce size a little on 64-bit".
    """
    base = token_table - _MARKERS
    data = read_patchy(prog, base, _MARKERS)
    for width, code in ((4, "I"), (8, "Q")):            # 64-bit ones are no rising row of 32-bit words
        words = struct.unpack(f"<{len(data) // width}{code}", data)
        first, last = _rising_row(words)
        if last - first >= _FEWEST_MARKERS and words[first] == 0:
            return [base + width * i for i in range(first, last + 1)], words[last], words[first + 1]
    raise NotInDump("the kernel's symbol table was not found", where=f"before address {token_table:#x}",
                    why="its markers have another shape")


def _rising_row(words: Sequence[int]) -> tuple[int, int]:
    """Return the indexes of the first and last of the numbers that rise to the last word that is not 0."""
    last = len(words) - 1
    while last > 0 and words[last] == 0:                # padding
        last -= 1
    first = last
    while first > 0 and words[first - 1] < words[first]:
        first -= 1
    return first, last


def _names_match(prog: drgn.Program, names: int, first: int) -> bool:
    """Whether 256 names, each a length byte and so many tokens, fill `first` bytes."""
    data = read_patchy(prog, names, first + 1)
    position = 0
    for _ in range(256):
        if position >= first:
            return False
        position += data[position] + 1
    return position == first
