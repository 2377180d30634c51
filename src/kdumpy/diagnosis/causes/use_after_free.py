"""An object was used after it was freed."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.advice import tracking_advice
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.checked import checked_object, lies, of_freed
from kdumpy.diagnosis.crashed.derived import Read, freed_read, is_cleared_entry, never_set
from kdumpy.diagnosis.crashed.freed import FreedObject, given_out_anew, lost_work, owner_by_cache, who_freed
from kdumpy.diagnosis.crashed.loops import freed_in_loop
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.crashed.referrers import module_that_knows
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import Meaning, Meant, index_meaning, meaning
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.onnostack import queue_owner
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.spinblame import spin_evidence, spins_of
from kdumpy.units import human_seconds

_FREED = (Meaning.FREED, Meaning.LIST_POISON)
_REGISTERS = 2
"""Registers that lead to an object with which code works; a single one may hold what came before."""


class UseAfterFree(Cause):
    """A pointer taken from a freed object was followed, or called."""

    kind = "use-after-free"
    outranks = ("general-protection", "bad-address", "jump-to-null", "nx-execute", "null-dereference", "user-access",
                "write-to-readonly", "soft-lockup", "hard-lockup", "rcu-stall")

    def match(self, crash: Crash) -> Finding | None:
        """Match the poison with which the kernel fills freed objects, or the report of a sanitizer."""
        if crash.told(Kind.SANITIZER) and crash.event and "use-after-free" in crash.event.text:
            return self._reported(crash)
        if crash.told(Kind.RCU, Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP):
            return self._of_freed_lock(crash) or self._of_freed_loop(crash)
        if crash.told(Kind.LIST):
            return self._of_checked_entry(crash)
        lost = self._of_lost_work(crash)
        if lost is not None or not crash.told(Kind.PROTECTION, Kind.PAGE_FAULT, Kind.NULL):
            return lost
        nowhere = crash.event.nowhere if crash.event else None
        per_cpu = crash.instruction.per_cpu if crash.instruction else ()
        root = crash.reader.root if crash.reader else None
        values = [nowhere, crash.pointer, root, crash.address, *per_cpu]
        found = next((meant for value in values if value is not None
                      and (meant := meaning(value)).meaning in _FREED), None)
        index = None if found else _freed_index(crash)
        found = found or index
        holder = crash.reader.holder if crash.reader else None
        freed = holder is not None and holder.state == "freed"
        if found is not None and found.meaning == Meaning.FREED and never_set(crash):
            return None
        # Without slub_debug nothing is poisoned, but the allocator still knows that the object is free.
        if found is None and freed and crash.pointer is not None:
            found = Meant(Meaning.KERNEL, f"it held {crash.pointer:#x}")
        if found is None:
            read = freed_read(crash)
            return self._of_number(crash, read) if read is not None else \
                self._of_reused(crash) or self._of_left(crash) or self._of_cleared(crash)
        called = nowhere is not None
        own, left = self._user(crash)
        words = Words(crash, own.frame)
        place, register = (holder, "") if holder and freed else (crash.left_object.object, crash.left_object.register) \
            if crash.left_object else (None, "")
        what = "called a function pointer" if called else "used an index" if index else "followed a pointer"
        off_list = found.meaning == Meaning.LIST_POISON
        freer = left is not None and crash.kernel is not None and own.frame is not None \
            and who_freed(crash.kernel, left).frame == own.frame
        runs = next((frame.function for frame in crash.below_fault if frame.function), None)
        user = words.name if left is None else f"The kernel's own {runs}()" if runs else "Code"
        return Finding(
            title=words.titled("Use of a list entry after its removal" if off_list else "Use after free"),
            # That it was freed is as sure where only the kernel's own code is known; whose bug it is, is not.
            confidence=CERTAIN if found.meaning == Meaning.FREED and not index and (
                freer or (own.frame and own.frame.module and left is None)) else LIKELY,
            explanation=words.paragraph(
                f"{user} {what} out of an object that had already been "
                + ("taken off its list" if off_list else "freed") + f" ({found.words}).",
                f"The pointer came from {holder.words}." if holder and freed else
                f"The register {register} leads to {place.words}." if place and left is None else "",
                f"It is {left.object.words}; {words.name} freed it while the kernel still knew it: a timer, work or a "
                "callback in it was not cancelled before." if left and freer else
                f"It is {left.object.words}; a timer, work or a callback in it was not cancelled before it was freed."
                if left else _freed_by(crash, place), words.where, words.blame),
            evidence=[*crash.evidence.log(), *(crash.evidence.call() if called else crash.evidence.instruction()),
                      *(crash.evidence.object(f"what the register {register} leads to", place)
                        if place and register else ()),
                      Evidence("the index" if index else "the pointer", found.words, crash.evidence.command("bt")),
                      *crash.evidence.stack()],
            next=[] if off_list else tracking_advice(crash, place),
            culprit=own.frame, decisions=own.decisions, subtype="call" if called else "follow")

    @staticmethod
    def _user(crash: Crash) -> tuple[culprit.Choice, FreedObject | None]:
        """Choose who used the object; where only the kernel's own code is on the stack, who freed it."""
        own, left = crash.own, crash.left_object
        if crash.kernel is None or left is None or (own.frame is not None and own.frame.module and not own.doubtful):
            return own, None
        freed = who_freed(crash.kernel, left)
        if freed.frame is None:             # the allocator was not told to remember
            named = owner_by_cache(crash.kernel, left.object)
            if named.frame is None:
                named = module_that_knows(crash.kernel, left.object)
            if named.frame is None:
                named = queue_owner(crash)
            return (named if named.frame else own), left
        if own.frame is None or (freed.frame is not None and freed.frame.module):
            return freed, left
        return own, None

    @staticmethod
    def _of_reused(crash: Crash) -> Finding | None:
        """Match a pointer out of an object that was freed by the one who used it, and given out to somebody else."""
        place = crash.reader.holder if crash.reader else None
        if crash.kernel is None or place is None or not given_out_anew(crash.kernel, place, crash.own_frame):
            return None
        own = crash.own
        if own.frame is None or own.frame.module is None:
            own = who_freed(crash.kernel, FreedObject((crash.reader.register if crash.reader else None) or "", place))
        words = Words(crash, own.frame)
        meant = crash.pointer_meaning
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{words.name} used what it had freed, and what is somebody else's now"
                + (f": it read {meant.words}" if meant else "") + ".", f"That came from {place.words}.",
                _freed_by(crash, place), words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      *crash.evidence.object("where the pointer was read", place), *crash.evidence.stack()],
            culprit=own.frame, decisions=own.decisions, subtype="follow")

    @staticmethod
    def _of_cleared(crash: Crash) -> Finding | None:
        """Match a NULL out of an entry of a list that is all zeroes, its link to the list too."""
        place = crash.reader.holder if crash.reader else None
        if place is None or not is_cleared_entry(crash):
            return None
        words = Words(crash, crash.own_frame)
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{words.name} read a pointer out of an entry that it had reached by a list: {place.words}.",
                "Every byte there is 0, and so is its link, which a list still leads to: its memory was freed, and was "
                "given out anew and cleared.", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      *crash.evidence.object("where the pointer was read", place), *crash.evidence.stack()],
            next=tracking_advice(crash, place), culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="cleared")

    def _of_left(self, crash: Crash) -> Finding | None:
        """Match a fault of the kernel's own code while it works on a freed object that it still knew.

        What it read there need not be what it used: a flag that poison has not set makes a pointer NULL.
        """
        if crash.own.frame is not None and crash.own.frame.module and not crash.own.doubtful:
            return None
        own, left = self._user(crash)
        if left is None or left.times < _REGISTERS or crash.kernel is None:
            return None
        words = Words(crash, own.frame)
        freer = own.frame is not None and who_freed(crash.kernel, left).frame == own.frame
        runs = next((frame.function for frame in crash.below_fault if frame.function), None)
        user = f"The kernel's own {runs}()" if runs else "Code"
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{user} worked on an object that had already been freed: "
                f"{left.object.words}.",
                f"{words.name} freed it while the kernel still knew it." if freer else "",
                "A timer, work or a callback in it was not cancelled before it was freed.", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      *crash.evidence.object(f"what the register {left.register} leads to", left.object),
                      *crash.evidence.stack()],
            next=tracking_advice(crash, left.object), culprit=own.frame, decisions=own.decisions, subtype="left")

    @staticmethod
    def _of_number(crash: Crash, read: Read) -> Finding:
        """Return the finding of a number that was read out of a freed object, and led to the fault."""
        words = Words(crash, crash.own_frame)
        where = f"where {read.function}() read it" if read.function else "where it was read"
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{words.name} used a value that was read out of an object that had already been freed: "
                f"{read.place.words}.", "It was an index, a length, or a part of an address, and what came of it is "
                "what the processor refused.", _freed_by(crash, read.place), words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      Evidence("what was read", f"`{read.instruction}` in {read.function}()",
                               crash.evidence.command(*(f"dis {code}" for code in
                                                        filter(None, (crash.evidence.code(read.function),))),
                                                      f"rd {read.place.address:x}")),
                      *crash.evidence.object(where, read.place), *crash.evidence.stack()],
            next=tracking_advice(crash, read.place), culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="value")

    @staticmethod
    def _of_checked_entry(crash: Crash) -> Finding | None:
        """Match an entry that the kernel's check of lists found broken because it lies in a freed object."""
        place = checked_object(crash)
        if not of_freed(place):
            return None
        words = Words(crash, crash.own_frame)
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{words.name} took an entry off a list, and the entry {lies(place)}: its pointers are gone.",
                _freed_by(crash, place), words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.checked(place), *crash.evidence.stack()],
            next=tracking_advice(crash, place), culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="entry")

    @staticmethod
    def _of_freed_lock(crash: Crash) -> Finding | None:
        """Match a CPU that spins for a spinlock in a freed object, which nobody will ever give back."""
        for spin in spins_of(crash):
            place = pointee(crash.kernel, spin.address) if crash.kernel and spin.address and not spin.holder else None
            if place is None or place.kind != "slab" or place.state != "freed":
                continue
            choice = culprit.choose(spin.frames)
            words = Words(crash, choice.frame)
            return Finding(
                title=words.titled("Use after free"), confidence=LIKELY,
                explanation=words.paragraph(
                    f"CPU {spin.cpu.number}, in {words.name}, spins for a {spin.kind} that lies in a freed object: "
                    f"{place.words}.", "What is there is no lock any more, and never becomes free.",
                    _freed_by(crash, place), words.blame),
                evidence=[*crash.evidence.log(), *spin_evidence(crash, spin),
                          *crash.evidence.object("where the lock was", place)],
                next=tracking_advice(crash, place), culprit=choice.frame, decisions=choice.decisions,
                trace=spin.frames, trace_task=spin.cpu.task, subtype="lock")
        return None

    @staticmethod
    def _of_freed_loop(crash: Crash) -> Finding | None:
        """Match a CPU that loops over a freed object: what it waits for there, or the end of a list, never comes."""
        if crash.kernel is None or crash.waits is None:
            return None
        for cpu in crash.kernel.cpus:
            found = freed_in_loop(crash.kernel, crash.waits.holders, cpu)
            if found is None:
                continue
            place, frames = found
            choice = culprit.choose(frames)
            words = Words(crash, choice.frame)
            return Finding(
                title=words.titled("Use after free"), confidence=LIKELY,
                explanation=words.paragraph(
                    f"CPU {cpu.number} loops in {words.name} over an object that had already been freed: "
                    f"{place.words}.", "What it waits for there never comes, or the list never ends.",
                    _freed_by(crash, place), words.blame),
                evidence=[*crash.evidence.log(), *crash.evidence.object("what the loop reads", place),
                          *crash.evidence.stack("where the CPU was", frames, cpu)],
                next=tracking_advice(crash, place), culprit=choice.frame, decisions=choice.decisions, trace=frames,
                trace_task=cpu.task, subtype="loop")
        return None

    @staticmethod
    def _of_lost_work(crash: Crash) -> Finding | None:
        """Match a pointer that was read out of the object of the work that runs, which is no work any more.

        The object was freed while its work ran, and may have been given out and filled anew: nothing but that tells.
        """
        if not crash.faulted or crash.kernel is None or crash.task is None \
                or not (crash.context or "").startswith("a work queue"):
            return None
        place = lost_work(crash.kernel, crash.task.address)
        holder = crash.reader.holder if place and crash.reader else None
        if place is None or holder is None or place.object != holder.object:
            return None
        words = Words(crash, crash.own_frame)
        return Finding(
            title=words.titled("Use after free"), confidence=LIKELY,
            explanation=words.paragraph(
                f"{words.name} followed a pointer out of the object in which the work lies that it runs: "
                f"{holder.words}.", "That is no work any more: the object was freed while its work ran"
                + ("." if holder.state == "freed" else ", and its memory was given out anew."),
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      *crash.evidence.object("where the pointer was read", holder), *crash.evidence.stack()],
            next=["Wait for the end of the work before its object is freed (cancel_work_sync()), or let the work hold "
                  "a reference on it.", *tracking_advice(crash, holder)],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype="follow")

    def _reported(self, crash: Crash) -> Finding:
        words = Words(crash, crash.own_frame)
        return Finding(
            title=words.titled("Use after free"), confidence=CERTAIN,
            explanation=words.paragraph(
                f"The kernel's memory checker saw {words.name} use an object that had already been freed.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype="reported")


def _freed_index(crash: Crash) -> Meant | None:
    """Say that a part of the address is a poison that was used as an index; None where it is not."""
    operand = crash.operand
    values = (operand.index_value, operand.base_value) if operand and operand.index else ()
    return next((meant for value in values if value is not None and (meant := index_meaning(value)) is not None
                 and meant.meaning == Meaning.FREED), None)


def _freed_by(crash: Crash, place: Pointee | None) -> str:
    """Say who freed an object, where the allocator was told to remember that."""
    if crash.kernel is None or place is None:
        return ""
    frame = who_freed(crash.kernel, FreedObject("", place)).frame
    track = next((item for item in place.tracks if item.event == "freed"), None)
    if frame is None or track is None:
        return ""
    before = f", {human_seconds(track.seconds_before)} before the crash" if track.seconds_before is not None else ""
    return f"It was freed in {Words(crash, frame).name} by process {track.pid}{before}."
