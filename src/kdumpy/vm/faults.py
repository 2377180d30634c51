"""The faults of the laboratory: how each is brought about, and what a diagnosis must find.

A fault is a value; adding one is adding it to FAULTS (and, mostly, a function to the driver).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from kdumpy.vm.kernels import CLOUD, PLAIN

Method = Literal["kdump", "live-elf", "live-kdump"]
"""How the dump is taken: by the capture kernel, or out of the running guest by QEMU."""

_NOWHERE = "address between user and kernel address ranges"
"""arm64's word for what x86-64 calls a general protection fault, which is an address that is not canonical."""
_PAGE_FAULT = ("unable to handle page fault", "Unable to handle kernel (?:paging request|write to read-only memory)")
_OOPS = {"kernel.panic_on_oops": "1"}


@dataclass(frozen=True)
class Fault:
    """One way to bring a kernel down."""

    name: str
    cause: str
    """The cause that the diagnosis must name; "none" for a guest that did not panic."""
    story: str
    """What goes wrong, in a sentence."""
    culprits: tuple[str, ...] = ()
    """Functions that may be named as the culprit, the best one first; empty: none is.

    Names as the source has them (the compiler adds `.isra.0` and the like). The best one may
    have no frame: a compiler that ends it in a jump (a tail call) leaves its caller's only.
    """
    module: str | None = None
    """The module of the culprit."""
    driver: str = "flaky"
    """The faulty driver, a directory of drivers/; `flaky` is always loaded, another one by the trigger."""
    trigger: str = ""
    """Shell commands that run in the guest; default: the fault's name is written to /proc/flaky."""
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(_OOPS))
    """Kernel settings that turn the fault into a panic."""
    boot: str = ""
    """Additional kernel parameters."""
    monitor: str = ""
    """A line for QEMU's monitor that brings the fault about from outside."""
    monitor_after: float = 0
    """Seconds between the trigger and that line."""
    as_init: bool = False
    """The trigger runs in process 1."""
    before_init: bool = False
    """The guest is armed before there is a process 1, by the kernel's call for a module; the trigger writes /go."""
    method: Method = "kdump"
    seconds: float = 60
    """How long the fault may take to become a panic, under emulation."""
    kernels: tuple[str, ...] = ("5.10", "6.1", "6.12", "newest")
    """The kernels on which it is known to work."""
    flavour: str = CLOUD
    """The flavour of the kernels that it needs."""
    modules: tuple[str, ...] = ()
    """Further modules of the kernel that the guest loads."""
    programs: tuple[str, ...] = ()
    """Programs of this machine that the guest has."""
    hardware: tuple[str, ...] = ()
    """Further arguments for QEMU."""
    symptoms: tuple[str, ...] = ()
    """Regular expressions of which the console or the kernel's log holds one when the fault has come."""

    def commands(self) -> str:
        """Return the shell commands of the trigger."""
        load = "" if self.driver == "flaky" else f"insmod /lib/modules/{self.driver}.ko; "
        return load + (self.trigger or f"echo {self.name} >/proc/flaky")


def _driver(name: str, cause: str, story: str, *culprits: str, **more: object) -> Fault:
    return Fault(name, cause, story, culprits, "flaky", **more)  # type: ignore[arg-type]


def _tardy(name: str, cause: str, story: str, *culprits: str, **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "tardy", driver="tardy", trigger=f"echo {name} >/dev/tardy", **more)


def _winch(name: str, cause: str, story: str, *culprits: str, **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, "winch", driver="winch",
                 **{"trigger": f"echo {name} >/dev/winch", "kernels": ("6.1", "6.12", "newest"), **more})


def _attic(name: str, cause: str, story: str, *culprits: str, kernels: tuple[str, ...] = ("6.1", "6.12"),
           after: str = "", driver: str = "attic", **more: Any) -> Fault:
    return Fault(name, cause, story, culprits, driver, driver=driver, trigger=f"echo {name} >/dev/{driver}{after}",
                 kernels=kernels, **more)


_HANG: Mapping[str, Any] = {
    "seconds": 90, "sysctls": {"kernel.hung_task_panic": "1", "kernel.hung_task_timeout_secs": "3"},
    "symptoms": ("hung_task: blocked tasks",)}
_LOCKUP: Mapping[str, Any] = {
    "seconds": 90, "sysctls": {"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"},
    "symptoms": ("softlockup: hung tasks",)}

_TWO_NODES = ("-object", "memory-backend-ram,id=node0,size=448M", "-object", "memory-backend-ram,id=node1,size=192M",
              "-numa", "node,nodeid=0,cpus=0,memdev=node0", "-numa", "node,nodeid=1,cpus=1,memdev=node1")
"""The laboratory's 640 MiB as two nodes."""

_ALL = (
    Fault("sysrq", "sysrq", "An operator asks for a crash by the SysRq key.",
          trigger="echo c >/proc/sysrq-trigger", symptoms=("sysrq triggered crash",)),
    _driver("null-workqueue", "null-dereference", "The poll work uses a channel that was just dropped.",
            "flaky_poll_channel", "flaky_poll_work", symptoms=("NULL pointer dereference",)),
    _driver("null-procread", "null-dereference", "Reading /proc/flaky shows a channel that was dropped.",
            "flaky_show_channel", "flaky_show",
            trigger="echo null-procread >/proc/flaky; cat /proc/flaky", symptoms=("NULL pointer dereference",)),
    _driver("null-timer", "null-dereference", "The watchdog timer, in interrupt context, follows NULL.",
            "flaky_watchdog_check", "flaky_watchdog_tick", symptoms=("NULL pointer dereference",)),
    _driver("bad-address", "bad-address", "A calibration table is read after it was unmapped (vfree).",
            "flaky_read_calibration", symptoms=_PAGE_FAULT),
    _driver("general-protection", "general-protection",
            "A name that is too long ran over the pointer behind it: the address is text, not canonical.",
            "flaky_client_rate", symptoms=("general protection fault", _NOWHERE)),
    _driver("user-access", "user-access", "A user's buffer is read without copy_from_user().",
            "flaky_peek_command", symptoms=("supervisor read access", "SMAP", "access to user memory")),
    _driver("jump-to-null", "jump-to-null", "An operation that is not set is called.",
            "flaky_calibrate_channel", symptoms=("NULL pointer dereference",)),
    _driver("nx-execute", "nx-execute", "A filter is called through a pointer to data.",
            "flaky_call_filter", symptoms=("execute NX-protected page", "execute from non-executable")),
    _driver("write-to-readonly", "write-to-readonly", "A constant table of operations is patched.",
            "flaky_patch_ops", symptoms=_PAGE_FAULT),
    _driver("use-after-free", "use-after-free", "A pointer inside a freed client is followed.",
            "flaky_notify_client", boot="slub_debug=PU", symptoms=("general protection fault", _NOWHERE)),
    _driver("use-after-free-call", "use-after-free", "A function pointer inside a freed client is called.",
            "flaky_release_client", boot="slub_debug=PU", symptoms=("general protection fault", _NOWHERE)),
    _driver("double-free", "double-free", "A client is freed twice in a row.",
            "flaky_free_client", symptoms=("kernel BUG at mm/slub.c",),
            kernels=("5.10", "6.1", "6.12")),      # 7.x keeps freed objects in sheaves and does not notice
    _driver("double-free-debug", "double-free", "A client is freed twice; the slab's own checks are on.",
            "flaky_free_client", trigger="echo double-free >/proc/flaky", boot="slub_debug=F",
            sysctls={"kernel.panic_on_warn": "1"}, kernels=("newest",), symptoms=("Object already free",)),
    _driver("list-corruption", "list-corruption", "A sample is taken off its list twice.",
            "flaky_expire_sample", symptoms=("list_del corruption",)),
    _driver("refcount", "refcount", "A client is put once more than it was got.",
            "flaky_put_client", "flaky_refcount", sysctls={"kernel.panic_on_warn": "1"},
            symptoms=("refcount_t: underflow",)),
    _driver("stack-overflow", "stack-overflow", "A circle is walked by recursion until the stack ends.",
            "flaky_walk_tree", symptoms=("stack guard page was hit",)),
    _driver("stack-corruption", "stack-corruption", "A command longer than its buffer runs over the stack.",
            "flaky_parse_command", symptoms=("stack-protector",)),
    _driver("memory-leak", "memory-leak", "The collector takes samples and forgets them until memory ends.",
            "flaky_take_sample", "flaky_hoard_samples", sysctls={"vm.panic_on_oom": "1"}, seconds=120,
            symptoms=("panic_on_oom is enabled",)),
    _driver("memory-leak-tracked", "memory-leak", "The same, on a kernel that remembers who allocated each object.",
            "flaky_take_sample", "flaky_hoard_samples", trigger="echo memory-leak >/proc/flaky",
            boot="slub_debug=U,flaky_sample", sysctls={"vm.panic_on_oom": "1"}, seconds=120,
            symptoms=("panic_on_oom is enabled",)),
    _driver("bug", "bug", "An assertion (BUG_ON) does not hold.", "flaky_commit_batch", symptoms=("kernel BUG at",)),
    _driver("warn", "warn", "A warning, on a system that is set to panic on warnings.",
            "flaky_check_rate", sysctls={"kernel.panic_on_warn": "1"}, symptoms=("panic_on_warn set",)),
    _driver("divide-error", "divide-error", "An average over no samples.",
            "flaky_average", symptoms=("divide error",)),
    _driver("invalid-opcode", "invalid-opcode", "An instruction that the processor does not have.",
            "flaky_fast_sum", symptoms=("invalid opcode", "[Uu]ndefined instruction")),
    _driver("driver-panic", "driver-panic", "The driver's watchdog timer calls panic().",
            "flaky_watchdog_give_up", "flaky_watchdog_tick", symptoms=("does not answer after",)),
    _driver("hung-task", "hung-task", "A mutex is held by a thread that waits for an answer for ever.",
            "flaky_await_answer", "flaky_apply_config", seconds=90,
            sysctls={"kernel.hung_task_panic": "1", "kernel.hung_task_timeout_secs": "3"},
            symptoms=("hung_task: blocked tasks",)),
    _driver("deadlock", "deadlock", "Two threads take two mutexes in opposite order.",
            "flaky_update_totals", "flaky_publish_stats", seconds=90,
            sysctls={"kernel.hung_task_panic": "1", "kernel.hung_task_timeout_secs": "3"},
            symptoms=("hung_task: blocked tasks",)),
    _driver("soft-lockup", "soft-lockup", "A thread waits for a register and lets nobody else run.",
            "flaky_spin_ready", trigger="echo spin >/proc/flaky", seconds=90,
            sysctls={"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"},
            symptoms=("softlockup: hung tasks",)),
    _driver("rcu-stall", "rcu-stall", "A thread spins with interrupts off; the other processor notices.",
            "flaky_spin_irqs_off", trigger="echo spin-irqs-off >/proc/flaky", seconds=90,
            sysctls={"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"},
            boot="rcupdate.rcu_cpu_stall_timeout=5", symptoms=("RCU Stall",)),
    _driver("unanswered-call", "rcu-stall", "A CPU with its interrupts off is asked by another one to patch code.",
            "flaky_spin_irqs_off", seconds=90,
            trigger="echo spin-irqs-off >/proc/flaky; sleep 1; sysctl -w kernel.sched_schedstats=1",
            sysctls={"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"},
            boot="rcupdate.rcu_cpu_stall_timeout=5", symptoms=("RCU Stall",)),
    _tardy("semaphore", "hung-task", "A semaphore's only place is kept by a thread that waits for ever.",
           "tardy_load_tape", "tardy_clean_drive", **_HANG),
    _tardy("completion", "hung-task", "A completion is waited for that never comes.", "tardy_await_tape", **_HANG),
    _tardy("work-flush", "hung-task", "Work is flushed that waits for ever.", "tardy_rewind", "tardy_eject", **_HANG),
    _tardy("rwsem-readers", "hung-task", "A reader sleeps with a semaphore; another one, which came last, is gone.",
           "tardy_browse", "tardy_enter_tape", **_HANG),
    _tardy("spin-crossed", "deadlock", "Two processors take two spinlocks in opposite order.",
           "tardy_move_arm", "tardy_open_door", **_LOCKUP),
    _tardy("spin-held", "soft-lockup", "A processor loops with a spinlock that another one waits for.",
           "tardy_wait_sensor", "tardy_grip", **_LOCKUP),
    _tardy("leak-pages", "memory-leak", "Pages are taken from the page allocator itself until none is left.",
           "tardy_take_buffer", "tardy_fill_buffers", sysctls={"vm.panic_on_oom": "1"}, seconds=120,
           symptoms=("panic_on_oom is enabled",)),
    # What no lock's word and no stack names: whoever waits was blamed for it once.
    _winch("timer-locked", "deadlock", "A timer is stopped with the lock that its function takes.",
           "winch_stop_motor", "winch_motor_tick", **_LOCKUP),
    _winch("timer-itself", "deadlock", "A timer's function waits for its own end, by jumps: it has no frame.",
           "winch_brake_tick", **_LOCKUP),
    _winch("deaf-cpu", "soft-lockup", "A processor waits for another one to answer, whose interrupts are off.",
           "winch_hold_rope", **_LOCKUP),
    _winch("sleeping-plan", "rcu-stall", "A task sleeps within rcu_read_lock(); no processor is held up.",
           "winch_read_plan", seconds=90, boot="rcupdate.rcu_cpu_stall_timeout=5",
           sysctls={"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"}, symptoms=("RCU Stall",)),
    _winch("answer-locked", "deadlock", "Work that is to complete what a thread waits for wants its mutex before.",
           "winch_lift", "winch_lift_work", **_HANG),
    _winch("left-in-object", "hung-task", "A process lives on that has left an object's mutex locked on a way out.",
           "winch_set_load", **{**_HANG, "trigger": "sh -c 'echo 41 >/dev/winch; sleep 1000; echo' & sleep 1; "
                                                    "cat /dev/winch"}),
    _winch("kept-spinlock", "bug", "Work returns with a spinlock; the scheduler finds it in the worker.",
           "winch_weigh_work", sysctls={"kernel.panic_on_warn": "1"}, symptoms=("scheduling while atomic",)),
    _winch("endless-log", "memory-leak", "A timer takes objects without waiting; a process asks when nothing is left.",
           "winch_log_turn", "winch_clock_tick", sysctls={"vm.panic_on_oom": "1"}, seconds=200,
           trigger="echo endless-log >/dev/winch; sleep 4; while :; do dd if=/dev/zero of=/dev/null bs=50M count=20; "
                   "done 2>/dev/null", symptoms=("panic_on_oom is enabled",)),
    _winch("large-frames", "stack-overflow", "Three functions with large local variables; the last one's are not the "
           "largest.", "winch_draw", symptoms=("stack guard page was hit", "double fault")),
    _winch("pinned-page", "hung-task", "A page of a file stays locked by a thread of a module that no waiter knows.",
           "winch_pin_page", **{**_HANG, "trigger": "echo pinned-page >/dev/winch; sleep 1; echo >/data/messages"}),
    _attic("empty-head", "null-dereference", "A list that was never set up is walked: its entry is NULL, less some.",
           "attic_count_boxes", symptoms=_PAGE_FAULT),
    _attic("freed-length", "use-after-free", "A length out of a freed object leads the kernel's checksum to no memory.",
           "attic_checksum", boot="slub_debug=P", symptoms=_PAGE_FAULT),
    _attic("freed-state", "use-after-free", "A byte out of a freed object chooses an entry of a table that is NULL.",
           "attic_describe", boot="slub_debug=P", symptoms=("NULL pointer dereference",)),
    _attic("unset-lid", "general-protection", "A member that nobody has set holds the poison of before.",
           "attic_close_lid", boot="slub_debug=P", symptoms=("general protection fault",)),
    _attic("new-tenant", "use-after-free", "A freed object is used, and is a text now.",
           "attic_visit_tenant", "attic_evict_tenant", boot="slub_debug=U", symptoms=("general protection fault",)),
    _attic("null-errand", "jump-to-null", "Work has no function; none of the driver's is on the stack.",
           symptoms=("NULL pointer dereference",)),
    _attic("kept-dust", "warn", "A timer's function leaves with a lock: the kernel warns when it has returned.",
           "attic_dust_tick", sysctls={"kernel.panic_on_warn": "1"}, symptoms=("preempt leak",)),
    _attic("cut-pointer", "bad-address", "A pointer is kept in 32 bits.", "attic_fetch_box", symptoms=_PAGE_FAULT),
    _attic("freed-dial", "use-after-free", "A sequence counter in a freed object is waited for, for ever.",
           "attic_read_dial", boot="slub_debug=P", kernels=("6.12",), **_LOCKUP),
    _attic("spilt", "use-after-free", "A tasklet lies in a freed object; none of the driver's functions has run it.",
           boot="slub_debug=P", symptoms=("general protection fault",)),
    _attic("lost-lamp", "use-after-free", "A timer lies in a freed object, at which a variable of the driver points.",
           boot="slub_debug=P", symptoms=("general protection fault",)),
    _attic("late-airing", "use-after-free", "Work lies in a freed object, and comes to its turn.",
           boot="slub_debug=P", symptoms=("general protection fault", "NULL pointer dereference")),
    _attic("no-show", "jump-to-null", "A file is read whose operations lack one; the kernel's own code calls it.",
           after="; cat /proc/attic", symptoms=("NULL pointer dereference",)),
    _attic("guest-left", "use-after-free", "A list's entry was freed; its memory is another one's, and cleared.",
           "cellar_count_likes", driver="cellar", symptoms=("NULL pointer dereference",)),
    _attic("no-sending", "jump-to-null", "A network device is sent by whose operations lack that.",
           driver="cellar", symptoms=("NULL pointer dereference",),
           after="; ip addr add 10.44.0.1/24 dev cellar0; ip link set cellar0 up; ping -c 1 -W 2 10.44.0.2"),
    _attic("text-tap", "general-protection", "A text that is too long runs over a function's address, which is called.",
           "cellar_turn_tap", driver="cellar", symptoms=("general protection fault",)),
    Fault("cgroup-oom", "out-of-memory", "A cgroup reaches its limit, on a system that panics then.", seconds=120,
          trigger="echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir /sys/fs/cgroup/small; "
                  "echo 32M >/sys/fs/cgroup/small/memory.max; echo 0 >/sys/fs/cgroup/small/memory.swap.max; "
                  "sh -c 'echo 0 >/sys/fs/cgroup/small/cgroup.procs; exec dd if=/dev/zero of=/dev/null bs=80M count=1'",
          sysctls={"vm.panic_on_oom": "2"}, symptoms=("compulsory panic_on_oom is enabled",)),
    Fault("out-of-memory", "out-of-memory", "A process takes all memory, on a system that panics then.",
          trigger="dd if=/dev/zero of=/dev/null bs=900M count=1", seconds=120,
          sysctls={"vm.panic_on_oom": "1", "vm.overcommit_memory": "1"},
          symptoms=("panic_on_oom is enabled",)),
    Fault("init-exit", "init-exit", "Process 1 ends.", trigger="sleep 1; exit 3", as_init=True,
          symptoms=("Attempted to kill init",)),
    Fault("nmi", "nmi", "An operator sends an NMI from the management board.",
          trigger="sleep 1000", monitor="nmi", sysctls={"kernel.unknown_nmi_panic": "1"},
          symptoms=("NMI: Not continuing",)),
    _driver("hard-lockup", "hard-lockup", "A thread spins with interrupts off; an operator sends an NMI.",
            "flaky_spin_irqs_off", trigger="echo spin-irqs-off >/proc/flaky", monitor="nmi", monitor_after=14,
            sysctls={"kernel.unknown_nmi_panic": "1", "kernel.watchdog_thresh": "5"},
            symptoms=("NMI: Not continuing",)),
    # Here the kernel notices by itself: arm64's kernels let a CPU look at the next one (HARDLOCKUP_DETECTOR_BUDDY).
    # x86's want a performance counter for that, which an emulated CPU lacks.
    _driver("hard-lockup-buddy", "hard-lockup", "A thread spins with interrupts off; the other processor notices.",
            "flaky_spin_irqs_off", "flaky_reporter", trigger="echo spin-irqs-off >/proc/flaky", seconds=300,
            sysctls={"kernel.hardlockup_panic": "1", "kernel.watchdog_thresh": "3"}, kernels=("6.12-arm64",),
            symptoms=("Hard LOCKUP",)),
    Fault("machine-check", "machine-check", "The memory controller reports an error that cannot be corrected.",
          trigger="sleep 1000", monitor="mce -b 1 4 0xbe00000000010091 0x5 0x1234a680 0x8c", flavour=PLAIN,
          symptoms=("Fatal machine check", "Machine check from unknown source", "Fatal local machine check")),
    Fault("machine-check-cache", "machine-check", "A cache of one processor reports an error; the others hear nothing.",
          trigger="sleep 1000", monitor="mce 0 1 0xb600000000000151 0x4 0x5000 0x0", flavour=PLAIN,
          symptoms=("Fatal machine check", "Fatal local machine check", "Not all CPUs entered")),
    Fault("recovered-error", "sysrq", "Seconds before an operator's crash, an error of the memory was survived.",
          trigger="sleep 5; echo c >/proc/sysrq-trigger", monitor="mce 0 4 0xbc00100000010091 0x5 0x1234a680 0x8c",
          flavour=PLAIN, kernels=("newest",), symptoms=("sysrq triggered crash",)),
    Fault("no-root", "no-root", "root= names a disk that is not there.", before_init=True, trigger="touch /go",
          boot="rdinit=/none root=/dev/vda1 rootfstype=xfs", symptoms=("Unable to mount root fs",)),
    Fault("no-init", "no-root", "The first program is of another machine, and init= names one that is gone.",
          before_init=True, trigger="touch /go", boot="rdinit=/init-elsewhere init=/sbin/gone",
          symptoms=("Requested init .* failed", "No working init found")),
    Fault("troubled", "sysrq", "Disks that do not answer, sockets that nobody reads, a node without memory, and more: "
          "what a diagnosis must find beside the cause.", driver="clog",
          trigger=(Path(__file__).parent / "guest_files" / "troubled").read_text().rstrip(), seconds=150,
          modules=("dm-multipath", "dm-round-robin", "raid1", "nfsv4", "scsi_debug", "sd_mod"), programs=("dmsetup",),
          hardware=(*_TWO_NODES, "-blockdev", "driver=null-co,node-name=empty,size=1048576,read-zeroes=on",
                    "-device", "nvme,drive=empty,serial=empty"), symptoms=("sysrq triggered crash",)),
    Fault("live", "none", "A healthy guest; QEMU writes its memory as ELF.", method="live-elf", trigger="sleep 1000"),
    Fault("live-kdump", "none", "A healthy guest; QEMU writes its memory as kdump-compressed, flattened.",
          method="live-kdump", trigger="sleep 1000"),
)

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})

ON_ARM64 = ("sysrq", "null-workqueue", "bug", "hung-task", "jump-to-null", "use-after-free", "list-corruption",
            "soft-lockup", "bad-address", "user-access", "deadlock", "write-to-readonly", "refcount",
            "general-protection")
"""Those that work on arm64's kernels too, beside those that name one."""
