"""What is to be erased, as physical memory: the values that the finders of secrets give."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import drgn
from drgn.helpers.linux.mm import follow_phys

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError, NotInDump
from kdumpy.kernel.kernel import Kernel

LARGEST = 1 << 30
"""Bytes; one secret that claims to be larger is not believed."""


@dataclass
class Erasure:
    """One kind of secret: what was found of it and where, or why it could not be judged."""

    name: str
    """As eraseinfo names it: `user_key_payload.data`, `mm_struct.environment`."""
    what: str
    """In words, in the plural."""
    count: int = 0
    """How many were found."""
    size: int = 0
    """Bytes of them all."""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """(physical address, bytes)."""
    unread: int = 0
    """Secrets, or lists of them, that cannot be reached: a page on the way to them is not in the dump."""
    why_unread: str = ""
    """Why, of the first of these."""
    not_judged: str = ""
    """Why nothing can be said at all; then `count` is 0 and means nothing."""

    def failed(self, why: object) -> None:
        """Count one that could not be reached."""
        self.unread += 1
        self.why_unread = self.why_unread or str(why)

    @property
    def eraseinfo(self) -> str:
        """The line for the header, as makedumpfile writes it; empty where nothing was erased."""
        return f"erase {self.name} size {self.size}\n" if self.size else ""

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values, without the places."""
        return {"name": self.name, "what": self.what, "count": self.count, "bytes": self.size,
                "unread": self.unread, "why_unread": self.why_unread or None, "not_judged": self.not_judged or None}


class Reach:
    """From virtual addresses to physical memory."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.prog = kernel.prog

    @cached_property
    def memory(self) -> KernelMemory:
        """The kernel's address space."""
        return KernelMemory(self.kernel.dump)

    def add(self, erasure: Erasure, address: int, size: int) -> None:
        """Add a secret at a kernel virtual address; one that cannot be reached is counted."""
        if not 0 < size <= LARGEST:
            if size:
                erasure.failed(f"{address:#x}: {size} bytes are not believed")
            return
        try:
            places = [(self.memory.translate(start), length) for start, length in self._pieces(address, size)]
        except KdumpyError as error:
            erasure.failed(error)
            return
        erasure.extents += places
        erasure.count += 1
        erasure.size += size

    def add_user(self, erasure: Erasure, mm: drgn.Object, address: int, size: int) -> int:
        """Add a piece of a process's memory; return the bytes of it that are in memory (the rest is swapped out)."""
        if not 0 < size <= LARGEST:
            return 0
        found = 0
        for start, length in self._pieces(address, size):
            try:
                erasure.extents.append((int(follow_phys(mm, start).value_()), length))
                found += length
            except drgn.FaultError:
                continue    # never touched, or swapped out: then its text is not in memory
            except READ_ERRORS as error:
                erasure.failed(error)
        erasure.size += found
        return found

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """Cut [address, address + size) at the pages' borders."""
        page = self.memory.page_size
        edges = [address, *range(address // page * page + page, address + size, page), address + size]
        return [(start, stop - start) for start, stop in pairwise(edges)]

    def has_module(self, name: str) -> bool:
        """Whether a module is loaded; `-` and `_` are the same.

        Raises:
            NotInDump: the list of modules cannot be read, so its absence there would mean nothing.
        """
        modules = self.kernel.modules
        for problem in ("modules", "modules not read"):
            if problem in self.kernel.problems:
                raise NotInDump("which modules are loaded cannot be told", why=self.kernel.problems[problem])
        return any(module.name.replace("-", "_") == name for module in modules)
