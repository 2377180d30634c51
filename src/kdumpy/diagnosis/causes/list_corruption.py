"""A linked list was broken."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class ListCorruption(Cause):
    """The kernel's check of a linked list failed."""

    kind = "list-corruption"
    outranks = ("bug", "invalid-opcode", "warn", "general-protection", "bad-address", "use-after-free")

    def match(self, crash: Crash) -> Finding | None:
        """Match the check's report."""
        if not crash.told(Kind.LIST) or crash.event is None:
            return None
        words = Words(crash, crash.own_frame)
        line = next((line for line in crash.event.lines if "corruption" in line), "")
        twice = "LIST_POISON" in line
        adding = "list_add" in line or "list_add" in str(crash.fault.function if crash.fault else "")
        what = ("removed an entry from a list from which it had already been removed" if twice and not adding else
                "added an entry to a list" if adding else "removed an entry from a list")
        return Finding(
            title=words.titled("List entry removed twice" if twice and not adding else "Corrupted list"),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} {what}" + ("." if twice and not adding else ", and its neighbours did not point to "
                                          "each other: somebody had changed the list or freed an entry."),
                "Often a lock is missing around one of the users of the list.", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="list_add" if adding else "list_del-twice" if twice else "list_del")
