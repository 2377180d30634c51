"""The faults that a diagnosis is scored by: another driver, which no rule was written after.

They differ from the laboratory's in every name, structure and offset, and mostly in the context: a network
device's transmit, a tasklet, a clock in hard interrupt context, an interrupt's thread, a callback of RCU, a
parameter of the module. What is expected here was written down before the first dump was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdumpy.vm.conditions import HANG
from kdumpy.vm.faults import Fault

_HUNG = ("hung_task: blocked tasks",)
_OOM = ("panic_on_oom is enabled",)


def _sluice(name: str, cause: str, story: str, *culprits: str, trigger: str = "", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "sluice", driver="sluice",
                 trigger=trigger or f"echo {name} >/dev/sluice", **more)


_ALL = (
    _sluice("xmit-null", "null-dereference", "The device sends a packet on to a lane that is not there.",
            "sluice_send_on", symptoms=("NULL pointer dereference",),
            trigger="echo xmit-null >/dev/sluice; ip addr add 10.44.0.1/24 dev slu0; ip link set slu0 up; "
                    "ping -c 1 -W 2 10.44.0.2"),
    _sluice("ring-overrun", "bad-address", "A tasklet reads behind the end of a ring.",
            "sluice_ring_slot", symptoms=("unable to handle page fault",)),
    _sluice("walk-freed", "use-after-free", "A list is walked, in hard interrupt context, whose entries are freed.",
            "sluice_age_parcels", boot="slub_debug=FP,sluice_parcel", symptoms=("general protection fault",)),
    _sluice("free-twice", "double-free", "A callback of RCU frees a parcel twice.",
            "sluice_parcel_gone", symptoms=("kernel BUG at mm/slub.c",), kernels=("5.10", "6.1", "6.12")),
    _sluice("queue-twice", "list-corruption", "A work item queues a parcel that is queued.",
            "sluice_enqueue", symptoms=("list_add double add",)),
    _sluice("ref-revived", "refcount", "An interrupt's thread takes a lane whose last user is gone.",
            "sluice_lane_get", sysctls={"kernel.panic_on_warn": "1"}, symptoms=("refcount_t: addition on 0",)),
    _sluice("tagged-pointer", "general-protection", "A tasklet follows a pointer with flags in its upper bits.",
            "sluice_route_weight", boot="no5lvl",       # with five levels of page tables the address is canonical
            symptoms=("general protection fault",)),
    _sluice("deep", "stack-overflow", "Two functions call each other in an interrupt's thread.",
            "sluice_hash_leaf", "sluice_hash_tree", symptoms=("stack guard page was hit",)),
    _sluice("long-label", "stack-corruption", "A module parameter is longer than the array it is copied to.",
            "sluice_copy_label", symptoms=("stack-protector",),
            trigger="echo calibrated-by-hand-in-the-north-wing >/sys/module/sluice/parameters/label"),
    _sluice("no-weight", "divide-error", "A work item takes a remainder by zero.",
            "sluice_share", symptoms=("divide error",)),
    _sluice("bad-state", "bug", "A state that cannot be, in hard interrupt context.",
            "sluice_next_state", symptoms=("kernel BUG at",)),
    _sluice("out-of-order", "warn", "A tasklet warns, on a system that is set to panic on warnings.",
            "sluice_check_order", sysctls={"kernel.panic_on_warn": "1"}, symptoms=("panic_on_warn set",)),
    _sluice("link-lost", "driver-panic", "An interrupt's thread calls panic().",
            "sluice_hardware_dead", symptoms=("link lost for",)),
    _sluice("user-write", "user-access", "Process 1 writes: the answer is stored without copy_to_user().",
            "sluice_answer", as_init=True, symptoms=("supervisor write access", "SMAP")),
    _sluice("late-limit", "write-to-readonly", "A value that may only be set while the module loads is set.",
            "sluice_raise_limit", symptoms=("unable to handle page fault",)),
    _sluice("half-tasklet", "jump-to-null", "A tasklet has no function; none of the driver's is on the stack.",
            symptoms=("NULL pointer dereference",)),
    _sluice("leak-rings", "memory-leak", "A thread takes vmalloc memory until none is left.",
            "sluice_grow_ring", "sluice_grow", sysctls={"vm.panic_on_oom": "1"}, seconds=120, symptoms=_OOM),
    _sluice("leak-notes", "memory-leak", "A work item takes memory of kmalloc() until none is left.",
            "sluice_take_note", "sluice_take_notes", sysctls={"vm.panic_on_oom": "1"}, seconds=120, symptoms=_OOM),
    _sluice("lost-credit", "hung-task", "A semaphore is taken once more than it has places.",
            "sluice_reserve", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("never-drained", "hung-task", "A completion is waited for that nobody completes.",
            "sluice_drain", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("sleeping-reader", "hung-task", "A reader sleeps with the semaphore that a writer wants.",
            "sluice_show_map", "sluice_change_map", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("crossed", "deadlock", "A work item and a process take a mutex and a semaphore in opposite order.",
            "sluice_balance", "sluice_remap", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("mutex-again", "deadlock", "A thread takes the mutex that it has.",
            "sluice_set_weight", "sluice_reset_weights", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("flush-holding", "deadlock", "Work is waited for that wants the mutex of the one who waits.",
            "sluice_stop_notes", "sluice_note_weights", sysctls=HANG, seconds=90, symptoms=_HUNG),
    _sluice("endless-list", "soft-lockup", "A tasklet walks a list that leads back into itself.",
            "sluice_count_parcels", seconds=90,
            sysctls={"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"},
            symptoms=("softlockup: hung tasks",)),
    _sluice("stuck-clock", "rcu-stall", "A clock waits in hard interrupt context; the other processor notices.",
            "sluice_await_bit", seconds=90, boot="rcupdate.rcu_cpu_stall_timeout=5",
            sysctls={"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"}, symptoms=("RCU Stall",)),
    _sluice("spin-again", "deadlock", "A spinlock is taken by the processor that has it.",
            "sluice_purge", "sluice_overflow", seconds=90,
            sysctls={"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"},
            symptoms=("softlockup: hung tasks",)),
)

SCORING: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})
