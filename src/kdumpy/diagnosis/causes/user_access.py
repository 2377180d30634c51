"""The kernel used a process's memory directly."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.processes import a_process_has
from kdumpy.diagnosis.memory import LOWEST_USER, USER_END
from kdumpy.diagnosis.oops import Kind

_PROGRAMS = 0x555555554000
"""From here on programs, libraries and stacks lie (arch/x86/include/asm/elf.h, ELF_ET_DYN_BASE)."""


class UserAccess(Cause):
    """Code used an address of a process without the functions made for it (SMAP, SMEP, PAN)."""

    kind = "user-access"
    outranks = ("bad-address",)

    def match(self, crash: Crash) -> Finding | None:
        """Match a fault on an address of user space."""
        user = crash.address is not None and LOWEST_USER <= crash.address < USER_END and not crash.per_cpu
        told = crash.told(Kind.USER_ACCESS, Kind.USER_EXECUTE)
        if not told and not (user and crash.told(Kind.PAGE_FAULT)):
            return None
        # Bit 0: the page was there and its use was refused. Else the value may be an address by chance.
        refused = bool(crash.event and crash.event.error_code is not None and crash.event.error_code & 1)
        # A number can happen to lie where processes might have memory. The one whose address it was may have ended.
        if not told and not refused and crash.address is not None and crash.address < _PROGRAMS \
                and a_process_has(crash, crash.address) is False:
            return None
        words = Words(crash, crash.own_frame)
        how = {"read": "read", "write": "wrote", "execute": "executed"}.get(crash.access, "used")
        return Finding(
            title=words.titled("Direct use of a process's memory"),
            confidence=CERTAIN if told or refused else LIKELY,
            explanation=words.paragraph(
                f"{words.name} {how} the address {crash.address or 0:#x}, which belongs to a process. The processor "
                f"forbids that to the kernel ({'PAN' if crash.machine == 'aarch64' else 'SMAP, SMEP'}): memory of "
                "processes must be copied with copy_from_user() "
                "and copy_to_user().",
                "" if told or refused else "No memory was there, so the address may also be a damaged pointer.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype=crash.access)
