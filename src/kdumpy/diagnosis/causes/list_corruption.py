"""A linked list was broken."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.checked import checked_object, lies, of_freed
from kdumpy.diagnosis.memory import Meaning, meaning
from kdumpy.diagnosis.oops import Kind

_CHECKS = "lib/list_debug.c"
"""Nothing but the checks of lists is there: its BUG tells of one, also where the words before it were lost."""

# lib/list_debug.c, __list_del_entry_valid(): "list_del corruption, %px->next is NULL"
_NO_LIST = re.compile(r"->(?:next|prev) is NULL")
# __list_add_valid(): "list_add corruption. prev is NULL."
_NO_HEAD = re.compile(r"list_add corruption\. (?:next|prev) is NULL")
_VALUES = re.compile(r"\b[0-9a-f]{16}\b")


class ListCorruption(Cause):
    """The kernel's check of a linked list failed."""

    kind = "list-corruption"
    outranks = ("bug", "invalid-opcode", "warn", "general-protection", "bad-address", "use-after-free")

    def match(self, crash: Crash) -> Finding | None:
        """Match the check's report."""
        checked = crash.event is not None and (crash.event.bug_at or "").startswith(_CHECKS)
        if crash.event is None or not (crash.told(Kind.LIST) or checked):
            return None
        words = Words(crash, crash.own_frame)
        line = next((line for line in crash.event.lines if "list_add" in line or "list_del" in line), "")
        adding = "list_add" in line or "list_add" in str(crash.fault.function if crash.fault else "")
        # lib/list_debug.c: "list_del corruption, %px->next is LIST_POISON1", "list_add double add: new=%px, prev=…"
        twice = "double add" in line if adding else "LIST_POISON" in line
        what = ("added an entry to a list" if adding else "removed an entry from a list") \
            + ("" if not twice else " in which it stands already" if adding else
               " from which it had already been removed")
        never = not adding and _NO_LIST.search(line) is not None
        no_head = adding and _NO_HEAD.search(line) is not None
        freed = next((meant.words for word in _VALUES.findall(line)
                      if (meant := meaning(int(word, 16))).meaning == Meaning.FREED), None)
        title = ("List entry added twice" if adding else "List entry removed twice") if twice else \
            "Removal of what is on no list" if never else "Use of a list that was never set up" if no_head else \
            "Corrupted list"
        place = checked_object(crash)
        if of_freed(place) and not twice and not adding:
            return None                     # an entry that is freed: who takes it off its list uses what is not there
        return Finding(
            title=words.titled(title),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} {what}" + (
                    "." if twice else
                    ", and the entry's own pointers are NULL: it was never put on a list (nor made an empty one), or "
                    "its memory was cleared since." if never else
                    ", and the list's own pointers are NULL: it was never made an empty one (INIT_LIST_HEAD), or its "
                    "memory was cleared since." if no_head else
                    f", and one of its neighbours had been freed while it was on the list ({freed})." if freed else
                    ", and its neighbours did not point to each other: somebody had changed the list or freed an "
                    "entry."),
                f"The entry {lies(place)}." if lies(place) else "",
                "" if never or no_head else "Often a lock is missing around one of the users of the list.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.checked(place), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype=("list_add" if adding else "list_del") + ("-twice" if twice else ""))
