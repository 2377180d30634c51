"""Symbols as arrays: the one that holds an address, and what drgn's sizes of 16 bits leave out."""

from __future__ import annotations

import drgn
import pytest
from drgn import Symbol, SymbolBinding, SymbolKind

from kdumpy.debuginfo.symboltable import SymbolTable, pack

BASE = 0xFFFFFFFF81000000
PROG = drgn.Program()


def symbol(name: str, offset: int, size: int, kind: SymbolKind = SymbolKind.FUNC) -> Symbol:
    return Symbol(name, BASE + offset, size, SymbolBinding.GLOBAL, kind)


SYMBOLS = (
    Symbol("per_cpu_counter", 0x40, 8, SymbolBinding.UNKNOWN, SymbolKind.OBJECT),
    symbol("_text", 0, 0), symbol("startup_64", 0, 0x100),
    symbol("twice", 0x100, 0x10), symbol("twice", 0x110, 0xF0),
    symbol("handler", 0x200, 0), symbol("__irqentry_text_start", 0x200, 0x100),
    symbol("last_function", 0x300, 0), symbol("_etext", 0x20000, 0),
    symbol("large", 0x40000, 0, SymbolKind.OBJECT), symbol("__end_of_large", 0x60000, 0x10, SymbolKind.OBJECT),
    symbol("_end", 0x60010, 0, SymbolKind.OBJECT), symbol("of_nobody", 0x90000, 0, SymbolKind.OBJECT))


def table(shift: int = 0) -> SymbolTable:
    return SymbolTable(pack(SYMBOLS), shift)


@pytest.mark.parametrize(("offset", "name"), [
    (0, "startup_64"), (0x1FF, "twice"), (0x200, "handler"), (0x2FF, "handler"), (0x300, None), (0x20000, None),
    (0x40000, "large"), (0x5FFFF, "large"), (0x60000, "__end_of_large"), (0x60010, None), (0x90000, None)])
@pytest.mark.parametrize("shift", [0, 0x1C000000, -0x1000000])
def test_an_address_has_the_symbol_that_holds_it(offset: int, name: str | None, shift: int) -> None:
    found = table(shift)(PROG, None, BASE + offset + shift, True)
    assert [symbol.name for symbol in found] == ([name] if name else [])
    assert all(symbol.address <= BASE + offset + shift < symbol.address + symbol.size for symbol in found)


def test_names_lead_to_all_that_have_them() -> None:
    found = table()(PROG, "twice", None, False)
    assert [symbol.address for symbol in found] == [BASE + 0x100, BASE + 0x110]
    assert table()(PROG, "twice", None, True) == found[:1]
    assert table()(PROG, "twice", BASE + 0x115, False) == found[1:]
    assert table()(PROG, "thrice", None, False) == []


def test_what_is_no_address_stays_where_it_is() -> None:
    (counter,) = table(0x1C000000)(PROG, "per_cpu_counter", None, True)
    assert counter == SYMBOLS[0]


def test_all_are_given_as_they_were() -> None:
    assert {(each.name, each.address, each.kind, each.binding) for each in table()(PROG, None, None, False)} == {
        (each.name, each.address, each.kind, each.binding) for each in SYMBOLS}


@pytest.mark.parametrize("symbols", [
    [symbol("long", 0, 0x20), symbol("inside", 0x10, 8)],
    [symbol("first", 0, 0x20), symbol("second", 0, 0)]])
def test_symbols_that_overlap_are_not_kept(symbols: list[Symbol]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        pack(symbols)


@pytest.mark.parametrize("cut", [1, 8, 40])
def test_a_table_that_is_cut_is_none(cut: int) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        SymbolTable(pack(SYMBOLS)[:-cut])
