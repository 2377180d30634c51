"""A fifth set of faults to score a diagnosis by: a sample of published bugs of upstream Linux, in the driver `loom`.

Which bugs they are was not chosen by taste: a distribution's security advisory for its kernel (EulerOS-SA-2024-1964)
was gone through in its order, and each bug was taken that crashes, hangs or leaks, and of which a module of ours can
have the mechanism and the context. The driver's source names the fix and the CVE of each. What is expected was written
down before a verdict on any of these dumps was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdumpy.vm.conditions import NOT_CANONICAL, NULL, STALLS, WAITS, WARN
from kdumpy.vm.faults import Fault

_PAGE = ("unable to handle page fault",)
_POISON = "slub_debug=P"
_ASK = "stty -F /dev/loom"
"""stty asks any device for its settings: an ioctl."""
_SEND = "ip addr add 10.78.0.1/24 dev loom0; ip link set loom0 up; ping -c 1 -W 2 10.78.0.2"


def _loom(name: str, cause: str, story: str, *culprits: str, after: str = "", trigger: str = "", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "loom", driver="loom", **{"kernels": ("6.1", "6.12"), **more},
                 trigger=trigger or f"echo {name} >/dev/loom{after and '; '}{after}")


_ALL = (
    _loom("spent-bobbin", "use-after-free", "A close puts what it has, and uses it once more.",
          "loom_return_bobbin", boot=_POISON, symptoms=NOT_CANONICAL),
    _loom("same-number", "null-dereference", "Two devices got one number; the second to go finds nothing there.",
          "loom_retire_shuttle", symptoms=NULL, after=_ASK),
    _loom("wide-order", "divide-error", "A divisor of 64 bits is cut to 32, which are 0.",
          "loom_picks_each", symptoms=("divide error",)),
    _loom("lost-warp", "memory-leak", "Each start that fails forgets what it took from kmalloc().",
          "loom_attach_warp", sysctls={"vm.panic_on_oom": "1"}, seconds=150, symptoms=("panic_on_oom is enabled",),
          trigger="while echo lost-warp >/dev/loom; do :; done"),
    _loom("long-pause", "use-after-free", "A timer counts in a per-CPU counter whose owner is gone.",
          "loom_pause_over", "loom_close_hall", boot=_POISON, symptoms=NOT_CANONICAL),
    _loom("odd-error", "warn", "Work reports a positive number as an error; the kernel's function warns.",
          "loom_note_break", sysctls=WARN, symptoms=("panic_on_warn set",)),
    _loom("spare-heddle", "bug", "Two functions do not agree on who frees; the outer one has a BUG_ON for that.",
          "loom_fill_heddles", "loom_thread_heddle", symptoms=("kernel BUG at",), after=_ASK),
    _loom("two-dyes", "use-after-free", "An array of numbers was freed with its other owner: the index is poison.",
          "loom_dye_event", "loom_pour_away", boot=_POISON, symptoms=_PAGE),
    _loom("long-strip", "general-protection", "A buffer is overrun by text, over the pointer of the next object.",
          "loom_measure_strips", "loom_copy_lint", symptoms=NOT_CANONICAL,
          kernels=()),      # withdrawn: the allocator's own pointer lies between two objects, and nothing is hit
    _loom("wrong-side", "deadlock", "A timer wants to write what the interrupted code, on this CPU, reads.",
          "loom_state_change", "loom_visit_rooms", **STALLS),
    _loom("unmade-line", "general-protection", "A mutex is locked that was never set up: its owner is text.",
          "loom_say_goodbye", symptoms=NOT_CANONICAL),
    _loom("widest-cloth", "warn", "An ioctl asks kmalloc() for more than it ever gives; the kernel warns.",
          "loom_widen_cloth", sysctls=WARN, symptoms=("panic_on_warn set",), after=_ASK),
    _loom("early-removal", "use-after-free", "A device on a bus is freed before SRCU's readers are waited for.",
          "loom_pedal_lift", "loom_remove_pedal", boot=_POISON, symptoms=NOT_CANONICAL),
    _loom("torn-cloth", "use-after-free", "A packet is freed on an error, and its time is taken all the same.",
          "loom_start_belt", "loom_queue_cloth", boot=_POISON, symptoms=NOT_CANONICAL, after=_SEND),
    _loom("late-folding", "use-after-free", "A module's exit goes over a list with a freed entry.",
          "loom_fold_all", "loom_detach_panel", boot=_POISON, symptoms=NOT_CANONICAL, after="rmmod loom"),
    _loom("no-gong", "list-corruption", "A module's exit unregisters what was never registered.",
          "loom_remove_gong", symptoms=("list_del corruption",), after="rmmod loom"),
    _loom("early-question", "null-dereference", "A module's file is read while its init has not made the data yet.",
          "loom_jacquard_size", symptoms=NULL,
          trigger="rmmod loom; (insmod /lib/modules/loom.ko dawdle=3000) & sleep 1; cat /proc/loom"),
    _loom("late-account", "null-dereference", "A pointer is looked at and read again; meanwhile it was cleared.",
          "loom_pay_account", symptoms=NULL),
    _loom("double-room", "double-free", "A destructor frees on an error, and so does who called.",
          "loom_new_room", "loom_destroy_room", symptoms=("kernel BUG at mm/slub.c",)),
    _loom("no-bench", "null-dereference", "Delayed work uses what was removed.",
          "loom_sync_lamps", symptoms=NULL),
    _loom("wordy-label", "warn", "16 bytes are copied to a member of 14; the kernel's memcpy() warns.",
          "loom_fill_label", sysctls=WARN, symptoms=("panic_on_warn set",), after=_ASK),
    _loom("card-reset", "bad-address", "An interrupt's handler takes a reset for data: its index is -1.",
          "loom_card_byte", symptoms=_PAGE),
    _loom("unbound-host", "use-after-free", "A device's removal frees its host, and resets it by the host's address.",
          "loom_remove_host", boot=_POISON, symptoms=NOT_CANONICAL, trigger="echo 1 >/sys/kernel/loom/unbind"),
    _loom("slow-restart", "use-after-free", "Work completes what is freed, as who waited has given up.",
          "loom_restart_worker", "loom_schedule_restart", boot=_POISON + " rcupdate.rcu_cpu_stall_timeout=5",
          sysctls={**STALLS["sysctls"], "kernel.panic_on_oops": "1"}, seconds=90,
          symptoms=(*NOT_CANONICAL, *_PAGE, "RCU Stall")),
    _loom("lost-key", "refcount", "A key is freed without waiting for RCU; who looks it up counts up from 0.",
          "loom_find_key", "loom_delete_key", sysctls=WARN, symptoms=("refcount_t: addition on 0",)),
    _loom("closed-office", "deadlock", "A file in sysfs wants the mutex of the one who removes the file.",
          "loom_disconnect", "loom_authorize_store", **WAITS,
          trigger="echo closed-office >/dev/loom; sleep 1; echo 1 >/sys/kernel/loom/authorize"),
    # A serial console pats the watchdog with each line, so it is RCU that notices.
    _loom("bad-bundles", "rcu-stall", "Each packet of an unknown kind is printed, and there is no end of them.",
          "loom_take_bundles", **STALLS),
    _loom("mirrored-belt", "deadlock", "A packet is sent on to the device that is sending it, under its spinlock.",
          "loom_roll_up", "loom_mirror", after=_SEND, **STALLS),
    _loom("never-begun", "hung-task", "An ioctl waits for the end of what was never begun.",
          "loom_drain_aborts", after=_ASK, **WAITS),
    _loom("strict-rules", "deadlock", "Work is cancelled that wants the mutex of the one who cancels.",
          "loom_disable_rules", "loom_rule_handler", **WAITS),
    _loom("own-cloth", "deadlock", "A read into the device's own mapping faults, and wants the read's mutex.",
          "loom_yarn_fault", "loom_copy_yarn", after="cat /dev/loom", **WAITS),
)

SCORING_4: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})
