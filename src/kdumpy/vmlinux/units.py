"""The debug sections: one compilation unit for the kernel, and one for each module that brings types."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from kdumpy import __version__
from kdumpy.debuginfo.btf import Btf
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.dumpfile.sink import Buffer, flat_bytes
from kdumpy.errors import DamagedDump, KdumpyError
from kdumpy.vmlinux import shapes
from kdumpy.vmlinux.dwarf import C99, UNIT_HEADER, Section, Strings
from kdumpy.vmlinux.functions import FunctionEntries
from kdumpy.vmlinux.merging import Known
from kdumpy.vmlinux.names import Names
from kdumpy.vmlinux.records import Records
from kdumpy.vmlinux.symbols import Symbols
from kdumpy.vmlinux.types import TypeEntries
from kdumpy.vmlinux.variables import VariableEntries, Variables

_HEAD = UNIT_HEADER.size + shapes.UNIT.size
"""Bytes of a unit before its first type."""
_END = 1
"""Bytes of the mark behind a unit's last entry."""
_BROKEN = (IndexError, ValueError, OverflowError, TypeError)
"""What numpy raises of BTF that breaks its own rules."""


class _Unit(NamedTuple):
    name: str
    start: int
    end: int
    types: TypeEntries


class DebugSections:
    """.debug_info, .debug_abbrev and .debug_str of the kernel and its modules.

    A module's types refer to the kernel's; its functions and variables lie elsewhere in every dump and are left out.

    Raises:
        DamagedDump: the kernel's BTF breaks its own rules.
    """

    def __init__(self, types: BtfTypes, symbols: Symbols, variables: Variables) -> None:
        self.left_out: dict[str, str] = {}
        """Why a module's types are not there, by module."""
        self.renamed: dict[str, list[str]] = {}
        """The names of each module's types that got its name behind them, since others have that name."""
        self._strings = Strings([blob.string_section for blob in (types.btf, *types.modules.values())])
        try:
            self._describe(types.btf, symbols, variables)
            self._add_modules(types.modules)
            self._write()
        except _BROKEN as error:
            raise DamagedDump("BTF describes impossible types", why=str(error)) from error

    def _describe(self, btf: Btf, symbols: Symbols, variables: Variables) -> None:
        records = Records(btf)
        types = TypeEntries(records, _HEAD, Names(records, self._strings, 0))
        self.functions = FunctionEntries(types, symbols, types.end)
        self.variables = VariableEntries(variables, types, self._strings, self.functions.end)
        self._units = [_Unit("vmlinux", 0, self.variables.end + _END, types)]

    def _add_modules(self, modules: dict[str, Btf]) -> None:
        kernel = self._units[0].types
        known, shift = Known(kernel), 0
        for name, btf in modules.items():
            start = self._units[-1].end
            try:
                records = Records(btf, kernel.records)
                settled = known.settle(records)
                names = Names(records, self._strings, shift)
                names.rename(settled.renamed, settled.enumerators, "__" + re.sub(r"[^A-Za-z0-9_]", "_", name))
                types = TypeEntries(records, start + _HEAD, names, kernel, settled.merged)
            except (KdumpyError, *_BROKEN) as error:
                self.left_out[name] = str(error)
            else:
                known.add(types, settled)
                self._units.append(_Unit(name, start, types.end + _END, types))
                if settled.renamed:
                    self.renamed[name] = [btf.name(int(records.name[index])) for index in sorted(settled.renamed)]
            shift += len(btf.string_section)

    def _write(self) -> None:
        self._section = section = Section(self._units[-1].end)
        producer = self._strings.place(f"kdumpy {__version__}, from a dump's BTF")
        for unit in self._units:
            section.unit(unit.start, unit.end)
            section.put(shapes.UNIT, np.array([unit.start + UNIT_HEADER.size]), NAME=[self._strings.place(unit.name)],
                        PRODUCER=[producer], LANGUAGE=[C99])
            unit.types.write(section)
        self.functions.write(section)
        self.variables.write(section)

    @property
    def types(self) -> int:
        """How many types are described, the modules' among them."""
        return sum(unit.types.count for unit in self._units)

    @property
    def modules(self) -> dict[str, int]:
        """How many types each module brought."""
        return {unit.name: unit.types.count for unit in self._units[1:]}

    def sections(self) -> dict[str, memoryview]:
        """Return the contents by the sections' names."""
        found: dict[str, Buffer] = {
            ".debug_info": self._section.data, ".debug_abbrev": self._section.abbreviations.section(),
            ".debug_str": self._strings.section()}
        return {name: flat_bytes(data) for name, data in found.items()}
