"""A fourth set of faults to score a diagnosis by: published bugs of upstream Linux, in two drivers of their own.

Where the sets before this one were thought up, each fault here is modelled on one that was found and mended in
the kernel, named in the driver's source: as a fix's subject, or a CVE (as remembered; not all were looked up). They
are chosen in about the proportion in which such fixes occur: missing checks and races that end in NULL, objects
that outlive or do not outlive what points at them, ways out that forget a lock or free twice, and
waits of every kind. Two drivers, `vane` (pointers and memory) and `points` (waits and loops), share no name and no
structure with the others. What is expected was
written down before a verdict on any of these dumps was looked at: what an engineer would write in the bug's analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdumpy.vm.conditions import LOOPS, NOT_CANONICAL, NULL, STALLS, WAITS, WARN
from kdumpy.vm.faults import Fault

_DEBUGFS = "mount -t debugfs debugfs /sys/kernel/debug; cat /sys/kernel/debug/vane/"
_SEND = "ip addr add 10.77.0.1/24 dev vane0; ip link set vane0 up; ping -c 1 -W 2 10.77.0.2"
_IOCTL = "stty -F /dev/"
"""stty asks any device for its settings: an ioctl."""


def _vane(name: str, cause: str, story: str, *culprits: str, after: str = "", trigger: str = "", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "vane", driver="vane", kernels=("6.1", "6.12"),
                 trigger=trigger or f"echo {name} >/dev/vane{after and '; '}{after}", **more)


def _points(name: str, cause: str, story: str, *culprits: str, after: str = "", trigger: str = "",
            **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "points", driver="points", kernels=("6.1", "6.12"),
                 trigger=trigger or f"echo {name} >/dev/points{after and '; '}{after}", **more)


_ALL = (
    _vane("deaf-probe", "null-dereference", "An ioctl reads the data of a message that has none.",
          "vane_probe_transfer", symptoms=NULL, after=f"{_IOCTL}vane"),
    _vane("blind-register", "jump-to-null", "A file in debugfs calls an operation that this device does not have.",
          "vane_registers_read", symptoms=NULL, after=f"{_DEBUGFS}registers"),
    _vane("late-gust", "null-dereference", "A timer sends by a link whose device is gone.",
          "vane_send_beacon", symptoms=NULL),
    _vane("unplugged", "null-dereference", "A module fails to load; its way out destroys a queue that is not there.",
          "vane_release_readings", symptoms=NULL, trigger="rmmod vane; insmod /lib/modules/vane.ko unplugged=1"),
    _vane("early-bell", "null-dereference", "An interrupt comes before its handler's data.",
          "vane_count_strike", symptoms=NULL),
    _vane("closed-port", "null-dereference", "Delayed work uses who has closed the device meanwhile.",
          "vane_start_listening", symptoms=NULL),
    _vane("no-almanac", "null-dereference", "A file in procfs takes the spinlock of what is not there.",
          "vane_almanac_stats", symptoms=NULL, after="cat /proc/vane"),
    _vane("no-peer", "null-dereference", "A packet is sent to the first of no peers.",
          "vane_answer_for", symptoms=NULL, after=_SEND),
    _vane("empty-shelf", "general-protection", "The first entry of an empty list is used: it is no entry.",
          "vane_first_reading", symptoms=NOT_CANONICAL, after=f"{_IOCTL}vane"),
    _vane("kept-error", "bad-address", "A way out gives an error code to kfree().",
          "vane_name_site", symptoms=("unable to handle page fault",), after=f"{_IOCTL}vane"),
    _vane("stale-listing", "use-after-free", "A file in procfs lists what was freed; the slab's checks are off.",
          "vane_list_surveys", symptoms=NOT_CANONICAL, after="cat /proc/vane"),
    _vane("late-timeout", "use-after-free", "Delayed work uses what a close has freed.",
          "vane_call_timeout", "vane_hang_up", boot="slub_debug=PU", symptoms=NOT_CANONICAL),
    _vane("left-notifier", "use-after-free", "A notifier is freed and stays on the chain; only the kernel's code runs.",
          "vane_scrap_board", boot="slub_debug=PU", symptoms=NOT_CANONICAL, after="ip link set dummy0 down"),
    _vane("open-drawer", "use-after-free", "A file is read that was open when its device went.",
          "vane_read_channel", boot="slub_debug=P", symptoms=NOT_CANONICAL,
          trigger="exec 3</dev/vane; echo open-drawer >/dev/vane; cat <&3"),
    _vane("refused-binding", "list-corruption", "An entry is freed on its list; its memory comes back as the next one.",
          "vane_bind_set", boot="slub_debug=P", symptoms=("list_add corruption",),
          after="echo refused-binding >/dev/vane"),
    _vane("orphan-record", "use-after-free", "A callback of RCU uses an owner that is gone.",
          "vane_record_reclaim", "vane_close_archive", boot="slub_debug=PU", symptoms=NOT_CANONICAL),
    _vane("leave-running", "bad-address", "A module is unloaded while its timer is set.",
          symptoms=("unable to handle page fault",), after="rmmod vane"),
    _vane("zero-packet", "double-free", "An error is met by freeing, by the one who finds it and by who called.",
          "vane_submit_packet", symptoms=("kernel BUG at mm/slub.c",), after=f"{_IOCTL}vane"),
    _vane("past-frame", "bad-address", "A read copies more than there is.",
          "vane_copy_frame", symptoms=("unable to handle page fault",), after="cat /dev/vane"),
    _vane("long-event", "stack-corruption", "A request is longer than the event on the stack that it is copied to.",
          "vane_forward_setup", symptoms=("stack-protector",), after=f"{_IOCTL}vane"),
    _vane("raced-list", "list-corruption", "Two threads add to a list and take off it without its lock.",
          "vane_flip_listener", symptoms=("list_(add|del) corruption", "list_add double add")),
    _vane("last-user", "refcount", "The last use of a counter is given back by refcount_dec().",
          "vane_leave_port", sysctls=WARN, symptoms=("refcount_t: decrement hit 0",)),
    _vane("sleepy-timer", "bug", "A timer waits for a mutex that a sleeping thread has.",
          "vane_firmware_done", sysctls=WARN, symptoms=("scheduling while atomic",)),
    _vane("tall-frame", "bug", "NAPI puts more into a packet than fits (skb_over_panic).",
          "vane_build_frame", symptoms=("kernel BUG at net/core/skbuff.c",), after=_SEND),
    _vane("unborn-work", "warn", "Work is queued that was never set up, on a system that panics on warnings.",
          "vane_resume_screen", sysctls=WARN, symptoms=("panic_on_warn set",), after=": </dev/vane"),
    _vane("no-clock", "divide-error", "An ioctl divides by a clock rate that nobody has set.",
          "vane_set_refresh", symptoms=("divide error",), after=f"{_IOCTL}vane"),
    _vane("printed-constant", "write-to-readonly", "A constant text is taken apart by strsep().",
          "vane_parse_route", symptoms=("unable to handle page fault",)),
    _vane("direct-answer", "user-access", "A file in debugfs prints straight into the reader's buffer.",
          "vane_report_read", symptoms=("supervisor write access", "SMAP"), after=f"{_DEBUGFS}report"),
    _vane("nested-mtu", "stack-overflow", "A notifier changes a device, of which it is notified.",
          "vane_follow_mtu", symptoms=("stack guard page was hit",), after="ip link set vane0 mtu 1300"),
    _vane("watchdog-bark", "driver-panic", "A watchdog's timer calls panic(), in hard interrupt context.",
          "vane_pretimeout", symptoms=("watchdog pretimeout event",)),
    _vane("lost-report", "memory-leak", "Each write that fails forgets a buffer of kmalloc().",
          "vane_build_report", sysctls={"vm.panic_on_oom": "1"}, seconds=150,
          symptoms=("panic_on_oom is enabled",), trigger="while echo lost-report >/dev/vane; do :; done"),
    _points("left-locked", "hung-task", "A mutex was left locked on a way out, by a process that has ended.",
            # At first only the one who waits was expected, as who left it is on no stack: the code tells him.
            "points_relocate", "points_set_route", **WAITS,
            trigger=f"(echo left-locked >/dev/points); {_IOCTL}points"),
    _points("missed-bell", "hung-task", "What is waited for has come, and nobody was woken.",
            "points_await_bell", **WAITS),
    _points("slow-crossing", "hung-task", "A semaphore is held by a thread that waits for hardware.",
            "points_close_crossing", "points_read_timetable", **WAITS, after="sleep 1; cat /dev/points"),
    _points("own-end", "deadlock", "Work waits for its own end.", "points_free_section", **WAITS),
    _points("busy-queue", "deadlock", "A work queue is flushed whose work wants the mutex of who flushes.",
            "points_clear_signals", "points_show_signal", **WAITS),
    _points("crossed-lines", "deadlock", "A driver's mutex and the network's lock are taken in opposite order.",
            "points_join_line", "points_line_open", **WAITS,
            trigger="(echo crossed-lines >/dev/points) & sleep 1; ip link set pts0 up"),
    _points("self-retired", "deadlock", "A file in sysfs removes itself while it is written to.",
            "points_retire_store", **WAITS, trigger="echo retire >/sys/kernel/points/retire"),
    _points("same-lever", "deadlock", "An interrupt wants the spinlock that the interrupted code has.",
            "points_throw_lever", "points_lever_interrupt", **STALLS),
    _points("stuck-bit", "soft-lockup", "An ioctl waits for a bit of a register that never comes.",
            "points_enable_output", **LOOPS, after=f"{_IOCTL}points"),
    _points("empty-block", "soft-lockup", "A tasklet goes over records of which one has no length.",
            "points_parse_blocks", **LOOPS),
    _points("dead-chip", "rcu-stall", "An interrupt's handler loops while the chip, which is gone, says all ones.",
            "points_chip_interrupt", **STALLS),
)

SCORING_3: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})
