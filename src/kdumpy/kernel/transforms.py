"""The crypto layer's transforms: ciphers and hashes that were given a key, whoever uses them.

The kernel has no list of them, but each points to its algorithm, and of these there is a list. So memory is
scanned for such pointers. Source: include/linux/crypto.h, struct crypto_tfm: `__crt_alg`, then the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import drgn
from drgn.helpers.linux.list import list_for_each_entry

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump
from kdumpy.kernel.erasure import Erasure, Reach

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 2048
"""Pages looked at at a time."""
_MOST_ALGORITHMS = 1 << 16
_LARGEST_CONTEXT = 1 << 20
"""Bytes; the largest context of an algorithm is some 10 KiB."""
_KNOWN_FLAGS = 0x000fffff
"""CRYPTO_TFM_REQ_MASK and NEED_KEY; include/linux/crypto.h."""
_MOST_NODES = 1024


class Algorithm(NamedTuple):
    """A struct crypto_alg."""

    address: int
    name: str
    context: int
    """Bytes of a transform's context, alignment included."""


def find(reach: Reach) -> Iterator[Erasure]:
    """Yield the contexts of all transforms."""
    erasure = Erasure("crypto_tfm.__crt_ctx", "contexts of crypto transforms")
    try:
        _scan(reach, erasure, algorithms(reach.prog))
    except READ_ERRORS as error:
        erasure.not_judged = str(error) or type(error).__name__
        erasure.count = erasure.size = 0
        erasure.extents.clear()
    yield erasure


def algorithms(prog: drgn.Program) -> list[Algorithm]:
    """Return the algorithms that are registered."""
    head = drgn.Object(prog, "struct list_head", address=prog.symbol("crypto_alg_list").address)
    found: list[Algorithm] = []
    for algorithm in list_for_each_entry("struct crypto_alg", head.address_of_(), "cra_list"):
        if len(found) >= _MOST_ALGORITHMS:
            raise ValueError("the list of algorithms has no end")
        # crypto_tfm_ctx_alignment() is what kmalloc gives, 8; a larger mask is added to the context's size.
        size = algorithm.cra_ctxsize.value_() + (algorithm.cra_alignmask.value_() & ~7)
        name = algorithm.cra_driver_name.string_().decode("utf-8", "replace")
        found.append(Algorithm(algorithm.value_(), name, min(size, _LARGEST_CONTEXT)))
    return found


def _scan(reach: Reach, erasure: Erasure, known: list[Algorithm]) -> None:
    import numpy as np
    if not known:
        raise NotInDump("the crypto layer has no algorithms")
    made = reach.prog.type("struct crypto_tfm")
    to_algorithm, to_context = drgn.offsetof(made, "__crt_alg"), drgn.offsetof(made, "__crt_ctx")
    addresses = np.array(sorted(one.address for one in known), np.uint64)
    sizes = {one.address: one.context for one in known}
    own = {(reach.memory.translate(one.address)) >> 12 for one in known}
    dump = reach.kernel.dump
    for run in dump.present():
        for start in range(run.start, run.stop, _BATCH):
            batch = range(start, min(start + _BATCH, run.stop))
            for place, algorithm in _pointers(_words(reach, batch), addresses):
                physical = start * dump.page_size + place * 8
                size = sizes[algorithm]
                if size and not (physical >> 12 in own and _in_an_algorithm(reach, known, physical)) \
                        and _is_transform(reach, made, physical - to_algorithm):
                    erasure.extents.append((physical - to_algorithm + to_context, size))
                    erasure.count += 1
                    erasure.size += size


def _words(reach: Reach, batch: range) -> NDArray[np.uint64]:
    """Return the memory of some pages as words; a page that cannot be read is zero."""
    import numpy as np
    dump = reach.kernel.dump
    try:
        return dump.read_pages(batch).reshape(-1).view(np.uint64)
    except KdumpyError:
        pages = np.zeros((len(batch), dump.page_size), np.uint8)
        for row, pfn in enumerate(batch):
            try:
                pages[row] = dump.read_pages([pfn])[0]
            except KdumpyError:
                continue
        return pages.reshape(-1).view(np.uint64)


def _pointers(words: NDArray[np.uint64], addresses: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Return (index, value) of the words that are one of some rising addresses."""
    import numpy as np
    # Few words are near any of them: ask that first. Instances lie on the heap, algorithms beside code and data.
    heap = addresses < np.uint64(0xffffffff80000000)
    found = []
    for group in (addresses[heap], addresses[~heap]):
        if len(group):
            near = np.flatnonzero((words >= group[0]) & (words <= group[-1]))
            values = words[near]
            places = np.minimum(np.searchsorted(group, values), len(group) - 1)
            hits = group[places] == values
            found += list(zip(near[hits].tolist(), values[hits].tolist(), strict=True))
    return found


def _in_an_algorithm(reach: Reach, known: list[Algorithm], physical: int) -> bool:
    """Whether a place lies in a struct crypto_alg: its list's links are pointers to algorithms too."""
    size = drgn.sizeof(reach.prog.type("struct crypto_alg"))
    return any(0 <= physical - reach.memory.translate(one.address) < size for one in known)


def _is_transform(reach: Reach, made: drgn.Type, physical: int) -> bool:
    """Whether what lies at a physical address has the looks of a struct crypto_tfm."""
    try:
        raw = reach.kernel.dump.read_physical(physical, drgn.offsetof(made, "__crt_ctx"))
    except KdumpyError:
        return False

    def value(member: str, size: int) -> int:
        at = drgn.offsetof(made, member)
        return int.from_bytes(raw[at:at + size], "little")

    if value("crt_flags", 4) & ~_KNOWN_FLAGS:
        return False
    if made.has_member("node") and _MOST_NODES <= value("node", 4) < 0xffffffff:
        return False
    leave = value("exit", 8)
    text = reach.kernel.debuginfo.text
    return leave == 0 or (text is not None and leave in text)
