"""An address without memory behind it was used."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.percpu import is_small
from kdumpy.diagnosis.crashed.pointee import BEYOND, pointee
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import Meaning
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind


class BadAddress(Cause):
    """Code used an address of the kernel that has no memory behind it."""

    kind = "bad-address"

    def match(self, crash: Crash) -> Finding | None:
        """Match a page fault on an address that is neither NULL nor a process's."""
        meant = crash.pointer_meaning
        error = meant is not None and meant.meaning == Meaning.ERROR
        # An error code and an offset beyond it come to a small address, which the kernel takes for NULL.
        if not (crash.told(Kind.PAGE_FAULT) or (error and crash.told(Kind.NULL))):
            return None
        frame = crash.own_frame
        words = Words(crash, frame)
        how = {"read": "read from", "write": "wrote to", "execute": "jumped to"}.get(crash.access, "used")
        target = pointee(crash.kernel, crash.address) if crash.kernel and crash.address else None
        area = target if target is not None and target.kind == "vmalloc" else None
        place = area.words if area else crash.describe(crash.address) if crash.address else ""
        told = meant is not None and meant.meaning not in (Meaning.KERNEL, Meaning.NULL) and not crash.per_cpu
        explained = f" ({meant.words})" if told and meant else ""
        if told and meant and meant.meaning == Meaning.USER:
            explained = ", which is no address of the kernel's, and at which no process has memory"
        out_of_range = crash.indexed if not error and not crash.per_cpu else None
        absent = crash.event.no_page_there if crash.event else None
        held = absent is True
        # An object that was passed on and is gone with its memory: a stack, an area; that is as good a use after free.
        gone = target is not None and target.kind == "not mapped" and crash.fault is not frame
        doubtful = bool(crash.per_cpu) and is_small(crash.pointer or 0)
        per_cpu = ""
        if crash.per_cpu:
            per_cpu = (f"It {'can be' if doubtful else 'is'} the pointer to a per-CPU variable, used as it is: the "
                       "CPU's own offset must be added first (this_cpu_ptr(), per_cpu_ptr()); CPU 0 "
                       f"{'would have' if doubtful else 'has'} that variable at {crash.per_cpu[0]:#x}."
                       + (" Or it is a number that is no pointer at all." if doubtful else ""))
        return Finding(
            title=words.titled("Use of a bad address"),
            confidence=CERTAIN if held and meant and not words.gone and not gone and (
                (meant.meaning == Meaning.KERNEL and not out_of_range) or meant.meaning == Meaning.ERROR
                or (crash.per_cpu and not doubtful)) else LIKELY,
            explanation=words.paragraph(
                f"{'The kernel' if words.gone else words.name} {how} the address {crash.address or 0:#x}{explained}"
                + ("." if told and meant and meant.meaning == Meaning.USER else
                   ", where no memory is mapped." if held else
                   ", which it may not use like that." if absent is False else ", which cannot be used."),
                f"It lies {'at' if area else 'in'} {place}." if place else "",
                f"The pointer was good: {out_of_range.register} led to {out_of_range.pointer:#x}, "
                f"{out_of_range.where}. What was added to it was not: an index or a length was out of range "
                f"({out_of_range.index_register} was {out_of_range.words})." if out_of_range else
                "An error code was returned by a function, and was used as a pointer without a check."
                if error else
                per_cpu if per_cpu else
                f"It is an address of modules, and no module is there now. Most likely the module {frame.module} was "
                "there: it is the last one that was unloaded, and left a timer, work or a callback set."
                if words.gone and frame else
                f"The area is still there, and the access went {_behind(area)} its end: mostly an index or a length "
                "was too large." if area and area.state == BEYOND else
                "Such an address is a number that was taken for a pointer, a pointer of which a part was lost, or one "
                "that was overwritten." if meant and meant.meaning == Meaning.USER else
                "Such an address comes from an object that was unmapped or freed while it was still used, or from a "
                "pointer that was overwritten.",
                words.where, f"If so, t{words.blame[1:]}" if words.gone else words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(),
                      *([Evidence("the module that was unloaded last", str(frame.module),
                                  crash.evidence.command("rd -a last_unloaded_module"))]
                        if words.gone and frame else []), *crash.evidence.stack()],
            culprit=frame, decisions=crash.own.decisions,
            subtype="error-pointer" if error else "per-cpu" if crash.per_cpu else crash.access)


def _behind(area: Pointee) -> str:
    """Say how far behind the end of a vmalloc area an access went: `16 bytes behind`."""
    over = area.address - (area.object or 0) - (area.object_size or 0)
    return f"{over} bytes behind" if over else "just behind"
