"""A task waited too long."""

from __future__ import annotations

from collections.abc import Sequence

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Unjudged, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.diskdriver import DiskDriver, disk_of_page, disk_of_request
from kdumpy.diagnosis.evidence import in_a_line
from kdumpy.diagnosis.model import OWNED, Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.left import Left, giver_twice, left_by
from kdumpy.diagnosis.waits.locks import BlockedTask, LockWait
from kdumpy.diagnosis.waits.waiting import SOCKET_LOCK
from kdumpy.diagnosis.waits.waitwords import by_whom, holds, others_wait, wait_evidence, wait_kind, waited_for
from kdumpy.kernel.values import Frame, Task

_FAMILIES = (("synchronize_rcu", "rcu"), ("synchronize_srcu", "srcu"), ("rtnl_lock", "rtnl"), ("io_schedule", "io"))
"""What many unrelated tasks hang in together; each is a family of its own when crashes are grouped."""

_OTHERS = {"work": "the work that it waits for is still in {}", "RCU": "an RCU grace period waits for {}"}
"""What is waited for that nobody holds: the rest of the title, with the function that is to bring it about."""
_SLOW = ("io_schedule", "bio_", "submit_bio", "blk_", "rpc_", "nfs", "sk_wait", "tcp_", "wait_on_page", "folio_wait")
"""Beginnings of functions that wait for storage or the network, which may only be slow."""


class HungTask(Cause):
    """A task was in uninterruptible sleep for longer than the kernel is set to accept."""

    kind = "hung-task"

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Match the watchdog of hung tasks; with the dump, name the lock and who holds it."""
        if not crash.told(Kind.HUNG) or crash.event is None or crash.event.task is None:
            return None
        pid, comm = crash.event.task
        blocked = crash.waits.of_pid(pid) if crash.waits else None
        if crash.event.inferred:                # the log does not name the task: the one that waits longest
            blocked = next(iter(crash.waits.blocked), None) if crash.waits else None
            if blocked is None:
                return Unjudged("neither the log nor the dump shows a task that waits")
            pid, comm = blocked.task.pid, blocked.task.comm
        frames = crash.with_tail_calls(blocked.stack.frames) if blocked else ()
        frames = frames or crash.log_stack
        wanting = crash.waits.holders.wanting(frames, blocked.waits_for.kind) \
            if crash.waits and blocked and blocked.waits_for else frames
        waiting = culprit.choose(wanting)
        waiter = Words(crash, waiting.frame)
        first = blocked.waits_for if blocked else None
        links = crash.waits.chain(blocked) if crash.waits and blocked else []
        last = links[-1] if links else blocked
        lock = last.waits_for if last else None
        owner = lock.owner if lock else None
        held_by = self._stack_of(crash, owner) if owner else ()
        holder = culprit.choose(held_by) if held_by else None
        unnamed = lock is not None and (lock.left or lock.kind in ("semaphore", SOCKET_LOCK))
        left = left_by(crash.waits, lock, last.stack.frames, owner, held_by) \
            if crash.waits and lock and last and (held_by or unnamed) else None
        twice = None
        if lock and lock.over and last and crash.waits:
            twice = giver_twice(crash.waits, lock, last.stack.frames)
            waiting = culprit.Choice(twice, (*waiting.decisions, f"chosen: {twice.function}, which can give the lock "
                                             "back twice")) if twice else waiting
        if left:
            holder, held_by = None, ()
            waiting = self._leaver(left, culprit.choose(crash.with_tail_calls(last.stack.frames)) if last else waiting)
        # The owner is to blame, not the one who waits, unless the owner's stack says nothing.
        chosen = holder if holder and holder.frame else waiting
        nobody = chosen is waiting and (waiting.frame is None or waiting.frame.module is None)
        disk = self._disk(crash, lock) if nobody else None
        if disk is not None:
            chosen = culprit.Choice(disk.frame, (*waiting.decisions, f"chosen: the module {disk.frame.module}, which "
                                                 f"drives the disk {disk.disk}: what is waited for is its answer"))
        words = Words(crash, chosen.frame)
        seconds = crash.event.seconds_stuck
        told = [f"The task {comm} (pid {pid}) waited "
                + (f"for more than {seconds} seconds" if seconds is not None else "too long")
                + f" in {waiter.name} and could not be interrupted."]
        told += [_on_the_way(item) for item in ([blocked, *links[:-1]] if links and blocked else [])]
        if lock and owner:
            back = "give it back" if lock.kind in OWNED else "come to its end"
            who = f"{last.task.comm} (pid {last.task.pid})" if links and last else "It"
            told.append(f"{who} waits for the {waited_for(lock)}{by_whom(lock)}"
                        + (f"; that task is in {words.name} and does not {back}." if holder else
                           f"; no code on that task's stack has it: it was left locked on a way out of the module "
                           f"{left.module}." if left else "."))
        elif disk is not None:
            told.append(f"It waits until the disk {disk.disk} has written or read a page; its driver, the module "
                        f"{disk.frame.module}, or the disk itself has not answered.")
        elif lock:
            told.append(f"It waits for the {waited_for(lock)}"
                        + (f"; {lock.note}" + (f", and {words.name} can give it back twice." if twice else ".")
                           if lock.over else
                           "; the task that took it has ended and did not give it back." if lock.left else
                           "; who holds it cannot be told." if lock.kind in OWNED else
                           ", which waits for its readers; "
                           f"{lock.note or 'how many there are the dump does not tell'}." if lock.kind == "SRCU" else
                           "; whom it waits for the dump does not tell."))
        if left and left.frame:
            told.append(f"{left.frame.function}() takes it, and has a way out on which it does not give it back.")
        if blocked is not None and crash.waits is not None:
            told.append(others_wait(crash.waits.blocked, blocked,
                                    [*(item.task for item in links), *([owner] if owner else [])]))
        told.append("The kernel would have gone on, but it is set to panic then (kernel.hung_task_panic).")
        certain = bool(lock and owner and lock.certain and holder and first and first.certain
                       and all(item.waits_for and item.waits_for.certain for item in links))
        return Finding(
            title=(_title(lock, words) if lock and holder and holder.frame
                   else f"A task hung: the disk {disk.disk} does not answer [{disk.frame.module}]" if disk
                   else words.titled("A task hung")),
            confidence=CERTAIN if certain else LIKELY,
            explanation=" ".join(filter(None, told)),
            evidence=[*crash.evidence.log(), *wait_evidence(crash, blocked),
                      *(shown for item in links for shown in wait_evidence(crash, item)),
                      *self._owner_evidence(crash, owner, held_by)],
            next=[*([f"Look for a way out of the code that takes the {wait_kind(lock)} and does not give it back: a "
                     "return before the unlock."] if lock and (lock.left or left) else
                    [] if certain and _has_only_the_lock(lock, holder, held_by) else
                    ["If the wait was for slow storage or network and not for a bug, raise "
                     "kernel.hung_task_timeout_secs."]),
                  *(["In the shell, `foreach UN bt` shows where every task waits."]
                    if crash.waits and len(crash.waits.blocked) > 1 else [])],
            culprit=chosen.frame, decisions=chosen.decisions, trace=held_by or frames,
            trace_task=owner if held_by else blocked.task if blocked else None,
            key=disk.frame if disk else self._key(held_by, owner, waiting.frame), subtype=self._family(frames))

    @staticmethod
    def _leaver(left: Left, waiting: culprit.Choice) -> culprit.Choice:
        """Return who is to blame for a lock that was left locked: who can return with it, else who waits for it."""
        if left.frame is None:
            return waiting
        return culprit.Choice(left.frame, (*waiting.decisions, f"chosen: {left.frame.function} [{left.module}], which "
                                           "can return without giving the lock back"))

    @staticmethod
    def _disk(crash: Crash, lock: LockWait | None) -> DiskDriver | None:
        """Return the disk whose answer is waited for, where a page or a request of it is."""
        if crash.kernel is None or lock is None or lock.owner or not lock.address:
            return None
        if lock.kind == "I/O":
            return disk_of_request(crash.kernel, lock.address)
        return disk_of_page(crash.kernel, lock.address) if lock.kind == "page lock" else None

    @staticmethod
    def _key(held_by: tuple[Frame, ...], owner: Task | None, waiting: Frame | None) -> Frame | None:
        """Choose what names the hang: a stack that sleeps stays as it is, one that runs is only known by its origin."""
        if owner is None or not held_by:
            return waiting
        return (culprit.above_anchor(held_by) if owner.on_cpu else culprit.choose(held_by)).frame or waiting

    @staticmethod
    def _stack_of(crash: Crash, task: Task) -> tuple[Frame, ...]:
        return crash.with_tail_calls(crash.kernel.stack(task).frames) if crash.kernel else ()

    @staticmethod
    def _owner_evidence(crash: Crash, owner: Task | None, frames: tuple[Frame, ...]) -> list[Evidence]:
        if owner is None or not frames:
            return []
        names = in_a_line(frames)
        return [Evidence(f"what the owner does ({owner.comm}, state {owner.state})", names,
                         crash.evidence.command(f"bt {owner.pid}"))]

    @staticmethod
    def _family(frames: tuple[Frame, ...]) -> str:
        names = [str(frame.function) for frame in frames]
        return next((family for start, family in _FAMILIES if any(name.startswith(start) for name in names)), "")


def _on_the_way(item: BlockedTask) -> str:
    """Say what a task waits for, in the middle of a chain of tasks that wait."""
    lock = item.waits_for
    if lock is None or lock.owner is None:
        return ""
    return (f"{item.task.comm} (pid {item.task.pid}) waits for the {waited_for(lock)}{by_whom(lock)}; that one waits, "
            "too.")


def _title(lock: LockWait, words: Words) -> str:
    """Return the title where the task is known that another one waits for."""
    if lock.kind in OWNED or holds(lock) in ("has", "holds"):
        return f"A task hung: {words.short} holds its lock and does not give it back"
    return "A task hung: " + _OTHERS.get(lock.kind, "it waits for what {} is to bring about").format(words.short)


def _has_only_the_lock(lock: LockWait | None, holder: culprit.Choice | None, frames: Sequence[Frame]) -> bool:
    """Tell whether code of a module keeps a lock, and nothing slow that could still be waited for is on its stack."""
    return bool(lock and lock.kind in OWNED and holder and holder.frame and holder.frame.module
                and not any((frame.function or "").startswith(_SLOW) for frame in frames))
