"""A NULL pointer was followed."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.derived import is_blank
from kdumpy.diagnosis.crashed.freed import clears_freed
from kdumpy.diagnosis.crashed.reading import Reader
from kdumpy.diagnosis.memory import Meaning
from kdumpy.diagnosis.oops import Kind


class NullDereference(Cause):
    """Code read or wrote through a pointer that was NULL."""

    kind = "null-dereference"
    outranks = ("bad-address", "user-access")

    def match(self, crash: Crash) -> Finding | None:
        """Match a fault on the first page, or a base register that is zero."""
        meant = crash.pointer_meaning.meaning if crash.pointer_meaning else None
        null = meant == Meaning.NULL
        if meant == Meaning.ERROR:          # an error code and an offset make a small address, and no NULL
            return None
        if not (crash.told(Kind.NULL) or (null and crash.told(Kind.PAGE_FAULT)) or (null and crash.event is None
                                                                                   and crash.faulted)):
            return None
        words = Words(crash, crash.own_frame)
        operand = crash.operand
        how = {"read": "read from", "write": "wrote to"}.get(crash.access, "used")
        register = f" (register {operand.base} was {operand.base_value:#x})" if operand and operand.base else ""
        root = crash.reader.root if crash.reader else None
        if register and operand and operand.base_value and null and root == 0:
            register = f" (register {operand.base} was {operand.base_value:#x}: NULL {_moved(crash.reader)})"
        source = crash.reader.source if crash.reader else None
        named = crash.reader.root_named if crash.reader and root == 0 else source.named if source else None
        member = f" {named.sentence}" if named else ""
        if source and source.place:
            place = source.place
            member += f" It was to reach {place.member} of {place.structure} (offset {place.offset:#x})."
        elif crash.address and crash.address < 0x10000:
            member += f" The address was {crash.address:#x}: the member at that offset of an object that was not there."
        cleared = crash.kernel is not None and clears_freed(crash.kernel) and not _of_what_lives(crash)
        return Finding(
            title=words.titled("NULL pointer dereference"),
            confidence=CERTAIN if (null or crash.told(Kind.NULL)) and not cleared and not is_blank(crash) else LIKELY,
            explanation=words.paragraph(
                f"{words.name} {how} memory through a pointer that was NULL{register}.{member}",
                "This kernel clears what is freed (init_on_free=1): a pointer out of a freed object is NULL, too, "
                "and where this one was read is not known." if cleared else "",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype=crash.access)


def _moved(reader: Reader | None) -> str:
    """Say what became of a NULL pointer before it was used."""
    added = reader.added if reader else 0
    if added > 0:
        return "and the offset of a member"
    return f"less {-added:#x}, as container_of() takes a member's offset off"


def _of_what_lives(crash: Crash) -> bool:
    """Tell whether the pointer was read out of what is not freed: a variable, a stack, an allocated object."""
    holder = crash.reader.holder if crash.reader else None
    return holder is not None and (holder.state == "allocated" if holder.kind == "slab"
                                   else holder.kind in ("kernel data", "module data", "per-cpu", "stack"))
