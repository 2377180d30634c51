"""The hardware reported an error."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.machinecheck import UNCORRECTED, MachineError, from_log, from_memory
from kdumpy.diagnosis.crashed.pointee import at_physical
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind

_MOST_SHOWN = 6


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
        errors = sorted(_errors(crash), key=lambda error: error.worst)
        worst = errors[-1] if errors and errors[-1].status & UNCORRECTED else None
        part = worst.part if worst else ""
        cpus = {error.cpu for error in errors}
        sentences = ["The processor reported an error of the hardware that it could not correct"
                     + (f", in {part}" if part else "")
                     + (f" (bank {worst.bank} of CPU {worst.cpu})." if worst else ".")]
        if errors and worst is None:
            sentences.append("What the banks hold was corrected; the error that stopped the kernel is not among that.")
        if worst and worst.what:
            sentences.append(f"What it was about: {worst.what}.")
        if worst and worst.address is not None and part == "the memory controller":
            sentences.append(f"The memory at physical address {worst.address:#x} is affected.")
        sentences.append("The kernel stops so as not to go on with wrong data. No software is to blame.")
        return Finding(
            title="Hardware error (machine check)" + (f" in {part}" if part else ""),
            confidence=CERTAIN if worst else LIKELY,
            explanation=" ".join(sentences),
            evidence=[*crash.evidence.log(closing), *_evidence(crash, errors)],
            next=["Read the management board's event log (ipmitool sel list), and decode the error with rasdaemon or "
                  "mcelog.", "Test or replace the part: memory modules first where memory is named."
                  + (f" CPU {worst.cpu} alone reported it, so that processor or its socket may be bad."
                     if worst and len(cpus) == 1 and part != "the memory controller" else "")],
            subtype=part.removeprefix("the ").removeprefix("a "), tokens="hardware")


def _errors(crash: Crash) -> list[MachineError]:
    """Return what the banks said, each once: as the log has it, and what only memory has."""
    found = {(error.cpu, error.bank, error.status): error
             for error in (*(from_memory(crash.kernel) if crash.kernel else ()), *from_log(crash.lines))}
    return list(found.values())


def _evidence(crash: Crash, errors: Sequence[MachineError]) -> list[Evidence]:
    found = []
    for error in reversed(errors[-_MOST_SHOWN:]):
        command = f"kdumpy log {shlex.quote(str(crash.path))}" if error.source == "log" else \
            crash.evidence.command(f"bt -c {error.cpu}")
        found.append(Evidence(f"bank {error.bank} of CPU {error.cpu}", error.words, command))
    worst = errors[-1] if errors else None
    if worst is not None and worst.address is not None and crash.kernel is not None:
        place = at_physical(crash.kernel, worst.address)
        if place is not None:
            found.append(Evidence("what lay at that address", place.words,
                                  crash.evidence.command(f"kmem -p {worst.address:x}")))
    return found
