"""A sixth set of faults to score a diagnosis by: the sample of published bugs goes on, in the driver `hive`.

The fifth set's advisory (EulerOS-SA-2024-1964) was read on in its order, from behind CVE-2023-52615 to CVE-2024-26663,
and each bug was taken that crashes, hangs or leaks on a kernel without sanitizers, and of which a module of ours can
have the mechanism and the context. Passed over was what leaves nothing in a dump, what needs a certain processor, what
the advisory does not tell enough of, and what an earlier fault has in the same way; no cause has more than 40 %. The
driver's source names the fix and the CVE of each. What is expected was written down, and all dumps were made and looked
at by their consoles alone, before a verdict on any of them was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdumpy.vm.conditions import NOT_CANONICAL, NULL, STALLS, WAITS, WARN
from kdumpy.vm.faults import Fault

_PAGE = ("unable to handle page fault",)
_POISON = "slub_debug=P"
_TRACKED = "slub_debug=PU"
_ASK = "stty -F /dev/hive"
"""stty asks any device for its settings: an ioctl."""
_OOM = {"vm.panic_on_oom": "1"}
_NO_MEMORY = ("panic_on_oom is enabled",)


def _hive(name: str, cause: str, story: str, *culprits: str, after: str = "", trigger: str = "", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "hive", driver="hive", **{"kernels": ("6.1", "6.12", "newest"), **more},
                 trigger=trigger or f"echo {name} >/dev/hive{after and '; '}{after}")


_ALL = (
    _hive("lost-escort", "use-after-free", "Work tells of a disconnection to what its own thread has destroyed.",
          "hive_escort_parted", "hive_escort_destroy", boot=_TRACKED, symptoms=NOT_CANONICAL),
    _hive("long-wish", "null-dereference", "A length from outside leads past the end of a list of pages.",
          "hive_lay_out_jars", symptoms=NULL),
    # None of the module's functions has run, but the parameter with no function to set it is in a register.
    _hive("unset-crest", "jump-to-null", "A module is loaded with a parameter that nothing sets.",
          symptoms=NULL, trigger="rmmod hive; insmod /lib/modules/hive.ko crest=0x4711"),
    _hive("left-jar", "warn", "A creation that failed left something behind; the close warns.",
          "hive_shut_pantry", sysctls=WARN, symptoms=("panic_on_warn set",)),
    _hive("empty-index", "bad-address", "A read finds an index that nobody has filled: the last of no entries is -1.",
          "hive_find_cell", symptoms=_PAGE, after="cat /dev/hive"),
    _hive("stillborn-drone", "use-after-free", "A registration failed and freed; who called removes it all the same.",
          "hive_remove_drone", "hive_add_drone", boot=_POISON, symptoms=(*_PAGE, *NOT_CANONICAL)),
    _hive("spent-pollen", "double-free", "A packet is out of hand, and who called is told to drop it.",
          "hive_classify_pollen", "hive_redirect_pollen", symptoms=("kernel BUG at mm/slub.c",),
          kernels=("6.1", "6.12"),          # 7.x keeps freed objects in sheaves and does not notice
          # Nothing but one long packet: in a short one's freed memory the allocator's own pointer takes the place of
          # the number of its pages, and the second release falls over that on 6.12.
          after="sysctl -q -w net.ipv6.conf.hive0.disable_ipv6=1; ip addr add 10.79.0.1/24 dev hive0; "
                "ip link set hive0 up; ping -c 1 -W 2 -s 1000 10.79.0.2"),
    _hive("lost-frames", "memory-leak", "Each addition that fails forgets 48 KB of kvmalloc().",
          "hive_take_frames", "hive_add_super", sysctls=_OOM, seconds=150, symptoms=_NO_MEMORY,
          trigger="while echo lost-frames >/dev/hive; do :; done"),
    _hive("vain-wait", "hung-task", "A module's exit waits for one who has gone and did not know of it.",
          "hive_await_stragglers", **WAITS, after="sleep 1; rmmod hive"),
    _hive("short-trail", "use-after-free", "The last of some routes is told of, and was released.",
          "hive_tell_trail", "hive_add_trails", boot=_POISON, symptoms=NOT_CANONICAL, after=_ASK),
    _hive("cut-crate", "null-dereference", "A request that ends in an error gives back what it never had.",
          "hive_break_seal", symptoms=NULL),
    _hive("two-strippers", "null-dereference", "Two threads reset a device; the second one puts a page that is NULL.",
          "hive_strip_sheet", symptoms=NULL),
    _hive("early-horn", "use-after-free", "A set-up failed and freed; its handler of events was registered before.",
          "hive_refresh_tunnel", "hive_dig_tunnel", boot=_TRACKED, symptoms=NOT_CANONICAL),
    _hive("late-sting", "use-after-free", "A transfer's end, in hard interrupt context, takes a freed spinlock.",
          "hive_sting_complete", "hive_sting_unplug", boot=_POISON + " rcupdate.rcu_cpu_stall_timeout=5",
          sysctls={**STALLS["sysctls"], "kernel.panic_on_oops": "1"}, seconds=90,
          symptoms=(*NOT_CANONICAL, *_PAGE, "RCU Stall")),
    _hive("bare-letter", "null-dereference", "A netlink attribute is gone through that is not in the message.",
          "hive_read_letter", symptoms=NULL, after=_ASK),
    _hive("long-census", "hard-lockup", "Each counts all, under a spinlock and without interrupts; an operator's NMI.",
          "hive_count_trips", monitor="nmi", monitor_after=16, seconds=90,
          sysctls={"kernel.unknown_nmi_panic": "1", "kernel.watchdog_thresh": "5"}, symptoms=("NMI: Not continuing",)),
    _hive("shared-cluster", "use-after-free", "Two packets share a list, one of them adds to it; both are freed.",
          "hive_drop_cluster", boot=_POISON, symptoms=NOT_CANONICAL),
    _hive("stale-plot", "use-after-free", "A table of pages is freed twice; its pointer was not cleared.",
          "hive_clear_plot", boot=_POISON, symptoms=NOT_CANONICAL),
    _hive("kept-brood", "memory-leak", "Delayed work gets an object twice and puts it once, over and over.",
          # Who meets the end of memory is anybody: only the cache's own records tell who took it.
          "hive_new_brood", "hive_raise_broods", boot="slub_debug=U,hive_brood", sysctls=_OOM, seconds=150,
          symptoms=_NO_MEMORY),
    _hive("freed-cells", "divide-error", "What was freed twice is counted twice; an average over no gaps.",
          "hive_mean_gap", symptoms=("divide error",), after=_ASK),
    _hive("no-charter", "null-dereference", "Work reads a descriptor that was never got.",
          "hive_winter_stores", symptoms=NULL),
    _hive("gone-tenant", "null-dereference", "A module's exit sends away one who is gone.",
          "hive_evict_tenant", symptoms=NULL, after="rmmod hive"),
    _hive("answered-haul", "use-after-free", "An answered request is gone, and its queue's counter is put.",
          "hive_haul_complete", "hive_answer_haul", boot=_POISON, symptoms=NOT_CANONICAL),
    _hive("bad-digest", "use-after-free", "A loop goes on receiving when the recovery has freed the request.",
          "hive_receive_load", "hive_give_up_load", boot=_TRACKED, symptoms=NOT_CANONICAL),
    _hive("flat-stack", "divide-error", "A device says that it has no sectors; a thread divides by that.",
          "hive_comb_number", symptoms=("divide error",)),
    _hive("early-orphan", "use-after-free", "A packet loses its owner in a timer, and the owner is used.",
          "hive_pass_scent", "hive_gather_scent", boot=_POISON, symptoms=NOT_CANONICAL),
    _hive("late-reply", "null-dereference", "A thread follows a connection that is gone.",
          "hive_trusted_talk", symptoms=NULL),
    _hive("twice-done", "refcount", "A request is completed twice.",
          "hive_harvest_done", sysctls=WARN, symptoms=("refcount_t: underflow",)),
    _hive("cracked-plate", "use-after-free", "A second try puts what the first one had put; a close finds it listed.",
          "hive_close_plates", "hive_flip_plate", boot=_TRACKED, symptoms=NOT_CANONICAL),
    _hive("wrong-dwelling", "general-protection", "One kind of object is taken for another: a list's head is text.",
          "hive_known_visitor", "hive_receive_visitor", symptoms=NOT_CANONICAL),
)

SCORING_5: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})
