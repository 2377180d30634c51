"""The kernel's symbols, kept from one dump of a kernel to the next.

To find and to decode kallsyms takes a tenth of a second, for each dump anew. What was decoded is kept under the
kernel's build ID, with a hash of the tables that it was decoded from: a dump whose tables differ in one bit, for it
is damaged or lies about its build ID, gets nothing of it. It is kept when the process ends, after the answer.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import marshal
import re
from collections.abc import Mapping
from functools import partial

import drgn

from kdumpy.debuginfo import cache
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.debuginfo.symboltable import MOST_SYMBOLS, SymbolTable, pack

_FORMAT = 2
"""Part of an entry's name: rises when what an entry holds changes."""
_LARGEST = 64 << 20
"""Bytes of names and tokens; a distribution's kernel has 2 MB."""
_SIZE = 8
"""Bytes in front of an entry that say how long its head is."""
_INDEX = 512
"""Bytes of kallsyms_token_index."""
_pending: dict[str, partial[None]] = {}
"""What is to be kept at the end, by the names of the entries."""


def find(prog: drgn.Program, vmcoreinfo: str, known: Mapping[str, int]) -> SymbolTable | None:
    """Return what an earlier dump of this kernel has given, if this one's tables are the same; else None.

    Args:
        prog: the program of the dump.
        vmcoreinfo: its text.
        known: the addresses that it tells, by name.
    """
    name = _entry(vmcoreinfo)
    body = cache.read(name) if name else None
    if body is None:
        return None
    try:
        size = int.from_bytes(body[:_SIZE], "little")
        places, digest, stext = marshal.loads(body[_SIZE:_SIZE + size])
        shift = known["_stext"] - stext
        tables = {table: place + shift for table, place in places.items()} | dict(known)
        if _digest(prog, tables, stext + shift) != digest:
            return None
        return SymbolTable(body[_SIZE + size:], shift)
    except (*READ_ERRORS, EOFError):
        return None


def keep(prog: drgn.Program, vmcoreinfo: str, known: Mapping[str, int], tables: Mapping[str, int],
         index: drgn.SymbolIndex) -> None:
    """Keep what was decoded, when the process ends.

    Args:
        prog: the program of the dump.
        vmcoreinfo: its text.
        known: the addresses that it tells, by name.
        tables: the addresses of the tables, by their names.
        index: what was decoded.
    """
    name = _entry(vmcoreinfo)
    if not name or name in _pending:
        return
    with contextlib.suppress(*READ_ERRORS):
        stext = known["_stext"]
        symbols = index(prog, None, None, False)
        found = {table: place for table, place in tables.items() if table.startswith("kallsyms_")}
        _pending[name] = partial(_write, name, found, _digest(prog, tables, stext), stext, symbols)


def _write(name: str, places: dict[str, int], digest: bytes, stext: int, symbols: list[drgn.Symbol]) -> None:
    with contextlib.suppress(ValueError, MemoryError):
        head = marshal.dumps((places, digest, stext))
        cache.write(name, b"".join((len(head).to_bytes(_SIZE, "little"), head, pack(symbols))))


@atexit.register
def keep_all() -> None:
    """Write what is to be kept."""
    with contextlib.suppress(KeyboardInterrupt):        # the answer is out, and this can wait for the next dump
        while _pending:
            _pending.popitem()[1]()


def _entry(vmcoreinfo: str) -> str:
    """Return the name of this kernel's entry; empty where nothing is kept, or the kernel has no name."""
    names = re.findall(r"^(?:OSRELEASE|BUILD-ID)=.+$", vmcoreinfo, re.M)
    if not names or not cache.is_on():
        return ""
    return f"{hashlib.blake2b(chr(10).join(names).encode(), digest_size=20).hexdigest()}.symbols.{_FORMAT}"


def _digest(prog: drgn.Program, tables: Mapping[str, int], stext: int) -> bytes:
    """Return a hash of all that the symbols are decoded from, but for where the kernel lies.

    Raises:
        drgn.FaultError, LookupError: a part is missing.
        ValueError: the tables make no sense.
    """
    names, offsets = tables["kallsyms_names"], tables["kallsyms_offsets"]
    end = tables["kallsyms_token_index"] + _INDEX
    count = prog.read_u32(tables["kallsyms_num_syms"])
    if not 0 < end - names <= _LARGEST or not 0 < count <= MOST_SYMBOLS:
        raise ValueError("the tables do not lie as they should")
    base = prog.read_u64(tables["kallsyms_relative_base"]) if "kallsyms_relative_base" in tables else offsets
    whole = hashlib.blake2b(prog.read(names, end - names))
    whole.update(prog.read(offsets, 4 * count))
    whole.update(f"{count} {base - stext}".encode())
    return whole.digest()
