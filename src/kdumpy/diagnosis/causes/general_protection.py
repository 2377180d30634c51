"""A value that is no address was used as one."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.derived import never_set
from kdumpy.diagnosis.memory import Meaning, meaning
from kdumpy.diagnosis.oops import Kind

_NO_ADDRESS = (Meaning.NON_CANONICAL, Meaning.TEXT, Meaning.UNINITIALISED)
_NEVER_FREED = ("kernel data", "module data", "per-cpu")


class GeneralProtection(Cause):
    """The processor refused an instruction: nearly always, a pointer was no address at all."""

    kind = "general-protection"
    outranks = ("bad-address",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the kernel's report of the exception; on arm64, a page fault on what is no address."""
        refused = crash.told(Kind.PROTECTION)
        if not refused and not (crash.told(Kind.PAGE_FAULT) and crash.machine == "aarch64"
                                and crash.pointer_meaning is not None
                                and crash.pointer_meaning.meaning in (Meaning.NON_CANONICAL, Meaning.TEXT)
                                and _in_no_range(crash.pointer or 0)):
            return None
        words = Words(crash, crash.own_frame)
        nowhere = crash.event.nowhere if crash.event else None
        meant = crash.pointer_meaning if nowhere is None else meaning(nowhere, crash.page_levels)
        unset = meant is not None and meant.meaning == Meaning.FREED and never_set(crash)
        bad = unset or (meant is not None and meant.meaning in _NO_ADDRESS)
        value = f"The value was {meant.words}." if meant and bad else ""
        holder = crash.reader.holder if crash.reader else None
        place_is_sure = holder is not None and holder.kind in _NEVER_FREED
        return Finding(
            title=words.titled("General protection fault" if refused else "Use of a pointer that is no address"),
            # An object that lives may be another one than the pointer was kept in: one freed, and given out anew.
            confidence=CERTAIN if bad and not unset and place_is_sure else LIKELY,
            explanation=words.paragraph(
                f"{words.name} {'used' if nowhere is None else 'called'} a pointer that is no address, and the "
                "processor refused it." if bad else
                f"{words.name} ran an instruction that the processor refused.", value,
                f"It was read from {holder.words}: what was there before the object was given out is still there, so "
                "nobody has set that member (kzalloc() would have cleared it)." if unset and holder else
                "The pointer was overwritten, or its object was freed and used again by something else." if bad else "",
                words.suspicion if bad and not unset else "", words.where, words.blame if unset or not bad else ""),
            evidence=[*crash.evidence.log(), *(crash.evidence.instruction() if nowhere is None else
                                               crash.evidence.call()), *crash.evidence.stack()],
            next=["A kernel with KASAN says who writes beyond an object, or into a freed one; slub_debug=FZPU lets the "
                  "kernel notice such damage when the object is freed or used again."] if bad else [],
            culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="text" if meant and meant.meaning == Meaning.TEXT else "")


def _in_no_range(address: int) -> bool:
    """Tell whether an address of arm64 lies between a process's and the kernel's, however long addresses are (52 bits).

    Source: arch/arm64/mm/fault.c, show_pte() ("address between user and kernel address ranges"); the uppermost byte
    does not count (arch/arm64/include/asm/memory.h, untagged_addr()).
    """
    return address >> 52 & 0xF not in (0, 0xF)
