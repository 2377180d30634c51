"""Symbols that are kept from one dump of a kernel to the next: the same as decoded, and only for the same tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import drgn
import pytest

import kdumpy
import lab
from kdumpy.debuginfo import kallsyms, keptsymbols

KEPT = "an earlier dump of this kernel"
FIRST, SECOND = "null-workqueue", "sysrq"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "cache"
    monkeypatch.setattr(keptsymbols, "_pending", {})
    monkeypatch.setenv("KDUMPY_CACHE", str(where))
    return where


def keep(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, FIRST).path) as first:
        assert first.debuginfo.symbols
        assert not first.debuginfo.symbols.source.startswith(KEPT)
    keptsymbols.keep_all()


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_another_boot_is_told_the_same_as_by_its_own_tables(kernel: str, folder: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    keep(kernel)
    path = lab.dump(kernel, SECOND).path
    with kdumpy.open(path) as kept:
        monkeypatch.setenv("KDUMPY_CACHE", "")
        with kdumpy.open(path) as decoded:
            ours, theirs = kept.debuginfo.symbols, decoded.debuginfo.symbols
            assert ours
            assert theirs
            assert ours.source.startswith(KEPT)
            every = theirs(decoded.prog, None, None, False)
            assert len(every) > 50_000
            for symbol in every[::7]:
                assert known(ours, kept.prog, symbol) == known(theirs, decoded.prog, symbol)


def known(finder: kallsyms.KernelSymbols, prog: drgn.Program, symbol: drgn.Symbol) -> list[object]:
    """Return what a finder knows by a symbol's name, and by its first address, its last one and the next."""
    named = [(each.address, each.kind, each.binding) for each in finder(prog, symbol.name, None, False)]
    places = (symbol.address, symbol.address + max(symbol.size - 1, 0), symbol.address + symbol.size)
    return [named, *(finder(prog, None, place, True) for place in places if place < 1 << 64)]


def flip(prog: drgn.Program, address: int) -> None:
    changed = bytes([prog.read_u8(address) ^ 1])
    prog.add_memory_segment(address, 1, lambda *_: changed)


def lose(prog: drgn.Program, address: int) -> None:
    def missing(address: int, *_: object) -> bytes:
        raise drgn.FaultError("not in the dump", address)

    prog.add_memory_segment(address & -4096, 4096, missing)


@pytest.mark.parametrize("damage", [flip, lose])
@pytest.mark.parametrize("table", ["kallsyms_names", "kallsyms_offsets", "kallsyms_token_table", "kallsyms_num_syms"])
def test_tables_that_are_damaged_get_nothing_of_it(table: str, damage: Callable[[drgn.Program, int], None],
                                                   folder: Path) -> None:
    keep("6.1")
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump("6.1", SECOND).path))
    text = prog["VMCOREINFO"].string_().decode()
    at = re.search(rf"^SYMBOL\({table}\)=([0-9a-f]+)$", text, re.M)
    assert at
    known = {name: int(value, 16) for name, value in re.findall(r"^SYMBOL\((\w+)\)=([0-9a-f]+)$", text, re.M)}
    assert keptsymbols.find(prog, text, known) is not None
    damage(prog, int(at[1], 16) + 2)
    assert keptsymbols.find(prog, text, known) is None


def test_damaged_tables_are_not_kept(folder: Path) -> None:
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump("6.1", SECOND).path))
    names = re.search(r"^SYMBOL\(kallsyms_names\)=([0-9a-f]+)$", prog["VMCOREINFO"].string_().decode(), re.M)
    assert names
    flip(prog, int(names[1], 16))
    assert kallsyms.load(prog).damage
    keptsymbols.keep_all()
    assert not folder.exists()


def test_an_entry_of_another_kernel_under_this_one_s_name_gives_nothing(folder: Path) -> None:
    keep("6.1")
    (entry,) = folder.glob("*.symbols.*")
    with kdumpy.open(lab.dump("6.12", FIRST).path):
        pass
    keptsymbols.keep_all()
    (other,) = set(folder.glob("*.symbols.*")) - {entry}
    other.replace(entry)
    with kdumpy.open(lab.dump("6.1", SECOND).path) as kernel:
        assert kernel.debuginfo.symbols
        assert not kernel.debuginfo.symbols.source.startswith(KEPT)
        assert kernel.prog.symbol("schedule")
