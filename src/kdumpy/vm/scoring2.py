"""A third set of faults to score a diagnosis by: a driver that was written when the rules stood.

The set of kdumpy.vm.scoring has taught the rules since its first figure. This one differs from both in every name
and structure, and in what goes wrong: members far behind a pointer, a fault inside the kernel's own rb_next() and
memset(), a timer that outlives its object, per-CPU pointers, memory of a module's start, calls to another
processor, the network's lock, SRCU, requests to a disk, circles of three. What is expected was written down
before a verdict on any of these dumps was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdumpy.vm.conditions import WAITS, WARN
from kdumpy.vm.faults import Fault

_WITH_DISK = ("6.1", "6.12", "newest")
"""The driver's disk asks for the block layer of 5.18 and later."""


def _ferry(name: str, cause: str, story: str, *culprits: str, after: str = "", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "ferry", driver="ferry",
                 trigger=f"echo {name} >/sys/kernel/ferry/order{after and '; '}{after}", **more)


_ALL = (
    _ferry("far-field", "null-dereference", "A member that lies 9 KB behind a NULL pointer is read.",
           "ferry_read_draught", symptoms=("unable to handle page fault for address: 0000000000002400",)),
    _ferry("no-voyage", "bad-address", "Delayed work uses an error code as a pointer.",
           "ferry_cast_off", symptoms=("unable to handle page fault", "NULL pointer dereference")),
    _ferry("freed-node", "use-after-free", "A timer walks a tree on from a freed node, in the kernel's rb_next().",
           "ferry_next_hour", boot="slub_debug=PU,ferry_voyage", symptoms=("general protection fault",)),
    _ferry("armed-bell", "use-after-free", "An object is freed whose timer is set; none of the driver's code runs.",
           "ferry_end_voyage", boot="slub_debug=PU,ferry_voyage", symptoms=("general protection fault",)),
    _ferry("ticket-twice", "refcount", "A request on its way to the disk puts a ticket once more than it was got.",
           "ferry_ticket_put", sysctls=WARN, symptoms=("refcount_t: underflow",), kernels=_WITH_DISK,
           after="dd if=/dev/ferry0 of=/dev/null bs=4096 count=1"),
    _ferry("unlisted", "list-corruption", "Delayed work takes an entry off a list that was never on one.",
           "ferry_remove_ticket", symptoms=("list_del corruption",)),
    _ferry("wrong-clock", "bug", "Another processor's call finds a clock wrong.",
           "ferry_check_clock", symptoms=("kernel BUG at",)),
    _ferry("overbooked", "warn", "A read in sysfs warns, on a system that is set to panic on warnings.",
           "ferry_sum_load", sysctls=WARN, symptoms=("panic_on_warn set",), after="cat /sys/kernel/ferry/load"),
    _ferry("wide-label", "stack-corruption", "snprintf() is told of more room than there is on the stack.",
           "ferry_format_label", symptoms=("stack-protector",), after="cat /sys/kernel/ferry/load"),
    _ferry("no-time", "divide-error", "A timer divides 64 bits by zero.",
           "ferry_fill_rate", symptoms=("divide error",)),
    _ferry("painted", "write-to-readonly", "A thread overwrites a constant by the kernel's memset().",
           "ferry_rename", symptoms=("unable to handle page fault",)),
    _ferry("late-setup", "bad-address", "A function is called that was only for the module's start, and is unmapped.",
           "ferry_rebuild", symptoms=("unable to handle page fault",)),
    _ferry("foreign-note", "user-access", "A thread of the kernel reads at an address of a process.",
           "ferry_read_note", symptoms=("unable to handle page fault", "SMAP"),
           after="echo 0x7ffff7a01230 >/sys/kernel/ferry/note"),
    _ferry("long-word", "bug", "strcpy() finds its target too small (FORTIFY_SOURCE).",
           "ferry_copy_name", symptoms=("detected buffer overflow", "strcpy: detected buffer")),
    _ferry("raw-counter", "bad-address", "The pointer to a per-CPU variable is used as it is.",
           "ferry_count_one", symptoms=("unable to handle page fault", "NULL pointer")),
    _ferry("round-trip", "stack-overflow", "A function calls itself through a pointer, in delayed work.",
           "ferry_visit_port", symptoms=("stack guard page was hit",)),
    _ferry("leak-packets", "memory-leak", "A thread makes network packets and forgets them.",
           "ferry_send_wave", "ferry_flood", sysctls={"vm.panic_on_oom": "1"}, seconds=120,
           symptoms=("panic_on_oom is enabled",)),
    _ferry("bridge-silent", "driver-panic", "A notifier of network devices calls panic().",
           "ferry_net_event", symptoms=("the bridge does not answer",), after="ip link set dummy0 down"),
    _ferry("no-pilot", "hung-task", "The network's lock is held by a thread that waits for what does not come.",
           "ferry_wait_pilot", **WAITS, after="sleep 1; ip link set dummy0 mtu 1400"),
    _ferry("old-route", "hung-task", "The end of all readers (SRCU) is waited for, and one of them sleeps.",
           "ferry_read_route", "ferry_replace_route", **WAITS),
    _ferry("three-crews", "deadlock", "Three threads take three mutexes in a circle.",
           "ferry_load_cars", "ferry_load_trucks", "ferry_load_bikes", **WAITS),
    _ferry("lost-lock", "soft-lockup", "A spinlock is waited for that was left locked on a way out.",
           # At first only the one who waits was expected: who left it is on no stack, but its code tells.
           "ferry_moor", "ferry_count_waiting", seconds=90,
           sysctls={"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"},
           symptoms=("softlockup: hung tasks",)),
    _ferry("no-berth", "rcu-stall", "A reader's section (RCU) of delayed work does not end.",
           "ferry_find_berth", seconds=90, boot="rcupdate.rcu_cpu_stall_timeout=5",
           sysctls={"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"}, symptoms=("RCU Stall",)),
    _ferry("lost-request", "hung-task", "A disk's driver never answers a request; no code of it is on a stack.",
           kernels=_WITH_DISK, **WAITS, after="dd if=/dev/zero of=/dev/ferry0 bs=4096 count=1 conv=fsync"),
)

SCORING_2: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})
