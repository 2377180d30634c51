"""Symbols that kallsyms does not list, out of what the kernel itself keeps of them.

Without CONFIG_KALLSYMS_ALL (Debian's arm64 kernels up to 6.1) kallsyms holds functions only. Variables are then
known from four places, each asked for what those before it lack:

1. the tables of exported symbols, which modules are linked by (`__ksymtab`, kernel/module/main.c), found by their
   shape: entries of three 32-bit offsets, the second of which leads to a name;
2. VMCOREINFO's SYMBOL() lines;
3. BTF, for per-CPU variables: it has their places within the per-CPU section, which one exported variable pins down;
4. the code: a variable is where all of the functions that are known to use it refer to (`references`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from itertools import islice

import drgn
from drgn import Architecture, Symbol, SymbolBinding, SymbolIndex, SymbolKind

from kdumpy.debuginfo.btf import Btf, Kind
from kdumpy.debuginfo.reading import READ_ERRORS, read_patchy
from kdumpy.debuginfo.references import targets
from kdumpy.debuginfo.referrers import REFERRERS
from kdumpy.debuginfo.variables import DECLARATIONS

_CHUNK = 1 << 20
_LONGEST_IMAGE = 96 << 20
"""Bytes after the kernel's text that are searched; read-only data of a distribution's kernel are 10 MB."""
_BTF_HEADER = struct.Struct("<HBBIIIII")
"""struct btf_header (uapi/linux/btf.h): magic, version, flags, hdr_len, type_off, type_len, str_off, str_len."""
_BTF_START = struct.pack("<HBBII", 0xEB9F, 1, 0, _BTF_HEADER.size, 0)
_LARGEST_BTF = 256 << 20
_MOST_EXPORTED = 200_000
_NAMES = 4 << 20
"""Bytes of names of exported symbols that are taken for possible; a distribution's kernel has 0.4 MB."""
_ENTRY_WORDS = 3
"""struct kernel_symbol with CONFIG_HAVE_ARCH_PREL32_RELOCATIONS: value, name, namespace, each an offset from itself."""
_SHORTEST_RUN = 16
"""Entries in a row that are taken for a table: checksums look like a few by chance."""
_IN_NAMES = bytes([0, *range(0x20, 0x7F)])
_ANCHOR = b"\0init_task\0"
"""A name that is exported by every kernel since 2.6."""
_LONGEST_NAME = 512
"""KSYM_NAME_LEN, include/linux/kallsyms.h."""
_MOST_TRIES = 64
"""Places that look like the tables' names, or like BTF, and turn out not to be; a kernel has a few."""
_HIGHEST = (1 << 64) - 1

_LONGEST_FUNCTION = 64 << 10
_VAR_SECINFO = struct.Struct("<III")
"""struct btf_var_secinfo: type id of a VAR, its place in the section, its size; all in bytes."""
_LAST_RECORDS = 64
"""The sections come last in BTF."""
_FIRST_STRINGS = {"task_state_array": b"R (running)"}
"""Arrays of strings: what the first one is."""
_PERCPU = ".data..percpu"


class Unlisted:
    """What was found, and a drgn symbol finder over it."""

    def __init__(self, prog: drgn.Program, start: int) -> None:
        """`start` is the address behind the kernel's text, where its read-only data begin."""
        self.prog = prog
        self.addresses: dict[str, int] = {}
        self.btf = find_btf(prog, start)
        """Where the kernel's BTF lies, or None."""
        self._sources: dict[str, int] = {}
        self._take("exported", exported(prog, start))
        # After the exported ones: SYMBOL(mem_section) is where that pointer leads to.
        text = prog["VMCOREINFO"].string_().decode("ascii", "replace")
        self._take("in VMCOREINFO", {name: int(value, 16) for name, value in
                                  re.findall(r"^SYMBOL\((\w+)\)=([0-9a-fA-F]+)$", text, re.M)})

    def complete(self, btf: Btf | None) -> None:
        """Add what BTF and the code tell, and make the finder's index."""
        if btf is not None:
            self._take("per-CPU", percpu_addresses(btf, self.addresses))
        if self.prog.platform is not None and self.prog.platform.arch == Architecture.AARCH64:
            self._take("by the code that uses them", referred(self.prog, self.addresses))

    def index(self) -> SymbolIndex:
        """Return a finder of what is not a function: functions are kallsyms'."""
        listed = [Symbol(name, address, 0, SymbolBinding.GLOBAL, SymbolKind.OBJECT)
                  for name, address in self.addresses.items() if not self.prog.symbols(name)]
        return SymbolIndex(listed)

    def told(self) -> str:
        """Say how many variables each of the four places gave."""
        return ", ".join(f"{count} {source}" for source, count in self._sources.items())

    def _take(self, source: str, found: Mapping[str, int]) -> None:
        new = {name: address for name, address in found.items()
               if name not in self.addresses and 0 < address <= _HIGHEST}
        self.addresses.update(new)
        self._sources[source] = len(new)


def percpu_addresses(btf: Btf, known: Mapping[str, int]) -> dict[str, int]:
    """Return the addresses of the per-CPU variables, as kallsyms would list them.

    BTF has their places in the section; where the section lies tell those that are exported, which must agree.
    """
    places: dict[str, int] = {}
    for type_id in range(btf.end_id - 1, max(btf.first_id, btf.end_id - _LAST_RECORDS) - 1, -1):
        record = btf.type(type_id)
        if record.kind == Kind.DATASEC and record.name == _PERCPU:
            data = btf.data[record.tail : record.tail + record.vlen * _VAR_SECINFO.size]
            places = {btf.type(variable).name: place for variable, place, _ in _VAR_SECINFO.iter_unpack(data)}
    starts = {known[name] - place for name, place in places.items() if name in known}
    if len(starts) != 1:
        return {}
    start = starts.pop()
    return {name: start + place for name, place in places.items()}


def referred(prog: drgn.Program, known: Mapping[str, int]) -> dict[str, int]:
    """Return the variables of `referrers` that the code gives away."""
    excluded = set(known.values())
    seen: dict[str, set[int]] = {}

    def of(function: str) -> set[int]:
        if function not in seen:
            symbols = prog.symbols(function)
            # A name that stands for two functions stands for none here.
            size = min(symbols[0].size, _LONGEST_FUNCTION) if len(symbols) == 1 else 0
            seen[function] = targets(read_patchy(prog, symbols[0].address, size), symbols[0].address) if size else set()
        return seen[function]

    found = {}
    for name, functions in REFERRERS.items():
        using = [of(function) for function in functions if not function.startswith("!")]
        others = [of(function[1:]) for function in functions if function.startswith("!")]
        if name in known or not all(using) or not all(others):
            continue
        left = set.intersection(*using).difference(excluded, *others)
        if DECLARATIONS.get(name) == ("struct list_head",):
            left = {address for address in left if _is_list(prog, address)}
        elif name in _FIRST_STRINGS:
            left = {address for address in left if _leads_to(prog, address, _FIRST_STRINGS[name])}
        if len(left) == 1:
            found[name] = left.pop()
    return found


def _is_list(prog: drgn.Program, address: int) -> bool:
    """Whether an address may be the head of a list: its neighbours point back."""
    try:
        after, before = prog.read_u64(address), prog.read_u64(address + 8)
        return bool(prog.read_u64(after + 8) == address and prog.read_u64(before) == address)
    except READ_ERRORS:
        return False


def _leads_to(prog: drgn.Program, address: int, text: bytes) -> bool:
    """Whether the pointer at an address leads to a string."""
    try:
        return bool(prog.read(prog.read_u64(address), len(text) + 1) == text + b"\0")
    except READ_ERRORS:
        return False


def find_btf(prog: drgn.Program, start: int) -> tuple[int, int] | None:
    """Return the bounds of the kernel's BTF, found behind `start` by its header; None where there is none."""
    return next(filter(None, (_btf_at(prog, place) for place in _places(prog, start, _BTF_START))), None)


def _btf_at(prog: drgn.Program, address: int) -> tuple[int, int] | None:
    header = _BTF_HEADER.unpack(read_patchy(prog, address, _BTF_HEADER.size))
    _, _, _, header_bytes, _, type_bytes, names_at, name_bytes = header
    size = header_bytes + names_at + name_bytes
    # The names follow the types, and begin with the empty one.
    if not type_bytes or not name_bytes or names_at != type_bytes or size > _LARGEST_BTF:
        return None
    ends = read_patchy(prog, address + header_bytes + names_at, 1) + read_patchy(prog, address + size - 1, 1)
    return (address, address + size) if ends == b"\0\0" else None


def exported(prog: drgn.Program, start: int) -> dict[str, int]:
    """Return the exported symbols' addresses by name, out of the tables behind `start`; empty where none are found."""
    return next(filter(None, (_exported_near(prog, start, place) for place in _places(prog, start, _ANCHOR))), {})


def _exported_near(prog: drgn.Program, start: int, anchor: int) -> dict[str, int]:
    """Return the symbols of the tables that lie before the names around `anchor`, if these are those names."""
    before = read_patchy(prog, anchor - _NAMES // 2, _NAMES // 2)
    after = read_patchy(prog, anchor, _NAMES // 2)
    begin = len(before.rstrip(_IN_NAMES))
    first = anchor - (len(before) - begin)
    names = before[begin:] + after[: len(after) - len(after.lstrip(_IN_NAMES))]
    count = names.count(b"\0")
    if count > _MOST_EXPORTED:
        return {}
    # Each symbol has an entry and a checksum of four bytes (CONFIG_MODVERSIONS) before the names, of which one may
    # be the tail of another: there are fewer of them.
    begin = max(start, (first - 32 * (count + 64)) & ~3)
    if first <= begin:
        return {}
    table = memoryview(read_patchy(prog, begin, (first - begin) & ~3)).cast("i")
    found = {}
    for place, name_at in _runs(table, begin, first, len(names), start):
        end = names.find(b"\0", name_at, name_at + _LONGEST_NAME)
        if end < 0:
            continue
        found[names[name_at:end].decode("ascii", "replace")] = begin + 4 * place + table[place]
    return found if "init_task" in found else {}


def _runs(table: memoryview[int], begin: int, first: int, name_bytes: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield (place in words, offset of the name) of the entries of a table, of which many stand in a row."""
    run: list[tuple[int, int]] = []
    place = 0
    while place + _ENTRY_WORDS <= len(table):
        at = begin + 4 * place
        value, name, space = table[place : place + _ENTRY_WORDS]
        if (0 < at + 4 + name - first < name_bytes and (not space or 0 <= at + 8 + space - first < name_bytes)
                and abs(value) < _LONGEST_IMAGE and at + value >= start - _LONGEST_IMAGE):
            run.append((place, at + 4 + name - first))
            place += _ENTRY_WORDS
            continue
        if len(run) >= _SHORTEST_RUN:
            yield from run
        run = []
        place += 1
    if len(run) >= _SHORTEST_RUN:
        yield from run


def _places(prog: drgn.Program, start: int, mark: bytes) -> Iterator[int]:
    """Yield the addresses in the image's read-only data at which a mark lies, up to a bound."""
    return islice((at + found.start() for at, chunk in _chunks(prog, start, len(mark) - 1)
                   for found in re.finditer(re.escape(mark), chunk)), _MOST_TRIES)


def _chunks(prog: drgn.Program, start: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yield (address, bytes) over the image's read-only data, each with the end of the one before it."""
    before = b""
    for at in range(start, start + _LONGEST_IMAGE, _CHUNK):
        chunk = before + read_patchy(prog, at, _CHUNK)
        yield at - len(before), chunk
        before = chunk[-overlap:]
