"""Who allocated and freed a slab object, where the kernel was told to remember (slub_debug=U).

Source: mm/slub.c, get_track(), struct track, get_info_end().
"""

from __future__ import annotations

import contextlib

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.facts.reading import Track
from kdumpy.kernel import Kernel

_STORE_USER_OLD = 0x00010000
"""SLAB_STORE_USER, include/linux/slab.h, where it is no enumerator (_SLAB_STORE_USER) yet."""
_MOST_FRAMES = 16
_RATES = (100, 250, 300, 1000)
"""kernel/Kconfig.hz."""
_EVENTS = ("allocated", "freed")
"""enum track_item: TRACK_ALLOC, TRACK_FREE."""


def tracks(kernel: Kernel, cache: drgn.Object, address: int) -> tuple[Track, ...]:
    """Return what the kernel remembers of an object; empty where it does not."""
    try:
        if not remembers(cache):
            return ()
        made = kernel.prog.type("struct track")
        first = address + _info_end(cache)
        found = [_track(kernel, event, drgn.Object(kernel.prog, made, address=first + number * drgn.sizeof(made)))
                 for number, event in enumerate(_EVENTS)]
    except READ_ERRORS:
        return ()
    return tuple(item for item in found if item is not None)


def remembers(cache: drgn.Object) -> bool:
    """Whether the kernel keeps for each object of a cache who allocated it."""
    return bool(int(cache.flags.value_()) & _store_user(cache.prog_))


def allocated_by(cache: drgn.Object, address: int) -> int:
    """Return the return address of who allocated an object; 0 where that was not kept.

    Raises:
        drgn.FaultError: the object is not in the dump.
    """
    made = cache.prog_.type("struct track")
    return int(cache.prog_.read_u64(address + _info_end(cache) + drgn.offsetof(made, "addr")))


def track_address(cache: drgn.Object, address: int) -> int:
    """Return where the allocator keeps who allocated an object."""
    return address + _info_end(cache)


def _store_user(prog: drgn.Program) -> int:
    try:
        return 1 << int(prog.constant("_SLAB_STORE_USER").value_())
    except READ_ERRORS:
        return _STORE_USER_OLD


def _info_end(cache: drgn.Object) -> int:
    """Bytes from the object to its tracks: behind it, and behind the link to the next free one, if that is outside."""
    inuse = int(cache.inuse.value_())
    return inuse + 8 if int(cache.offset.value_()) >= inuse else inuse


def _track(kernel: Kernel, event: str, track: drgn.Object) -> Track | None:
    if not track.addr.value_():
        return None
    trace: tuple[str, ...] = ()
    with contextlib.suppress(*READ_ERRORS):
        trace = _trace(kernel, track)
    # The saved stack begins three functions below the one that saves it, of which some were inlined: then the
    # allocator's caller itself is cut off. Its address is kept apart.
    caller = memory.symbol_at(kernel.prog, int(track.addr.value_())).split("+")[0].split(".")[0]
    if caller and caller not in trace:
        trace = (caller, *trace)
    if not trace:
        return None                     # what lies there is no track
    seconds = None
    with contextlib.suppress(*READ_ERRORS):
        ticks = (int(kernel.prog["jiffies_64"].value_()) - int(track.when.value_())) % (1 << 64)
        rate = ticks_per_second(kernel)
        seconds = round(ticks / rate, 2) if rate and ticks < 1 << 40 else None
    return Track(event, int(track.pid.value_()), int(track.cpu.value_()), seconds, trace, int(track.address_ or 0))


def ticks_per_second(kernel: Kernel) -> int | None:
    """Return CONFIG_HZ, told by the ticks and seconds since boot; None where no rate fits.

    Source: include/linux/jiffies.h, INITIAL_JIFFIES: the count begins 300 seconds before it overflows 32 bits.
    """
    uptime = kernel.system.uptime_s
    if not uptime:
        return None
    jiffies = int(kernel.prog["jiffies_64"].value_())
    off = {rate: abs((jiffies - (-300 * rate) % (1 << 32)) / rate - uptime) for rate in _RATES}
    best = min(_RATES, key=lambda rate: off[rate])
    return best if off[best] < max(3.0, uptime / 20) else None


def allocation_stack(cache: drgn.Object, address: int) -> list[int]:
    """Return the return addresses of the stack that allocated an object, innermost first; empty where not kept.

    Raises:
        READ_ERRORS: the object, or the store of stacks, is not in the dump.
    """
    made = cache.prog_.type("struct track")
    return _pcs(drgn.Object(cache.prog_, made, address=address + _info_end(cache)))


def _trace(kernel: Kernel, track: drgn.Object) -> tuple[str, ...]:
    names = [memory.symbol_at(kernel.prog, pc) for pc in _pcs(track)]
    return tuple(name.split("+")[0].split(".")[0] for name in names if name)


def _pcs(track: drgn.Object) -> list[int]:
    made = track.type_
    # 5cf909c553e9 "mm/slub: use stackdepot to save stack trace in objects" (5.19)
    if made.has_member("handle"):
        from drgn.helpers.linux.stackdepot import stack_depot_fetch

        stack = stack_depot_fetch(track.handle)
        pcs = [frame.pc for frame in stack] if stack is not None else []
    elif made.has_member("addrs"):
        pcs = [int(item.value_()) for item in track.addrs]
    else:
        pcs = []
    return [pc for pc in pcs[:_MOST_FRAMES] if pc]
