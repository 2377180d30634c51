"""Checks of work that is put off: work queues, RCU, timers.

Sources: kernel/workqueue.c, kernel/rcu/tree.h, kernel/time/timer.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import drgn
from drgn.helpers.linux.idr import idr_for_each
from drgn.helpers.linux.list import list_empty, list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.diagnosis.findings.base import WARNING, Check, Found, Machine, text
from kdumpy.diagnosis.waits.waiting import Waiters
from kdumpy.kernel.tasks import task_value
from kdumpy.units import human_seconds

_MOST_POOLS, _MOST_QUEUES, _MOST_WORKS = 65_536, 65_536, 4096
_STALLED = 30
"""Seconds: wq_watchdog_thresh as kernels have it; used where the kernel was built without that watchdog."""
_ASLEEP = 5.0
"""Seconds that all workers of a queue sleep while works wait behind theirs."""
_OVERDUE = 3.0
"""Seconds that a timer waits for a CPU to come to it."""


def _name(machine: Machine, function: drgn.Object) -> str:
    try:
        return str(machine.kernel.prog.symbol(function.value_()).name).split(".")[0] + "()"
    except LookupError:
        return f"{function.value_():#x}"


def _count(head: drgn.Object) -> str:
    number = sum(1 for _ in islice(list_for_each_entry("struct work_struct", head.address_of_(), "entry"), _MOST_WORKS))
    return f"{number} works wait" if number > 1 else "1 work waits"


def pools(machine: Machine) -> Iterator[Found]:
    """A pool of workers has work and does not come to it: the kernel's own "workqueue lockup"."""
    prog, limit = machine.kernel.prog, float(_STALLED)
    if machine.has("wq_watchdog_thresh"):
        limit = float(prog.read_u64(prog.symbol("wq_watchdog_thresh").address) or _STALLED)
    for number, entry in islice(idr_for_each(prog["worker_pool_idr"].address_of_()), _MOST_POOLS):
        pool = drgn.cast("struct worker_pool *", entry)
        if list_empty(pool.worklist.address_of_()):
            continue
        # Newer kernels (seen in 7.2) call it last_progress_ts.
        progress = pool.watchdog_ts if pool.type_.type.has_member("watchdog_ts") else pool.last_progress_ts
        stood = machine.seconds_since(int(progress.value_()))
        if stood < limit:
            continue
        cpu = int(pool.cpu.value_())
        first = next(iter(list_for_each_entry("struct work_struct", pool.worklist.address_of_(), "entry")))
        yield Found(WARNING, f"The workers of {f'CPU {cpu}' if cpu >= 0 else f'pool {number}'} did nothing for "
                             f"{human_seconds(stood)}",
                    f"{_count(pool.worklist)}, the first is {_name(machine, first.func)}; "
                    f"{int(pool.nr_workers.value_())} workers, {int(pool.nr_idle.value_())} idle",
                    f"struct worker_pool {pool.value_():x}")


def queues(machine: Machine) -> Iterator[Found]:
    """A work queue runs as many works as it may, and all of them sleep: those behind wait for ever."""
    prog = machine.kernel.prog
    waits = machine.crash.waits
    for queue in islice(list_for_each_entry("struct workqueue_struct", prog["workqueues"].address_of_(), "list"),
                        _MOST_QUEUES):
        for pwq in islice(list_for_each_entry("struct pool_workqueue", queue.pwqs.address_of_(), "pwqs_node"),
                          _MOST_POOLS):
            # f97a4a1a3f87 "workqueue: Rename "delayed" (delayed by active management) to "inactive"" (5.15)
            behind = pwq.inactive_works if pwq.type_.type.has_member("inactive_works") else pwq.delayed_works
            if list_empty(behind.address_of_()) or waits is None:
                continue
            running = [worker for worker in _workers(pwq.pool) if worker.current_pwq.value_() == pwq.value_()]
            sleeping = [(worker, waits.sleeper(task_value(worker.task))) for worker in running]
            slept = [item.seconds or 0 for _, item in sleeping if item is not None]
            if not running or len(slept) < len(running) or min(slept) < _ASLEEP:
                continue
            worker = running[0]
            yield Found(WARNING, f"The work queue {text(queue.name)} "
                                 f"stands still for {human_seconds(min(slept))}",
                        f"{_count(behind)} behind {_name(machine, worker.current_func)}, which "
                        f"{text(worker.task.comm)} "
                        f"(pid {int(worker.task.pid.value_())}) runs and sleeps in",
                        f"bt {int(worker.task.pid.value_())}; struct worker.current_func {worker.value_():x}; "
                        f"struct workqueue_struct.name {queue.value_():x}")


def _workers(pool: drgn.Object) -> Iterator[drgn.Object]:
    return islice(list_for_each_entry("struct worker", pool.workers.address_of_(), "node"), _MOST_WORKS)


def grace_period(machine: Machine) -> Iterator[Found]:
    """An RCU grace period goes on for longer than the kernel itself takes for right."""
    prog = machine.kernel.prog
    state = prog["rcu_state"]
    if not int(state.gp_seq.value_()) & 3:
        return
    limit = prog.read_u32(prog.symbol("rcu_cpu_stall_timeout").address)
    lasted = machine.seconds_since(int(state.gp_start.value_()))
    if not limit or lasted < limit:
        return
    cpus = Waiters(machine.kernel).late_cpus()
    listed = ", ".join(map(str, cpus[:16]))
    yield Found(WARNING, f"An RCU grace period goes on for {human_seconds(lasted)}",
                f"it waits for CPU{'s' if len(cpus) > 1 else ''} {listed}" if cpus else
                "every CPU was through; the thread that ends it did not come to run", "bt -a")


def timers(machine: Machine) -> Iterator[Found]:
    """A CPU does not come to its timers: its interrupts are off, or its softirqs do not run."""
    for cpu in machine.kernel.cpus:
        if cpu.panicked:                # it prints the panic, with its interrupts off
            continue
        base = per_cpu(machine.kernel.prog["timer_bases"], cpu.number)[0]
        if base.is_idle or (base.type_.has_member("timers_pending") and not base.timers_pending):
            continue
        ticks = (machine.jiffies - int(base.next_expiry.value_())) % (1 << 64)
        if ticks < 1 << 40 and ticks / machine.ticks >= _OVERDUE:
            yield Found(WARNING, f"CPU {cpu.number} ran no timers for {human_seconds(ticks / machine.ticks)}",
                        f"it was {cpu.doing}", f"bt -c {cpu.number}")


def calls(machine: Machine) -> Iterator[Found]:
    """A CPU waits for another one to run a function, and that one does not."""
    prog = machine.kernel.prog
    asking = [cpu for cpu in machine.kernel.cpus
              if any((frame.function or "").startswith(("smp_call_function", "csd_lock_wait"))
                     for frame in cpu.stack.frames)]
    for cpu in machine.kernel.cpus if asking else ():
        # Who panics has its interrupts off: it was asked just then.
        if cpu.panicked or all(other.number == cpu.number for other in asking):
            continue
        if per_cpu(prog["call_single_queue"], cpu.number).first:
            by = ", ".join(f"CPU {other.number}" for other in asking if other.number != cpu.number)
            yield Found(WARNING, f"CPU {cpu.number} does not do what other CPUs asked it for",
                        f"{by} waits for it; it was {cpu.doing}", f"bt -c {cpu.number}")


CHECKS = (
    Check("worker pools", pools, ("variable worker_pool_idr", "struct worker_pool")),
    Check("work queues", queues, ("variable workqueues", "struct pool_workqueue")),
    Check("RCU", grace_period, ("variable rcu_state", "symbol rcu_cpu_stall_timeout"), of_a_cpu=True),
    Check("timers", timers, ("variable timer_bases",), of_a_cpu=True),
    Check("function calls", calls, ("variable call_single_queue",), of_a_cpu=True),
)
