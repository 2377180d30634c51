"""The symbol table: kallsyms of the dump as .symtab, at the addresses that the kernel was linked for."""

from __future__ import annotations

from collections.abc import Sequence, Set

import drgn
import numpy as np
from drgn import SymbolBinding
from numpy.typing import NDArray

from kdumpy.vmlinux.elf import Flag
from kdumpy.vmlinux.image import PERCPU, Image, Part
from kdumpy.vmlinux.padding import without_padding

ROW = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
                ("size", "<u8")])
"""Elf64_Sym."""
assert ROW.itemsize == 24
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_BINDINGS = {SymbolBinding.GLOBAL: _GLOBAL, SymbolBinding.WEAK: _WEAK}
_NOTYPE, _OBJECT, _FUNC, _SECTION = 0, 1, 2, 3
_ENDS = ("_etext", "_edata", "_einittext", "__stop_", "__end_", "__bss_stop", "__brk_limit", "_end", "__init_end")
"""How names begin that the linker gave to the end of something."""
_ABSOLUTE = 0xFFF1
_PREFIX = "__pfx_"
_LINKER = ("__start_", "__stop_", "_text", "_stext", "_etext", "_sdata", "_edata", "_end", "_sinittext", "_einittext",
           "__end_", "__bss_", "__brk_", "__init_begin", "__init_end", "__per_cpu_start", "__per_cpu_end",
           "__per_cpu_load", "__irqentry_text_", "__softirqentry_text_", "__entry_text_", "__noinstr_text_",
           "__sched_text_", "__lock_text_", "__cpuidle_text_", "__kprobes_text_", "__indirect_thunk_",
           "__static_call_text_", "init_thread_union", "init_stack", ".L")
"""How names begin that the linker or the assembler gave to a place, not to a function or variable.

They have no size, so that gdb does not take a pointer to there for one to them.
"""


class Symbols:
    """Every symbol of the kernel itself; the modules' are in each dump, where crash and drgn find them."""

    def __init__(self, found: Sequence[drgn.Symbol], image: Image, exported: Set[str]) -> None:
        """`exported` names the per-CPU variables that other files can name: kallsyms says it of all of them."""
        self.names = [symbol.name for symbol in found]
        self.start: NDArray[np.uint64] = np.array([symbol.address for symbol in found], np.uint64)
        """Addresses in the dump."""
        self.address = image.linked(self.start)
        """Addresses that the kernel was linked for."""
        ends = np.array([name.startswith(_ENDS) or name.endswith("_end") for name in self.names], np.bool_)
        self.part, end = image.locate(self.start, ends)
        """Which part of the image each lies in, -1 for none."""
        code = np.array([bool(part.flags & Flag.CODE) for part in image.parts] + [False])
        self.is_code: NDArray[np.bool_] = code[self.part]
        self.is_place: NDArray[np.bool_] = np.array([name.startswith(_LINKER) for name in self.names], np.bool_)
        self.size = self._room(end)
        """Bytes up to the next symbol or the end of the part: the padding behind a variable counts as its own."""
        bindings = [_BINDINGS.get(symbol.binding, _LOCAL) for symbol in found]
        self._bindings = np.array(bindings, np.uint8)
        percpu = np.array([part.name == PERCPU for part in image.parts] + [False])[self.part]
        for number in np.flatnonzero(percpu & ~self.is_place):
            self._bindings[number] = _GLOBAL if self.names[number] in exported else _LOCAL
        self._image = image

    def _room(self, end: NDArray[np.uint64]) -> NDArray[np.uint64]:
        places = np.unique(self.start)
        following = np.append(places[1:], places[-1:])[np.searchsorted(places, self.start)]
        following = np.where((end > 0) & (following > self.start), np.minimum(following, end), end)
        return np.where(following > self.start, following - self.start, 0).astype(np.uint64)

    def trim(self, code: Part, text: NDArray[np.uint8]) -> None:
        """Take the padding off the functions of a part, whose contents are `text`."""
        index = np.flatnonzero(self.is_code & (self.part == self._image.parts.index(code)) & (self.size > 0))
        # The nops before a function are a symbol of their own: b341b20d648b "x86: Add prefix symbols for function
        # padding" (6.2).
        index = index[[not self.names[number].startswith(_PREFIX) for number in index]]
        starts = (self.start[index] - np.uint64(code.start)).astype(np.int64)
        self.size[index] = without_padding(text, starts, self.size[index].astype(np.int64)).astype(np.uint64)

    @property
    def is_global(self) -> NDArray[np.bool_]:
        """Which symbols other files can name."""
        found: NDArray[np.bool_] = self._bindings == _GLOBAL
        return found

    def table(self, numbers: Sequence[int]) -> tuple[bytes, bytes, int]:
        """Return .symtab, .strtab, and the number of local symbols; `numbers` are the sections' numbers by part."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in self.names]
        lengths = np.array([len(name) + 1 for name in encoded], np.int64)
        rows = np.zeros(len(encoded), ROW)
        rows["name"] = 1 + np.cumsum(lengths) - lengths
        types = np.where(self.is_place, _NOTYPE, np.where(self.is_code, _FUNC, _OBJECT))
        rows["info"] = self._bindings << 4 | types
        rows["section"] = np.array([*numbers, _ABSOLUTE], np.uint16)[self.part]
        rows["value"] = self.address
        rows["size"] = np.where(self.is_place, 0, self.size)
        local = self._bindings == _LOCAL
        rows = np.concatenate([np.zeros(1, ROW), self._section_symbols(numbers), rows[local], rows[~local]])
        strings = b"\0" + b"\0".join(encoded) + b"\0"
        return rows.tobytes(), strings, len(rows) - int(np.count_nonzero(~local))

    def _section_symbols(self, numbers: Sequence[int]) -> NDArray[np.void]:
        """Return the sections' own symbols: without `.rodata`'s, crash runs strings over the file for the banner."""
        rows = np.zeros(len(numbers), ROW)
        rows["info"], rows["section"] = _SECTION, numbers
        rows["value"] = [part.address for part in self._image.parts]
        return rows
