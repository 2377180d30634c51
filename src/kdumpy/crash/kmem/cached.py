"""`kmem -c`, `-C`: the page cache, by file, counted from the struct pages and held against the kernel's own count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
import numpy as np
from drgn.helpers.linux.fs import inode_path
from drgn.helpers.linux.vmstat import global_node_page_state

from kdumpy.crash.command import Options
from kdumpy.crash.memory.pages import StructPages
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump


@dataclass(frozen=True)
class CachedRow:
    """The pages of one file."""

    mapping: int
    """Address of its address_space."""
    inode: int
    """Address of its inode; 0 for the swap cache."""
    pages: int
    """Found by their struct pages."""
    counted: int | None
    """What the address_space counts; None where it is not in the dump."""
    path: str
    page_addresses: tuple[int, ...]
    """Addresses of the struct pages; empty without -C."""


def rows(session: Session, options: Options) -> Iterator[CachedRow]:
    """Yield the files, those with the most pages first.

    A page of the cache has an address_space, and the lowest bits of `mapping` clear; a compound page counts as its
    parts. Source: include/linux/page-flags.h, PAGE_MAPPING_FLAGS.
    """
    pages = StructPages(session.prog, session.arrays)
    offset, head = pages.offset("mapping"), pages.offset("compound_head", "compound_info")
    mappings: list[int] = []
    addresses: list[int] = []
    counts: list[int] = []
    for found in pages.walk():
        mapping = pages.column(found, offset).astype(np.uint64, copy=False)
        tail = (pages.column(found, head).astype(np.uint64, copy=False) & np.uint64(1)) != 0
        refs = pages.column(found, pages.offset("_refcount", "_count"), 4, signed=True)
        index = np.flatnonzero((mapping >> np.uint64(63) == 1) & ((mapping & np.uint64(7)) == 0) & ~tail
                               & (refs > np.int32(0)))
        mappings += mapping[index].tolist()
        addresses += (np.uint64(found.address) + index.astype(np.uint64) * np.uint64(pages.size)).tolist()
        counts += _orders(session, pages, found.raw, index)
    values = np.array(mappings, np.uint64)
    distinct, which = np.unique(values, return_inverse=True)
    sizes = np.bincount(which, weights=np.array(counts), minlength=len(distinct)).astype(np.int64) \
        if len(distinct) else np.zeros(0, np.int64)
    # Slabs and page tables have other things in this word: an address_space leads back from its inode.
    order = np.argsort(-sizes, kind="stable")
    for number in order.tolist():
        row = _file(session, int(distinct[number]), int(sizes[number]))
        if row is None:
            continue
        if options.cached_pages:
            own = tuple(addresses[place] for place in np.flatnonzero(which == number).tolist())
            row = CachedRow(row.mapping, row.inode, row.pages, row.counted, row.path, own)
        yield row


def _orders(session: Session, pages: StructPages, raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
            index: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[int]:
    """Return how many pages each head stands for."""
    head_bit = np.uint64(1 << int(session.prog["PG_head"]))
    flags = np.ascontiguousarray(raw[index, :8]).view("<u8").reshape(-1)
    sizes = np.ones(len(index), np.int64)
    try:
        offset, bits = session.kernel.dump.vmcoreinfo.offset("page.compound_order"), 0xff
    except READ_ERRORS:
        try:
            offset, bits = session.kernel.dump.vmcoreinfo.offset("folio._flags_1") - pages.size, 0xff
        except READ_ERRORS:
            return sizes.tolist()
    large = np.flatnonzero((flags & head_bit) != 0)
    second = np.minimum(index[large] + 1, len(raw) - 1)
    orders = raw[second, offset] & bits
    sizes[large] = np.where(orders <= 18, np.int64(1) << np.minimum(orders, 18).astype(np.int64), 1)
    return sizes.tolist()


def _file(session: Session, mapping: int, pages: int) -> CachedRow | None:
    """Return whose mapping this is; None where it is none."""
    try:
        space = drgn.Object(session.prog, "struct address_space *", value=mapping)
        inode = space.host.read_()
        if not inode or (inode.i_data.address_of_().value_() != mapping and
                         inode.i_mapping.value_() != mapping):
            return None
        counted = int(space.nrpages.value_())
    except READ_ERRORS:
        return None
    path = ""
    try:
        found = inode_path(inode)
        path = found.decode("utf-8", "backslashreplace") if found else ""
        if not path:
            path = f"({inode.i_sb.s_id.string_().decode('utf-8', 'backslashreplace')})"
    except READ_ERRORS:
        path = "(not in the dump)"
    return CachedRow(mapping, inode.value_(), pages, counted, path, ())


def render(found: Iterable[CachedRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the files out in columns; at the end the sum against the kernel's."""
    total = 0
    for number, row in enumerate(found):
        if not number:
            yield "    MAPPING            INODE           PAGES  NRPAGES  PATH"
        total += row.pages
        yield f"{row.mapping:016x} {row.inode:016x} {row.pages:7} {row.counted:8}  {row.path}"
        yield from (f"  {page:016x}" for page in row.page_addresses)
    if not total:
        raise NotInDump("no page of the page cache was found")
    try:
        counted = int(global_node_page_state(session.prog["NR_FILE_PAGES"]))
        yield f"page cache: {total} pages; NR_FILE_PAGES: {counted} (with the swap cache)"
    except READ_ERRORS:
        yield f"page cache: {total} pages"
