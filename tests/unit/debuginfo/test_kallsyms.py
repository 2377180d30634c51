"""The search for the kallsyms tables of kernels before 6.0, in memory made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection

import drgn
import pytest

from kdumpy.debuginfo import kallsyms
from kdumpy.errors import NotInDump

PAGE = 4096
STEXT = 0xFFFFFFFF81000000
TABLES = STEXT + (3 << 19)
"""Where the tables begin: in the middle of the second MiB that is searched."""
SYMBOLS = 40 * 256 + 17


class Tables:
    """Writes the tables as scripts/kallsyms.c did from 4.6 to 5.19; each token is one character."""

    def __init__(self, marker: str = "I") -> None:
        names = [f"T{'x' * (number % 11)}symbol_{number}" for number in range(SYMBOLS)]
        tokens = [chr(code) if 32 < code < 127 else f"t{code}_" for code in range(256)]
        starts, markers = b"", []
        packed = b""
        for number, name in enumerate(names):
            if number % 256 == 0:
                markers.append(len(packed))
            packed += bytes([len(name)]) + name.encode()
        table = b""
        for token in tokens:
            starts += struct.pack("<H", len(table))
            table += token.encode() + b"\0"
        self.at: dict[str, int] = {}
        self.raw = b""
        self._add("kallsyms_offsets", struct.pack(f"<{SYMBOLS}I", *range(0, 16 * SYMBOLS, 16)))
        self._add("kallsyms_relative_base", struct.pack("<Q", STEXT))
        self._add("kallsyms_num_syms", struct.pack("<Q", SYMBOLS))
        self._add("kallsyms_names", packed)
        self._add("kallsyms_markers", struct.pack(f"<{len(markers)}{marker}", *markers))
        self._add("kallsyms_token_table", table)
        self._add("kallsyms_token_index", starts)
        self.markers = self.at.pop("kallsyms_markers")

    def _add(self, name: str, data: bytes) -> None:
        self.at[name] = TABLES + len(self.raw)
        self.raw += data + bytes(-len(data) % 8)


def program(raw: bytes, missing: Collection[int] = (), after: int = 4 * PAGE) -> drgn.Program:
    """Return a program of the image from STEXT on, with the tables at TABLES, without the missing pages."""
    image = bytes(TABLES - STEXT) + raw + bytes(after - len(raw) % PAGE)

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        for page in range(address & -PAGE, address + count, PAGE):
            if page in missing:
                raise drgn.FaultError("page is missing", page)
        return image[offset : offset + count]

    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.add_memory_segment(STEXT, len(image), read)
    return prog


@pytest.mark.parametrize("marker", ["I", "Q"])
def test_the_tables_are_found_by_their_shape(marker: str) -> None:
    tables = Tables(marker)
    assert kallsyms.find_tables(program(tables.raw), STEXT) == tables.at


BESIDE: dict[str, Callable[[Tables], int]] = {
    "before the tables": lambda tables: TABLES - 3 * PAGE,
    "in the offsets": lambda tables: tables.at["kallsyms_offsets"] + PAGE,
    "in the names": lambda tables: tables.at["kallsyms_names"] + 9 * PAGE,
    "after the tables": lambda tables: tables.at["kallsyms_token_index"] + 512 + PAGE,
}


@pytest.mark.parametrize("where", BESIDE)
@pytest.mark.parametrize("marker", ["I", "Q"])
def test_a_missing_page_beside_what_is_searched_hides_nothing(marker: str, where: str) -> None:
    tables = Tables(marker)
    prog = program(tables.raw, {BESIDE[where](tables) & -PAGE})
    assert kallsyms.find_tables(prog, STEXT) == tables.at


@pytest.mark.parametrize("name", ["markers", "kallsyms_token_table"])
def test_a_missing_page_of_what_is_searched_is_told(name: str) -> None:
    tables = Tables()
    page = (tables.markers if name == "markers" else tables.at[name]) & -PAGE
    with pytest.raises(NotInDump, match="not found"):
        kallsyms.find_tables(program(tables.raw, {page}), STEXT)
