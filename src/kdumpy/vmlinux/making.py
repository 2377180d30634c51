"""From an opened dump to the file: what is read, in which order it is laid out and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdumpy.debuginfo.btf import Btf
from kdumpy.debuginfo.dwarf import package_of
from kdumpy.debuginfo.modules import add_module_types
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.notes import Machine, Note, pack_notes
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import NotInDump
from kdumpy.kernel import Kernel
from kdumpy.vmlinux.elf import ElfFile, Flag, Kind, Placed
from kdumpy.vmlinux.image import Image, Part, contents, whole
from kdumpy.vmlinux.symbols import ROW, Symbols
from kdumpy.vmlinux.units import DebugSections
from kdumpy.vmlinux.variables import Variables

Progress = Callable[[int, int, int], None]
"""Told (bytes done, bytes in all, bytes written)."""

_VAR_LINKAGE, _VAR_GLOBAL = 3, 1
"""Word of a VAR's record that says its linkage, and the value for a global one (BTF_VAR_GLOBAL_ALLOCATED)."""
_TICKS = "write_expire"
"""A static constant of the deadline scheduler, 5 * HZ, that the compiler leaves no symbol of: crash reads HZ off it."""
_TICKS_IN = {"dd_init_sched", "dd_init_queue", "deadline_init_queue"}
"""The functions by which crash knows that it is there (task.c, task_init())."""
_BUILD_ID, _NT_GNU_BUILD_ID = ".note.gnu.build-id", 3


@dataclass(frozen=True)
class Made:
    """What was written, and what was not."""

    bytes: int
    """Size of the file; what was never written in it takes no room on the disk."""
    release: str
    """The kernel's release (uname -r)."""
    build_id: str
    """Its build-id in hexadecimal, or empty."""
    kaslr_offset: int
    """What KASLR added to the addresses in this dump, bytes; the file has them without it."""
    symbols: int
    types: int
    """The modules' among them."""
    functions: int
    """Functions with their prototypes."""
    variables: int
    """Variables with their types."""
    modules: dict[str, int]
    """How many types each module brought."""
    renamed: dict[str, list[str]]
    """Types of modules that got `__MODULE` behind their names, since the kernel or another module has that name."""
    image_bytes: int
    """Bytes of code and data in the image."""
    missing_bytes: int
    """How many of them the dump did not hold: they are zero."""
    left_out: dict[str, str]
    """Why something is not there, by what."""


def make_vmlinux(kernel: Kernel, sink: Sink, progress: Progress | None = None) -> Made:
    """Write a debug vmlinux of the dump's kernel.

    Raises:
        NotInDump: the dump lacks its symbol table or its types, or is of a machine that this is not done for.
        DamagedDump: they make no sense.
        HostError: the file cannot be written.
    """
    info = kernel.debuginfo
    mend = f"the kernel's own is in {package_of(kernel.dump.vmcoreinfo.osrelease)}"
    if kernel.dump.machine != Machine.X86_64:
        raise NotInDump("a vmlinux can be made of x86-64 dumps only", where=str(kernel.path),
                        why=f"this one is of {kernel.dump.machine.value}", mend=mend)
    for part in ("symbols", "types"):
        if part in info.missing:
            raise NotInDump(f"without the kernel's {part} there is nothing to make a vmlinux of",
                            where=str(kernel.path), why=info.missing[part], mend=mend)
    return _Making(kernel).write(sink, progress)


class _Making:
    def __init__(self, kernel: Kernel) -> None:
        """Read what the sections are made of."""
        info = kernel.debuginfo
        assert info.symbols is not None
        assert info.types is not None
        assert info.objects is not None
        self._prog = prog = kernel.prog
        self._info = kernel.dump.vmcoreinfo
        self._left_out: dict[str, str] = {}
        if not info.types.modules:
            self._left_out |= {f"types of modules, {name}": why for name, why in add_module_types(info.types).items()}
        found = info.symbols(prog, None, None, False)
        addresses = {symbol.name: symbol.address for symbol in found}
        self._slide = self._info.kernel_offset
        self._image = Image(addresses, self._slide, self._percpu_offset())
        self._left_out |= dict.fromkeys(self._image.missing, "the symbol table lacks its bounds")
        self._symbols = symbols = Symbols(found, self._image, _exported(info.types.btf))
        for part in self._image.parts:
            if part.flags & Flag.CODE and part.source is not None:
                symbols.trim(part, whole(prog, part))
        variables = Variables(prog, info.types, info.objects)
        variables.add_all(symbols)
        if addresses.keys() & _TICKS_IN:
            try:
                rate = round(1e9 / prog.read_u64(prog.symbol("tick_nsec").address))
                variables.constants.append((_TICKS, "const int", 5 * rate))
            except (*READ_ERRORS, ZeroDivisionError) as error:
                self._left_out["HZ, so that crash guesses it"] = str(error)
        self._debug = DebugSections(info.types, symbols, variables)
        self._left_out |= {f"types of modules, {name}": why for name, why in self._debug.left_out.items()}

    def _percpu_offset(self) -> int:
        try:
            return int(self._prog["__per_cpu_offset"][0].value_())
        except READ_ERRORS as error:
            self._left_out["contents of per-CPU data"] = str(error)
            return 0

    def write(self, sink: Sink, progress: Progress | None) -> Made:
        """Write the file."""
        parts = self._image.parts
        groups = [[_placed(part) for part in group] for group in self._image.groups]
        table, names, local = self._symbols.table(range(1, 1 + len(parts)))
        sections = self._debug.sections()
        notes = self._build_id_note()
        if notes:
            sections[_BUILD_ID] = memoryview(notes)
        others = [Placed(name, Kind.NOTE if name == _BUILD_ID else Kind.PROGBITS, Flag.NONE, 0, len(data),
                         alignment=4 if name == _BUILD_ID else 1) for name, data in sections.items()]
        others += [Placed(".symtab", Kind.SYMTAB, Flag.NONE, 0, len(table), alignment=8, entry_size=ROW.itemsize,
                          link=len(others) + 1, info=local),
                   Placed(".strtab", Kind.STRTAB, Flag.NONE, 0, len(names))]
        file = ElfFile(groups, others, entry=groups[0][0].physical)
        stored = 0
        for size in self._write_image(file, sink, [placed for group in groups for placed in group]):
            stored += size
            if progress:
                progress(stored, file.size, stored)
        for placed, data in zip(others, (*sections.values(), memoryview(table), memoryview(names)), strict=True):
            file.write(sink, placed, data)
        file.write_headers(sink)
        if progress:
            progress(file.size, file.size, file.size)
        total, debug = sum(part.size for part in parts if part.source is not None), self._debug
        return Made(
            bytes=file.size, release=self._info.osrelease, build_id=self._info.build_id, kaslr_offset=self._slide,
            symbols=len(self._symbols.names), types=debug.types, functions=debug.functions.count,
            variables=debug.variables.count, modules=debug.modules, renamed=debug.renamed, image_bytes=total,
            missing_bytes=total - stored, left_out=self._left_out)

    def _write_image(self, file: ElfFile, sink: Sink, placed: list[Placed]) -> Iterator[int]:
        """Copy the image; yield how many bytes were copied each time."""
        for part, place in zip(self._image.parts, placed, strict=True):
            for offset, data in contents(self._prog, part):
                file.write(sink, place, data, offset)
                yield len(data)

    def _build_id_note(self) -> bytes:
        """Return a note with the build-id where the kernel's own notes are not there to tell it, else nothing."""
        build_id = bytes.fromhex(self._info.build_id)
        notes = next((part for part in self._image.parts if part.kind == Kind.NOTE), None)
        if not build_id or (notes and build_id in whole(self._prog, notes).tobytes()):
            return b""
        return pack_notes([Note("GNU", _NT_GNU_BUILD_ID, build_id)])[0]


def _placed(part: Part) -> Placed:
    return Placed(part.name, part.kind, part.flags, part.address, part.size, physical=part.physical,
                  alignment=4 if part.kind == Kind.NOTE else 16)


def _exported(btf: Btf) -> set[str]:
    """Return the per-CPU variables that are global: BTF says a variable's linkage behind its record."""
    words = btf.type_section.cast("I")
    linkage = {name: words[btf.index.records[type_id - btf.first_id] + _VAR_LINKAGE]
               for name, type_id in btf.index.percpu.items()}
    return {name for name, kind in linkage.items() if kind == _VAR_GLOBAL}
