"""The kernel's symbols out of tables that are damaged: what decodes is kept, and what is lost is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import drgn
import pytest

import kdumpy
import lab
from console import Console
from kdumpy.debuginfo import kallsyms
from kdumpy.debuginfo.salvage import Salvaged, salvage
from kdumpy.errors import DamagedDump

Key = tuple[str, int, int, drgn.SymbolBinding, drgn.SymbolKind]


@pytest.fixture(autouse=True)
def _decoded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_CACHE", "")


@pytest.fixture
def prog() -> Iterator[drgn.Program]:
    """A program of its own: its memory is changed."""
    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as kernel:
        yield kernel.prog


def tables_of(prog: drgn.Program) -> dict[str, int]:
    text = prog["VMCOREINFO"].string_().decode()
    known = {name: int(value, 16) for name, value in re.findall(r"^SYMBOL\((\w+)\)=([0-9a-f]+)$", text, re.M)}
    return known if "kallsyms_names" in known else kallsyms.find_tables(prog, known["_stext"])


def decoded(prog: drgn.Program) -> Salvaged:
    tables = tables_of(prog)
    return salvage(prog, tables, prog.read_u32(tables["kallsyms_num_syms"]), {})


def keys(symbols: list[drgn.Symbol]) -> set[Key]:
    return {(symbol.name, symbol.address, symbol.size, symbol.binding, symbol.kind) for symbol in symbols}


def drgns(prog: drgn.Program) -> set[Key]:
    found = kallsyms.load(prog)
    assert not found.damage
    return keys(list(found._index(prog, None, None, False)))


def lengths(prog: drgn.Program, most: int) -> list[int]:
    """Return where the lengths of names stand; they have one byte each in the kernel of `prog`."""
    begin = tables_of(prog)["kallsyms_names"]
    data = prog.read(begin, most * 32)
    found, at = list[int](), 0
    while len(found) < most:
        found.append(begin + at)
        at += data[at] + 1
    return found


def overwrite(prog: drgn.Program, address: int, data: bytes) -> None:
    prog.add_memory_segment(address, len(data), lambda _, count, offset, physical: data[offset:offset + count])


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_whole_tables_decode_as_drgn_decodes_them(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        found = decoded(opened.prog)
        assert not found.repaired
        assert len(found.symbols) == found.total
        assert keys(found.symbols) == drgns(opened.prog)


@pytest.mark.parametrize("bit", [7, 2])
def test_one_changed_bit_takes_no_name(prog: drgn.Program, bit: int) -> None:
    """The highest makes drgn give up; another one shifts every name that comes behind."""
    whole = drgns(prog)
    at = lengths(prog, 1001)[-1]
    overwrite(prog, at, bytes([prog.read_u8(at) ^ 1 << bit]))
    found = kallsyms.load(prog)
    assert "none of" in found.damage
    assert "1 part with one changed bit was mended" in found.damage
    assert keys(list(found._index(prog, None, None, False))) == whole


def test_a_lost_page_takes_its_names_only(prog: drgn.Program) -> None:
    whole = drgns(prog)
    page = lengths(prog, 30_000)[-1] & -4096

    def missing(address: int, *_: object) -> bytes:
        raise drgn.FaultError("not in the dump", address)

    prog.add_memory_segment(page, 4096, missing)
    found = kallsyms.load(prog)
    names = keys(list(found._index(prog, None, None, False)))
    assert names < whole
    assert len(whole) - len(names) <= 3 * 256
    assert re.search(r"\b\d+ of \d+ names are lost", found.damage)
    assert found(prog, "schedule", None, True)


def test_much_damage_leaves_true_names(prog: drgn.Program) -> None:
    whole = drgns(prog)
    for number, at in enumerate(lengths(prog, 20_000)[::400]):
        overwrite(prog, at, bytes([prog.read_u8(at) ^ 1 << number % 7]))
    names = keys(list(kallsyms.load(prog)._index(prog, None, None, False)))
    assert names <= whole
    assert len(names) > len(whole) // 2


def test_a_wrong_base_is_found_again(prog: drgn.Program) -> None:
    whole = drgns(prog)
    overwrite(prog, tables_of(prog)["kallsyms_relative_base"], bytes(8))
    assert keys(list(kallsyms.load(prog)._index(prog, None, None, False))) == whole


def test_tables_of_nothing_are_refused(prog: drgn.Program) -> None:
    tables = tables_of(prog)
    with pytest.raises(DamagedDump, match="do not lie as they should"):
        salvage(prog, tables, 10, {})
    overwrite(prog, tables["kallsyms_token_index"], bytes(512))
    with pytest.raises(DamagedDump, match="tokens"):
        salvage(prog, tables, prog.read_u32(tables["kallsyms_num_syms"]), {})


@pytest.fixture
def nameless() -> Iterator[Console]:
    """A shell on a dump whose symbol table is lost, and one whose names are in part."""
    path = lab.dump("6.1", "null-workqueue").path
    with kdumpy.open(path) as whole:
        index = tables_of(whole.prog)["kallsyms_token_index"]

    def lost(prog: drgn.Program) -> kallsyms.KernelSymbols:
        overwrite(prog, index, bytes(512))
        return load(prog)

    load = kallsyms.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kallsyms, "load", lost)
        kernel = kdumpy.open(path)
    with kernel:
        yield Console(kernel)


def test_without_symbols_commands_say_so_and_how_to_get_them(nameless: Console) -> None:
    for line in ("kmem -s", "kmem -c", "search -p 12345678", "mach", "ps", "p jiffies"):
        errors = nameless.fails(line)
        assert "this dump has no symbols: " in errors, errors
        assert "kdumpy crash vmcore VMLINUX" in errors, errors
        assert "Exception" not in errors
    for line in ("nothing", "ps --bogus", "rd -8"):       # not of the symbols
        assert "no symbols" not in nameless.fails(line)
