"""The slab allocator (SLUB), all slabs at a time: which belong to which cache, which objects are free, what is corrupt.

The slabs are found by their struct pages, and not by the allocator's lists: full slabs stand in no list, and a list
may be the thing that is broken. Source: mm/slub.c, mm/slab.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import drgn
import numpy as np
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import for_each_slab_cache
from numpy.typing import NDArray

from kdumpy.crash.memory.arrays import Arrays
from kdumpy.crash.memory.bits import bit_place, has_bits
from kdumpy.crash.memory.pages import PageArray, Stretch, StructPages
from kdumpy.crash.memory.slabvalues import Cache, CpuSlab, Heads, Objects
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump

_MOST_OBJECTS = 32767
"""struct slab's `objects` has 15 bits."""
_BATCH_BYTES = 8 << 20
_PAGE_TYPE_SLAB = 0xf5
"""PGTY_slab, where VMCOREINFO does not tell. Source: include/linux/page-flags.h, enum pagetype (6.12)."""
_MOST_CACHES = 100_000

Share = Callable[[Sequence[Any], Callable[[Any], Iterator[Any]]], Iterator[Any]]
"""Shares work out among processes: what there is to do, and what does one piece of it."""


class Slabs:
    """Reads the allocator of one dump.

    Raises:
        NotInDump: it is not SLUB, or its types are not known.
    """

    def __init__(self, prog: drgn.Program, arrays: Arrays, share: Share) -> None:
        """`share`: shares work out among processes; see `Session.share`."""
        self.prog = prog
        self.arrays = arrays
        self._share = share
        self.pages = StructPages(prog, arrays)
        self.unread = Unread("slab caches")
        """Caches that are not in `caches`, once those are read."""
        try:
            self.type = prog.type("struct slab")        # "mm: Split slab into its own type" (d122019bf061, 5.17)
        except LookupError:
            self.type = prog.type("struct page")
        cache = prog.type("struct kmem_cache")
        if not cache.has_member("offset") or not cache.has_member("oo"):
            raise NotInDump("the slab allocator is not SLUB", mend="drgn's kmem knows SLAB")

    @cached_property
    def caches(self) -> tuple[Cache, ...]:
        """All caches, newest first; one that cannot be read is left out."""
        found: list[Cache] = []
        shift = self.arrays.page_size
        for cache in self.unread.all(for_each_slab_cache(self.prog)):
            if len(found) >= _MOST_CACHES:
                raise DamagedDump("the list of slab caches has no end", where=f"address {cache.value_():#x}")
            try:
                has = cache.type_.type.has_member
                found.append(Cache(
                    cache.value_(), cache.name.string_().decode("utf-8", "backslashreplace"),
                    cache.object_size.value_(), cache.size.value_(), cache.offset.value_(),
                    cache.random.value_() if has("random") else None,
                    cache.red_left_pad.value_() if has("red_left_pad") else 0,
                    shift << (cache.oo.x.value_() >> 16)))
            except READ_ERRORS as error:
                self.unread.lost(f"{cache.value_():016x}", error)
        return tuple(found)

    def named(self, name: str) -> Cache:
        """Return a cache by name.

        Raises:
            NotInDump: there is none.
        """
        for cache in self.caches:
            if cache.name == name:
                return cache
        raise NotInDump(f"there is no slab cache {name!r}")

    @cached_property
    def _by_address(self) -> dict[int, Cache]:
        return {cache.address: cache for cache in self.caches}

    def holding(self, address: int) -> Cache | None:
        """Return the cache in one of whose slabs an address lies, or None."""
        memory = self.heads.memory
        row = int(np.searchsorted(memory, np.uint64(address), "right")) - 1 if len(memory) else -1
        cache = self._by_address.get(int(self.heads.cache[row])) if row >= 0 else None
        if cache is None or address >= int(memory[row]) + int(self.heads.objects[row]) * cache.size:
            return None
        return cache

    @cached_property
    def heads(self) -> Heads:
        """Every slab, found by its struct page."""
        places = {name: bit_place(self.type, name) for name in ("slab_cache", "freelist", "inuse", "objects", "frozen")
                  if has_bits(self.type, name)}
        mark = self._mark()
        found = list(self._share(list(self.pages.stretches()), lambda stretch: self._heads_of(stretch, places, mark)))
        columns = zip(*(columns for columns, _ in found), strict=True)
        joined = [np.concatenate(column) for column in columns] or [np.zeros(0, np.uint64)] * 8
        slab, memory, cache, freelist, inuse, objects, frozen, pfns = joined
        return Heads(slab, memory, cache, freelist, inuse.astype(np.int64), objects.astype(np.int64),
                     self._nodes(pfns.astype(np.int64)), frozen.astype(np.bool_), sum(lost for _, lost in found))

    def _heads_of(self, stretch: Stretch, places: dict[str, tuple[int, int]], mark: tuple[int, int, int]
                  ) -> Iterator[tuple[tuple[NDArray[np.uint64], ...], int]]:
        """Yield the slabs among some struct pages, a column each of what is told of them, and how many were missing."""
        pages = self.pages.read(stretch)
        mask, value, at = mark
        words = self._word(pages, at)
        rows = np.flatnonzero((words & np.uint32(mask)) == np.uint32(value))
        if not self._typed:     # the flag stands on heads alone; a tail's word of flags is not set
            rows = rows[(self._bits(pages, rows, self._head) & 1) == 0]
        yield (np.uint64(pages.address) + rows.astype(np.uint64) * np.uint64(self.pages.size),
               np.uint64(self.arrays.direct or 0) + (rows + pages.first).astype(np.uint64)
               * np.uint64(self.arrays.page_size),
               *(self._bits(pages, rows, places[name]) if name in places else np.zeros(len(rows), np.uint64)
                 for name in ("slab_cache", "freelist", "inuse", "objects", "frozen")),
               (rows + pages.first).astype(np.uint64)), int(np.count_nonzero(~pages.held))

    def _mark(self) -> tuple[int, int, int]:
        """Return (mask, value, byte offset) of the 32-bit word of a struct page that tells a slab.

        Source: "mm: free up PG_slab" (46df8e73a4a3, 6.10): a page type instead of a flag.
        """
        info = self.arrays.dump.vmcoreinfo
        number = info.number("PAGE_SLAB_MAPCOUNT_VALUE", 0)
        self._typed = bool(number)
        self._head = bit_place(self.pages.type, *[name for name in ("compound_info", "compound_head")
                                                 if has_bits(self.pages.type, name)][:1])
        if number:
            value = number & 0xffffffff
            typed = value >> 24
            # Since "mm: move the page type to the top byte" (4ffca5a96678, 6.12) the other bits are the page's own.
            mask = 0xff000000 if typed == _PAGE_TYPE_SLAB else 0xffffffff
            return mask, value & mask, self.pages.offset("page_type", "_mapcount")
        return 1 << int(self.prog["PG_slab"]), 1 << int(self.prog["PG_slab"]), 0

    def _nodes(self, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the NUMA node that each page belongs to, by the nodes' extents; 0 where none has it."""
        found = np.zeros(len(pfns), np.int64)
        for node in for_each_online_pgdat(self.prog):
            start, length = node.node_start_pfn.value_(), node.node_spanned_pages.value_()
            found[(pfns >= start) & (pfns < start + length)] = node.node_id.value_()
        return found

    def _word(self, pages: PageArray, at: int) -> NDArray[np.uint32]:
        words: NDArray[np.uint32] = self.pages.column(pages, at, 4).astype(np.uint32, copy=False)
        return words

    @staticmethod
    def _bits(pages: PageArray, rows: NDArray[np.int64], place: tuple[int, int]) -> NDArray[np.uint64]:
        """Return a member of some struct pages, a bit field too."""
        start, bits = place
        # The aligned word that holds it.
        word = start // 64 * 8
        values = np.ascontiguousarray(pages.raw[rows, word:word + 8]).view("<u8").reshape(-1)
        mask = (1 << bits) - 1
        found: NDArray[np.uint64] = values >> np.uint64(start % 64) & np.uint64(mask)
        return found

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that are online."""
        from drgn.helpers.linux.nodemask import for_each_online_node

        return tuple(for_each_online_node(self.prog))

    @cached_property
    def _cpus(self) -> tuple[int, ...]:
        return tuple(for_each_possible_cpu(self.prog))

    @cached_property
    def _has_barns(self) -> bool:
        """Whether nodes keep sheaves of free objects (6.18 and later), in their own structure or in the cache's."""
        return bool(self.prog.type("struct kmem_cache_node").has_member("barn")
                    or self.prog.type("struct kmem_cache").has_member("per_node"))

    def per_cpu(self, cache: Cache) -> list[CpuSlab]:
        """Return what each CPU keeps of a cache."""
        value = drgn.Object(self.prog, "struct kmem_cache *", value=cache.address)
        has = value.type_.type.has_member
        found = []
        for cpu in self._cpus:
            if has("cpu_slab"):
                found.append(self._cpu_slab(cache, per_cpu_ptr(value.cpu_slab, cpu), cpu))
            elif has("cpu_sheaves") and value.cpu_sheaves:
                found.append(self._sheaves(per_cpu_ptr(value.cpu_sheaves, cpu), cpu))
            if has("cpu_slab") and has("cpu_sheaves") and value.cpu_sheaves:    # 6.18 has both
                found.append(self._sheaves(per_cpu_ptr(value.cpu_sheaves, cpu), cpu))
        return found

    def _cpu_slab(self, cache: Cache, own: drgn.Object, cpu: int) -> CpuSlab:
        slab, problem = 0, ""
        free: list[int] = []
        partial: list[int] = []
        try:
            kind = own.type_.type
            slab = own.member_("slab" if kind.has_member("slab") else "page").value_()
            pointer = own.freelist.value_()
            if slab:
                problem = self._follow(cache, pointer, free)
            if kind.has_member("partial"):
                following = own.partial.read_()
                while following:
                    if following.value_() in partial or len(partial) >= _MOST_OBJECTS:
                        problem = f"the list of CPU {cpu}'s partial slabs runs in a circle"
                        break
                    partial.append(following.value_())
                    following = following.next.read_()
        except READ_ERRORS as error:
            problem = str(error).splitlines()[0]
        return CpuSlab(cpu, own.value_(), slab, tuple(free), tuple(partial), problem)

    def _sheaves(self, own: drgn.Object, cpu: int) -> CpuSlab:
        """Source: mm/slub.c, struct slub_percpu_sheaves (2d517aa09bbc, 6.18)."""
        free: list[int] = []
        problem = ""
        try:
            for sheaf in (own.main.read_(), own.spare.read_()):
                if sheaf:
                    size = sheaf.size.value_()
                    if size > _MOST_OBJECTS:
                        raise DamagedDump(f"a sheaf of {size} objects is not believed",
                                          where=f"address {sheaf.value_():#x}")
                    free += [entry.value_() for entry in sheaf.objects[:size]]
        except READ_ERRORS as error:
            problem = str(error).splitlines()[0]
        return CpuSlab(cpu, own.value_(), 0, tuple(free), (), problem)

    def in_barns(self, cache: Cache) -> list[int]:
        """Return the free objects in the full sheaves of the nodes (6.18 and later).

        Raises:
            READ_ERRORS: they cannot be read.
        """
        from drgn.helpers.linux.list import list_for_each_entry
        from drgn.helpers.linux.nodemask import nr_node_ids

        if not self._has_barns:
            return []
        value = drgn.Object(self.prog, "struct kmem_cache *", value=cache.address)
        found: list[int] = []
        kind = value.type_.type
        entries = value.per_node if kind.has_member("per_node") else value.node
        for number in range(int(nr_node_ids(self.prog))):
            entry = entries[number]
            holder = entry if kind.has_member("per_node") else entry[0] if entry else None
            try:
                barn = holder.barn.read_() if holder is not None else None
            except AttributeError:
                return found
            if not barn:
                continue
            for sheaf in list_for_each_entry("struct slab_sheaf", barn.sheaves_full.address_of_(), "barn_list"):
                size = sheaf.size.value_()
                if size > _MOST_OBJECTS or len(found) > 1 << 24:
                    raise DamagedDump("a sheaf is not believed", where=f"address {sheaf.value_():#x}")
                found += [item.value_() for item in sheaf.objects[:size]]
        return found

    def _follow(self, cache: Cache, pointer: int, free: list[int]) -> str:
        """Follow a list of free objects into `free`; return why it ends early, or empty."""
        seen = set[int]()
        base, slab = self._around(cache, pointer)
        while pointer:
            if pointer in seen:
                return f"the list of free objects runs in a circle at {pointer:016x}"
            if len(seen) >= _MOST_OBJECTS:
                return "the list of free objects has no end"
            seen.add(pointer)
            free.append(pointer)
            at = pointer + cache.offset
            if 0 <= at - base <= len(slab) - 8:
                stored = int.from_bytes(slab[at - base:at - base + 8], "little")
            else:
                try:
                    stored = int(self.prog.read_u64(at))
                except drgn.FaultError:
                    free.pop()
                    return f"the list of free objects leads to {pointer:016x}, where no memory is"
            pointer = stored if cache.random is None else \
                stored ^ cache.random ^ int.from_bytes(at.to_bytes(8, "little"), "big")
        return ""

    def _around(self, cache: Cache, pointer: int) -> tuple[int, bytes]:
        """Return where an object's slab begins, as slabs of its cache do, and what is there; nothing if not all is."""
        base = pointer & -cache.slab_bytes
        if not pointer or not 0 < cache.slab_bytes <= _BATCH_BYTES:
            return 0, b""
        try:
            return base, self.prog.read(base, cache.slab_bytes)
        except drgn.FaultError:
            return 0, b""

    def objects(self, cache: Cache, rows: NDArray[np.int64]) -> Objects:
        """Return which objects of some slabs of a cache are free, and what is wrong with them.

        The whole memory of the slabs is read once, a bounded number at a time, and all lists are followed together.
        """
        heads = self.heads
        most = int(heads.objects[rows].max()) if len(rows) else 0
        found = Objects(np.zeros((len(rows), most), np.bool_))
        if not most:
            return found
        span = most * cache.size + cache.red_left_pad
        if not 0 < cache.size <= 1 << 22 or cache.offset + 8 > cache.size or span > 1 << 24:
            found.problems.append(f"{cache.name}: objects of {cache.size} bytes, {most} in a slab, are not believed")
            return found
        # A slab without a list of free objects is full, as most are: there is nothing in it to be read.
        listed = np.flatnonzero(heads.freelist[rows] != 0)
        per_batch = max(_BATCH_BYTES // span, 1)
        for low in range(0, len(listed), per_batch):
            some = listed[low:low + per_batch]
            free = np.zeros((len(some), most), np.bool_)
            self._some_objects(cache, rows[some], free, found.problems)
            found.free[some] = free
        unlisted = rows[heads.freelist[rows] == 0]
        for row in unlisted[heads.objects[unlisted] != heads.inuse[unlisted]].tolist():
            found.problems.append(self._named(cache, row, "no objects are free, and it counts "
                                              f"{int(heads.objects[row] - heads.inuse[row])}"))
        return found

    def _some_objects(self, cache: Cache, rows: NDArray[np.int64], free: NDArray[np.bool_],
                      problems: list[str]) -> None:
        heads, most = self.heads, free.shape[1]
        first = heads.memory[rows] + np.uint64(cache.red_left_pad)
        # The address of every object's pointer to the next, and what stands there.
        at = first[:, None] + (np.arange(most, dtype=np.uint64) * np.uint64(cache.size) + np.uint64(cache.offset))
        counted = np.arange(most) < heads.objects[rows][:, None]
        words, held = self.arrays.words(np.where(counted, at, first[:, None]).reshape(-1))
        stored, held = words.reshape(at.shape), held.reshape(at.shape)
        if cache.random is not None:
            stored = stored ^ np.uint64(cache.random) ^ at.byteswap()
        index, legal = self._indices(cache, stored, first, heads.objects[rows])
        legal &= held
        start, fine = self._indices(cache, heads.freelist[rows][:, None], first, heads.objects[rows])
        current, lines = start[:, 0], np.arange(len(rows))
        for row in np.flatnonzero(~fine[:, 0]).tolist():
            problems.append(self._named(cache, rows[row], "its list of free objects begins at "
                                        f"{int(heads.freelist[rows[row]]):016x}, which is none of its objects"))
        active = fine[:, 0] & (current >= 0)
        for _ in range(most + 1):
            live = lines[active]
            if not len(live):
                break
            here = current[live]
            again = free[live, here]
            for row, place in zip(live[again].tolist(), here[again].tolist(), strict=True):
                problems.append(self._named(cache, rows[row], "its list of free objects runs in a circle at "
                                            f"{int(first[row]) + place * cache.size:016x}"))
            free[live, here] = True
            bad = ~again & ~legal[live, here]
            for row, place in zip(live[bad].tolist(), here[bad].tolist(), strict=True):
                what = f"leads to {int(stored[row, place]):016x}, which is none of its objects" \
                    if held[row, place] else "goes through a page that is not in the dump"
                problems.append(self._named(cache, rows[row], "the list of free objects "
                                            f"{what} (from {int(first[row]) + place * cache.size:016x})"))
            following = index[live, here]
            current[live] = following
            active[live] = ~again & ~bad & (following >= 0)
        expected = heads.objects[rows] - heads.inuse[rows]
        for row in np.flatnonzero((free.sum(axis=1) != expected) & fine[:, 0]).tolist():
            if not any(f"{int(heads.slab[rows[row]]):016x}" in problem for problem in problems[-64:]):
                problems.append(self._named(cache, rows[row], f"{int(free[row].sum())} objects are free, and it counts "
                                            f"{int(expected[row])}"))

    @staticmethod
    def _indices(cache: Cache, pointers: NDArray[np.uint64], first: NDArray[np.uint64], objects: NDArray[np.int64]
                 ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the object that each pointer leads to, -1 for NULL, and whether it is one at all."""
        distance = pointers - first[:, None]        # wraps for what lies below
        index = (distance // np.uint64(cache.size)).astype(np.int64)
        null = pointers == 0
        legal = null | ((distance % np.uint64(cache.size) == 0) & (distance < (objects * cache.size)
                                                                  .astype(np.uint64)[:, None]))
        return np.where(null | ~legal, -1, index), legal

    def _named(self, cache: Cache, row: int, text: str) -> str:
        return f"{cache.name}: slab {int(self.heads.slab[row]):016x}: {text}"
