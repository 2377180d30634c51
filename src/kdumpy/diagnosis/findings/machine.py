"""Checks of tasks, CPUs, stacks, file systems and the kernel's own state."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.findings.base import CRITICAL, INFO, WARNING, Check, Found, Machine
from kdumpy.errors import DamagedDump
from kdumpy.units import human_seconds

_LONG_WAIT = 120.0
"""Seconds; the kernel's own default for a hung task."""
_STACK_END_MAGIC = 0x57AC6E9D
"""include/uapi/linux/magic.h: the last word of a stack, which nobody may reach."""
_LONG_CHAIN = 20
_CROWD = 8
"""Tasks that wait for the same thing."""
_RT_PRIO = 100
"""MAX_RT_PRIO: lower priorities are real-time ones."""


def hung(machine: Machine) -> Iterator[Found]:
    """Tasks that wait uninterruptibly for long."""
    waits = machine.crash.waits
    long = [item for item in waits.blocked if (item.seconds or 0) > _LONG_WAIT] if waits else []
    if long:
        oldest = ", ".join(f"{item.task.comm} (pid {item.task.pid}) {human_seconds(item.seconds or 0)}"
                           for item in long[:3])
        yield Found(CRITICAL if len(long) > 1 else WARNING,
                    f"{len(long)} task{'s' if len(long) > 1 else ''} waited for more than {_LONG_WAIT:.0f} s",
                    f"the longest: {oldest}", "foreach UN bt")


def crowds(machine: Machine) -> Iterator[Found]:
    """Many tasks wait for one thing."""
    waits, waiting = machine.crash.waits, Counter[int]()
    known = {}
    for item in waits.blocked if waits else ():
        if item.waits_for and item.waits_for.address:
            known[item.waits_for.address] = item.waits_for
            waiting[item.waits_for.address] += 1
    for address, count in waiting.most_common():
        if count < _CROWD:
            return
        wait = known[address]
        yield Found(WARNING, f"{count} tasks wait for the {wait.kind} {wait.name}",
                    f"held by {wait.owner.comm} (pid {wait.owner.pid})" if wait.owner else "", "foreach UN bt")


def load(machine: Machine) -> Iterator[Found]:
    """More runs, or waits for disks, than the CPUs can serve."""
    average = machine.kernel.system.load
    if average is None:
        raise DamagedDump("the load averages cannot be read")
    if average[0] > 2 * machine.cpus:
        yield Found(CRITICAL if average[0] > 10 * machine.cpus else WARNING,
                    f"Load average of {average[0]:.1f} on {machine.cpus} CPUs", "over one minute", "sys")


def real_time(machine: Machine) -> Iterator[Found]:
    """Every CPU runs a real-time task: nothing else comes to run."""
    tasks = [cpu.task for cpu in machine.kernel.cpus]
    found = [machine.kernel.task_object(task.address) for task in tasks if task and task.pid]
    # The stopper and migration threads are real-time too, but only stop for a moment.
    busy = [task for task in found if int(task.prio.value_()) in range(_RT_PRIO)]
    if busy and len(busy) == len(tasks) > 1:
        names = ", ".join(task.comm.string_().decode("utf-8", "replace") for task in busy[:8])
        yield Found(CRITICAL, "Every CPU runs a real-time task", names, "runq")


def run_queues(machine: Machine) -> Iterator[Found]:
    """Many tasks wait for one CPU."""
    from drgn.helpers.linux.percpu import per_cpu

    from kdumpy.kernel.online import online_cpus

    prog = machine.kernel.prog
    long = [(cpu, count) for cpu in islice(online_cpus(prog), 1024)
            if (count := int(per_cpu(prog["runqueues"], cpu).nr_running.value_())) > 20]
    if long:
        cpu, count = max(long, key=lambda pair: pair[1])
        yield Found(WARNING, f"{count} tasks wanted to run on CPU {cpu}", command="runq")


def stacks(machine: Machine) -> Iterator[Found]:
    """A stack was used to its end, or something wrote over that."""
    prog = machine.kernel.prog
    at = drgn.offsetof(prog.type("struct task_struct"), "stack")
    told = machine.crash.task if machine.cause in ("stack-overflow", "stack-corruption") else None
    for task in machine.tasks:
        if told is not None and task.pid == told.pid:
            continue
        with contextlib.suppress(drgn.FaultError):
            end = prog.read_u64(task.address + at)
            if prog.read_u32(end) != _STACK_END_MAGIC:
                yield Found(CRITICAL, f"The end of the stack of {task.comm} (pid {task.pid}) was written over",
                            f"the mark {_STACK_END_MAGIC:#x} is gone: it overflowed", f"ps {task.pid}; rd -32 {end:x}")


def chains(machine: Machine) -> Iterator[Found]:
    """A long chain of processes, each a child of the one before: a script that calls itself."""
    parents: dict[int, int] = {}
    for task in machine.tasks:
        if task.pid == task.tgid:
            parents[task.pid] = task.parent
    depths: dict[int, int] = {}
    for pid in parents:
        path = []
        while pid in parents and pid not in depths and pid not in path:
            path.append(pid)
            pid = parents[pid]
        depth = depths.get(pid, 0)
        for step in reversed(path):
            depth += 1
            depths[step] = depth
    deepest = max(depths.values(), default=0)
    if deepest > _LONG_CHAIN:
        pid = max(depths, key=lambda item: depths[item])
        yield Found(WARNING, f"A chain of {deepest} processes, each started by the one before",
                    f"the last is pid {pid}", f"ps -p {pid}")


_SHOWN = re.compile(r"Tainted: ([A-Z ]+)")
_BY_CRASHES = frozenset("MBL")
"""Taints that a crash itself may set: of a machine check, of the allocators' checks, of a soft lockup."""


def taint(machine: Machine) -> Iterator[Found]:
    """What taints the kernel, beside what the crash itself set."""
    severities = {"M": CRITICAL, "B": CRITICAL, "S": WARNING, "F": WARNING, "R": WARNING, "L": WARNING, "C": INFO,
                  "P": INFO, "A": INFO, "K": INFO, "U": INFO, "I": INFO}
    event = machine.crash.event
    first = next((line for line in event.lines if "ainted" in line), None) if event else None
    shown = _SHOWN.search(first) if first else None
    before = (shown[1] if shown else "") if first else None
    for flag in machine.kernel.system.taints:
        # The event's own lines show the flags before it, for each is set after they are printed (kernel/panic.c,
        # print_tainted(); add_taint() in mm/slub.c, kernel/watchdog.c): what stands there no more was set by the crash.
        own = flag[0] in _BY_CRASHES and (flag[0] not in before if before is not None
                                          else machine.cause == "machine-check")
        if flag[0] in severities and not own:
            yield Found(severities[flag[0]], f"The kernel is tainted: {flag[3:]}", f"taint flag {flag[0]}", "sys -t")


def died_before(machine: Machine) -> Iterator[Found]:
    """The kernel had survived an oops."""
    if machine.crash.ended_later and machine.crash.event:
        yield Found(CRITICAL, "The kernel had survived an oops before it died", machine.crash.event.text, "log")


def offline(machine: Machine) -> Iterator[Found]:
    """CPUs that are there, and off."""
    from drgn.helpers.linux.cpumask import num_present_cpus

    present = int(num_present_cpus(machine.kernel.prog))
    if present > machine.cpus:
        yield Found(INFO, f"{present - machine.cpus} of {present} CPUs are offline", command="sys")


def foreign_modules(machine: Machine) -> Iterator[Found]:
    """Modules that are not of this kernel."""
    with contextlib.suppress(*READ_ERRORS):
        names = [module.name for module in machine.kernel.modules if "O" in module.taints]
        if names:
            many = "s were" if len(names) > 1 else " was"
            yield Found(INFO, f"{len(names)} module{many} built outside of the kernel", ", ".join(names[:12]), "mod -t")


_TASKS = ("struct task_struct", "variable init_task")
CHECKS = (
    Check("hung tasks", hung, _TASKS), Check("contended locks", crowds, _TASKS),
    Check("load", load, ("variable avenrun",)), Check("real-time tasks", real_time, _TASKS),
    Check("run queues", run_queues, ("variable runqueues",)), Check("stack ends", stacks, _TASKS),
    Check("process chains", chains, _TASKS), Check("taint", taint, ("variable tainted_mask",)),
    Check("earlier oops", died_before), Check("offline CPUs", offline, ("variable __cpu_present_mask",)),
    Check("foreign modules", foreign_modules, ("variable modules",)),
)
