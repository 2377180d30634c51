"""The hardware reported an error."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind

_BANK = re.compile(r"Bank (\d+): ([0-9a-f]{16})")
_ADDRESS = re.compile(r"ADDR ([0-9a-f]+)")
# Intel SDM volume 3, 17.9: MCi_STATUS bits 15:0, compound error codes; the first that fits.
_CODES = (
    (0xEF80, 0x0080, "the memory controller"),
    (0xEF00, 0x0100, "a cache"),
    (0xE800, 0x0800, "the bus or interconnect"),
    (0xEFF0, 0x0010, "the address translation (TLB)"),
)


class MachineCheck(Cause):
    """The processor reported an error of the hardware that cannot be corrected."""

    kind = "machine-check"
    outranks = ("nmi", "driver-panic", "unknown", "bug", "bad-address", "general-protection")

    def match(self, crash: Crash) -> Finding | None:
        """Match the panic of the machine-check handler."""
        closing = crash.closing
        told = closing is not None and Kind.MACHINE_CHECK in closing.kinds
        if not (told or crash.in_stack("mce_panic")):
            return None
        lines = [line for event in crash.events for line in event.lines if "[Hardware Error]" in line] or \
            [line for line in crash.lines if "[Hardware Error]" in line]
        bank = next((match for line in lines if (match := _BANK.search(line))), None)
        address = next((match for line in lines if (match := _ADDRESS.search(line))), None)
        part = _part(int(bank[2], 16)) if bank else ""
        seen = [Evidence("the hardware's report", line.strip(), "kdumpy log " + str(crash.path)) for line in lines[:6]]
        told_words = ["The processor reported an error of the hardware that it could not correct"
                      + (f", in {part}" if part else "") + (f" (bank {bank[1]})." if bank else ".")]
        if address and part == "the memory controller":
            told_words.append(f"The memory at physical address 0x{address[1]} is affected.")
        told_words.append("The kernel stops so as not to go on with wrong data. No software is to blame.")
        return Finding(
            title="Hardware error (machine check)" + (f" in {part}" if part else ""),
            confidence=CERTAIN if bank else LIKELY,
            explanation=" ".join(told_words),
            evidence=[*crash.evidence.log(closing), *seen],
            next=["Read the management board's event log (ipmitool sel list), and decode the error with rasdaemon or "
                  "mcelog.", "Test or replace the part: memory modules first where memory is named."],
            subtype=part.removeprefix("the ").removeprefix("a "), tokens="hardware")


def _part(status: int) -> str:
    """Name the part of the machine that an MCi_STATUS tells of."""
    return next((words for mask, value, words in _CODES if status & 0xFFFF & mask == value), "")
