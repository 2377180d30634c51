"""Which functions of modules take a kind of memory, by their code: for a leak whose taker is not asking for more now.

Who takes memory in a timer or a tasklet, or without waiting, is not found among those that ask when nothing is left.
The code of the modules that do not belong to the kernel still shows which functions take objects of this cache, pages,
per-CPU memory, files, packets or threads.

Sources: mm/slab_common.c (kmalloc_caches), include/linux/slab.h, mm/page_alloc.c, mm/percpu.c, net/core/skbuff.c.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from itertools import islice
from typing import NamedTuple

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.following import Function
from kdumpy.diagnosis.crashed.origin import origin_of
from kdumpy.diagnosis.crashed.values import Constant
from kdumpy.diagnosis.crashed.waysout import WaysOut
from kdumpy.kernel.values import Frame

_OF_CACHE = frozenset({"kmem_cache_alloc", "kmem_cache_alloc_trace", "kmem_cache_alloc_node", "kmem_cache_alloc_lru",
                       "kmem_cache_alloc_node_trace", "kmalloc_trace", "kmalloc_node_trace", "__kmalloc_cache",
                       "__kmalloc_cache_node", "kmem_cache_alloc_bulk"})
"""The cache is their first argument. 6.10 adds `_noprof` to the names."""
_OF_SIZE = frozenset({"__kmalloc", "__kmalloc_node", "__kmalloc_track_caller", "__kmalloc_node_track_caller",
                      "kmalloc_large", "__kmalloc_large"})
"""The size in bytes is their first argument."""
_COPIES = frozenset({"kmemdup", "kstrdup", "kstrndup", "kasprintf", "kvasprintf", "kmemdup_nul", "memdup_user",
                     "memdup_user_nul", "strndup_user", "kvmalloc_node", "__kvmalloc_node", "krealloc"})
"""They take of kmalloc()'s caches what length they are told."""
_TAKERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("skbuff_", "skb"), ("__alloc_skb", "__netdev_alloc_skb", "netdev_alloc_skb", "__napi_alloc_skb", "napi_alloc_skb",
                          "build_skb", "skb_clone", "skb_copy", "pskb_copy", "__pskb_copy", "alloc_skb_with_frags")),
    (("filp",), ("filp_open", "file_open_root", "dentry_open", "anon_inode_getf", "alloc_file", "shmem_kernel_file",
                 "shmem_file_setup", "fget")),
    (("dentry", "inode_cache", "proc_inode", "shmem_inode", "ext4_inode", "sock_inode"),
     ("filp_open", "kern_path", "vfs_path_lookup", "lookup_one", "d_alloc", "new_inode", "iget", "igrab", "dget",
      "simple_", "proc_create", "debugfs_create", "sock_create", "anon_inode_getf", "shmem_")),
    (("task_struct", "kernel stacks", "thread_stack", "signal_cache", "sighand"), ("kthread_create_on", "kthread_run")),
    (("cred_jar",), ("prepare_creds", "prepare_kernel_cred", "kthread_create_on")),
    (("bio-", "bio_"), ("bio_alloc", "bio_kmalloc")),
    (("per-cpu",), ("__alloc_percpu", "pcpu_alloc", "__percpu_counter_init", "percpu_ref_init", "alloc_workqueue",
                    "init_srcu_struct", "__percpu_init_rwsem")),
    (("other",), ("__alloc_pages", "alloc_pages", "__get_free_pages", "get_zeroed_page", "__folio_alloc", "folio_alloc",
                  "dma_alloc_", "page_frag_alloc", "__page_frag", "alloc_page", "get_free_pages")),
    (("vmalloc",), ("vmalloc", "vzalloc", "__vmalloc", "kvmalloc", "vmap", "module_alloc")),
)
"""Beginnings of a cache's name, or a use of memory, and of the kernel's functions that take of it."""
_KMALLOC = re.compile(r"^(?:kmalloc|dma-kmalloc)-(?:rnd-\d+-|cg-|rcl-)?(\d+)(k|M)?$")
LARGE_KMALLOCS = "large kmallocs"
"""The use of memory that kmalloc() takes of the page allocator, and counts as slabs: more than two pages at a time."""
_LARGE = (2 * 4096, 1 << 31)
"""Bytes: KMALLOC_MAX_CACHE_SIZE, with pages of x86-64; KMALLOC_MAX_SIZE is less than the other."""
_MOST_MODULES = 32
_MOST_CACHES = 4096
_MOST_TASKS = 8192
_MANY_THREADS = 500
"""As many kernel threads that run one function of a module are no usual number."""


class Threads(NamedTuple):
    """Kernel threads of one function."""

    number: int
    function: Frame
    makers: tuple[Frame, ...]
    """The functions that make such threads."""


def takers_of(crash: Crash, what: str) -> list[Frame]:
    """Return the functions of modules that do not belong to the kernel which take a kind of memory.

    Args:
        crash: the crash.
        what: the name of a slab cache, or a use of memory as the account names it.
    """
    if crash.kernel is None or crash.waits is None or crash.machine != "x86_64":
        return []
    found: list[Frame] = []
    with contextlib.suppress(*READ_ERRORS):
        ways, cache = crash.waits.holders.ways_out, _cache(crash, what)
        for module in _foreign(crash):
            for function, call, name in ways.calls(module):
                if _takes(name, what) or _takes_of(ways, module, (function, call), name, what, cache):
                    frame = Frame(function.begin, function.symbol, None, module)
                    found += [frame] if frame not in found else []
    return found


def is_known(cache: str) -> bool:
    """Tell whether the kernel's own functions that take objects of a cache are known, as of packets and of files."""
    return any(cache.startswith(kinds) for kinds, _ in _TAKERS)


def leaked_threads(crash: Crash) -> Threads | None:
    """Return the kernel threads of one function of a module, where there are more than is usual."""
    if crash.kernel is None or crash.waits is None:
        return None
    counted: Counter[Frame] = Counter()
    for task in islice(crash.kernel.tasks(), _MOST_TASKS):
        origin = origin_of(crash.kernel, task) if task.kernel_thread else None
        if origin is not None and origin.module:
            counted[origin] += 1
    if not counted or counted.most_common(1)[0][1] < _MANY_THREADS:
        return None
    origin, count = counted.most_common(1)[0]
    makers: list[Frame] = []
    ways = crash.waits.holders.ways_out
    if origin.module and crash.machine == "x86_64":
        for function, call, name in ways.calls(origin.module):
            if name.startswith("kthread_create_on") and Constant(origin.pc) == ways.argument(function, call):
                makers.append(Frame(function.begin, function.symbol, None, origin.module))
    return Threads(count, origin, tuple(makers))


def _foreign(crash: Crash) -> list[str]:
    return [name for name in crash.modules if crash.is_foreign(name)][:_MOST_MODULES]


def _cache(crash: Crash, name: str) -> int:
    """Return the address of the slab cache of a name; 0 where there is none."""
    from drgn.helpers.linux.slab import for_each_slab_cache

    assert crash.kernel is not None
    caches = islice(for_each_slab_cache(crash.kernel.prog), _MOST_CACHES)
    return next((int(cache.value_()) for cache in caches if cache.name.string_() == name.encode()), 0)


def _takes(name: str, what: str) -> bool:
    return any(what.startswith(kinds) and name.startswith(takers) for kinds, takers in _TAKERS)


def _takes_of(ways: WaysOut, module: str, place: tuple[Function, int], name: str, what: str, cache: int) -> bool:
    """Tell whether a call takes objects of a cache."""
    plain = name.removesuffix("_noprof")
    limits = _limits(what)
    if plain in _OF_CACHE and cache:
        return cache in ways.passed(module, *place)
    if plain in _OF_SIZE and limits:
        value = ways.argument(*place)
        return isinstance(value, Constant) and limits[0] < value.number <= limits[1]
    return plain in _COPIES and limits is not None


def _limits(what: str) -> tuple[int, int] | None:
    """Return the sizes that come from one of kmalloc()'s caches: more than the first, up to the second; in bytes."""
    if what == LARGE_KMALLOCS:
        return _LARGE
    match = _KMALLOC.match(what)
    if match is None:
        return None
    size = int(match[1]) * {"k": 1024, "M": 1 << 20}.get(match[2] or "", 1)
    below = {96: 64, 128: 96, 192: 128, 256: 192}.get(size, size // 2)
    return below, size

