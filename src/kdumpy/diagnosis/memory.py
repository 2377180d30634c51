"""What an address is: nothing, a poison, text, a user's, a symbol's, an object's."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import drgn

from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from kdumpy.kernel import Kernel

NULL_PAGE = 0x1000
LOWEST_USER = 0x10000
"""vm.mmap_min_addr: below it no process can have memory, so a small address is NULL and an offset."""
USER_END = 1 << 47
KERNEL_BEGIN = 0xFFFF800000000000
"""x86-64 with four levels of page tables; with five, 0xff00000000000000."""
_KERNEL_BEGIN_OF_FIVE = 0xFF00000000000000
_USER_END_OF_FIVE = 1 << 56
_UPPER = 0xFFFF000000000000
MOST_ERRNO = 4095
_FAR_FIELD = 0x1000
_LARGEST_INDEXED = 0x1000
"""Bytes of the largest thing of which there is an array, as far as an index is concerned."""
_OBJECT = re.compile(r"^(free )?slab object: (.+?)(\+0x[0-9a-f]+)?$")
"""What drgn's identify_address() calls an object: `slab object: kmalloc-64+0x8`."""
_MARKS = ("__start_", "__stop_")


class Meaning(StrEnum):
    """What kind of address it is."""

    NULL = "null"
    SMALL = "small"
    ERROR = "error"
    FREED = "freed"
    LIST_POISON = "list poison"
    UNINITIALISED = "uninitialised"
    TEXT = "text"
    USER = "user"
    NON_CANONICAL = "non-canonical"
    STRAY = "stray"
    KERNEL = "kernel"


def is_kernels(word: int) -> bool:
    """Tell whether a word can be an address of the kernel's, on any architecture."""
    return word >> 56 == 0xFF


class Meant(NamedTuple):
    """An address, explained."""

    meaning: Meaning
    words: str


# Source: include/linux/poison.h. Poison bytes fill whole words; a member's offset is added to them.
_POISON_BYTES = {
    0x6B: (Meaning.FREED, "the kernel fills freed objects with 0x6b (POISON_FREE)"),
    0x5A: (Meaning.UNINITIALISED, "the kernel fills new objects with 0x5a (POISON_INUSE): it was never set"),
    0xAA: (Meaning.FREED, "the kernel fills freed pages with 0xaa (PAGE_POISON)"),
}
_POISON_ENDS = (0xA5, 0x6B)
"""The last byte of a freed object (POISON_END), and what is before it: of a pointer that is its last member."""
_WATCHED = {
    0xBB: "the kernel fills the red zone beside a free object with 0xbb (SLUB_RED_INACTIVE)",
    0xCC: "the kernel fills the red zone beside an object with 0xcc (SLUB_RED_ACTIVE)",
}
_LIST_POISON = 0xDEAD000000000000
"""POISON_POINTER_DELTA (CONFIG_ILLEGAL_POINTER_VALUE on x86-64 and arm64)."""
_LIST_WORDS = {0x100: "LIST_POISON1, the `next` of an entry that was taken off its list",
               0x122: "LIST_POISON2, the `prev` of an entry that was taken off its list",
               0x300: "TIMER_ENTRY_STATIC, of a timer that was never armed"}


def meaning(address: int, levels: int | None = None) -> Meant:
    """Explain an address by its value alone.

    Args:
        address: the address.
        levels: of page tables, 4 or 5, where the kernel is x86-64 and says so (`page_levels`); which addresses are
            canonical depends on that.
    """
    if address < NULL_PAGE:
        words = "NULL" if address == 0 else f"{address:#x}, that is NULL and an offset"
        return Meant(Meaning.NULL, words)
    if address < LOWEST_USER:
        return Meant(Meaning.SMALL, f"{address:#x}: a small number (or NULL and a large offset), not an address")
    if (1 << 64) - address <= MOST_ERRNO:
        return Meant(Meaning.ERROR, _errno((1 << 64) - address))
    for byte, (kind, words) in _POISON_BYTES.items():
        upper = int.from_bytes(bytes([byte]) * 4, "little")
        # With a member's offset, or an index, added or taken off; and 32 bits of it, as a handle or a length.
        if address >> 32 == upper or abs(address - (upper << 32 | upper)) < _FAR_FIELD \
                or 0 <= address - upper < _FAR_FIELD:
            return Meant(kind, f"{address:#x}: {words}")
    ended = int.from_bytes([*_POISON_ENDS[1:] * 7, _POISON_ENDS[0]], "little")
    if abs(address - ended) < _FAR_FIELD:
        return Meant(Meaning.FREED, f"{address:#x}: {_POISON_BYTES[_POISON_ENDS[1]][1]}, and their last byte with 0xa5 "
                                    "(POISON_END)")
    for byte, words in _WATCHED.items():
        if abs(address - int.from_bytes(bytes([byte]) * 8, "little")) < _FAR_FIELD:
            return Meant(Meaning.NON_CANONICAL,
                         f"{address:#x}: {words}: it was read beyond the object's end, or before its begin")
    if 0 <= address - _LIST_POISON < _FAR_FIELD:
        offset = address - _LIST_POISON
        near = min(_LIST_WORDS, key=lambda mark: abs(mark - offset))
        words = _LIST_WORDS[near] if abs(near - offset) <= 0x20 else "a poison of dead pointers"
        return Meant(Meaning.LIST_POISON, f"{address:#x}: {words}")
    if address < USER_END:
        return Meant(Meaning.USER, f"{address:#x}: an address of a process, which the kernel must not use directly")
    raw = address.to_bytes(8, "little")
    if sum(32 <= byte < 127 for byte in raw) >= 7 and address >> 56 < 0x80:
        text = raw.decode("ascii", "replace").replace("�", "?")
        return Meant(Meaning.TEXT, f"{address:#x}: it is text, {text!r}; something wrote a string over the pointer")
    if levels == 5 and address < _USER_END_OF_FIVE:
        return Meant(Meaning.STRAY, f"{address:#x}: no address of the kernel's; with five levels of page tables it "
                                    "would be one of a process, higher than any uses")
    told = "with four levels of page tables" if levels == 4 else "with five levels of page tables" if levels else ""
    if address < _KERNEL_BEGIN_OF_FIVE:
        return Meant(Meaning.NON_CANONICAL, f"{address:#x}: no address at all (not canonical{told and ', '}{told})")
    if levels == 4 and address < KERNEL_BEGIN:
        return Meant(Meaning.NON_CANONICAL,
                     f"{address:#x}: no address (not canonical, {told}); with its upper bits set it is one of the "
                     f"kernel's, {address | _UPPER:#x}: something has changed them")
    return Meant(Meaning.KERNEL, f"{address:#x}")


def index_meaning(value: int) -> Meant | None:
    """Explain a number that was added to a pointer, an index times the size of what is indexed; None for a usual one.

    An index of 32 bits that was read out of a freed object is its poison four times.
    """
    for byte, (kind, words) in _POISON_BYTES.items():
        repeated = int.from_bytes(bytes([byte]) * 4, "little")
        times, rest = divmod(value, repeated)
        if not rest and 0 < times <= _LARGEST_INDEXED:
            return Meant(kind, f"{value:#x}: an index of {repeated:#x}, times {times}; {words}")
    return None


def page_levels(kernel: Kernel) -> int | None:
    """Return the levels of page tables of a kernel of x86-64, 4 or 5; None for another one, and where it is not said.

    Source: arch/x86/kernel/machine_kexec_64.c, arch_crash_save_vmcoreinfo().
    """
    if kernel.system.machine not in (None, "x86_64"):
        return None
    try:
        return 5 if kernel.dump.vmcoreinfo.number("pgtable_l5_enabled") else 4
    except KdumpyError:
        return None


def _errno(number: int) -> str:
    import errno
    import os

    name = errno.errorcode.get(number, str(number))
    return f"-{name} ({os.strerror(number)}): an error code that was used as a pointer"


def describe(prog: drgn.Program, address: int) -> str:
    """Name what lies at an address of the kernel: `flaky+0x80`, `kmalloc-64 object+0x8`; empty if unknown."""
    symbol = symbol_at(prog, address)
    if symbol:
        return symbol
    try:
        from drgn.helpers.common.memory import identify_address

        found = (identify_address(prog, address) or "").removeprefix("symbol: ")
        return _OBJECT.sub(lambda match: f"{match[1] or ''}{match[2]} object{match[3] or ''}", found)
    except Exception:                   # drgn's helpers walk kernel structures that a crash may have broken
        return ""


def symbol_at(prog: drgn.Program, address: int) -> str:
    """Return `symbol+offset` of a kernel's or a module's symbol; empty where there is none.

    The linker's marks of where a section begins and ends lie on variables, and are passed over.
    """
    found = prog.symbols(address)
    if not found:
        return ""
    symbol = min(found, key=lambda item: (item.name.startswith(_MARKS), item.kind == drgn.SymbolKind.UNKNOWN,
                                          address - item.address))
    offset = address - symbol.address
    return f"{symbol.name}+{offset:#x}" if offset else symbol.name
