"""A non-maskable interrupt stopped the kernel."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class Nmi(Cause):
    """A non-maskable interrupt came that the kernel is set to panic on: an operator, or the hardware."""

    kind = "nmi"
    outranks = ("driver-panic",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the panic of the NMI handler."""
        told = crash.told(Kind.NMI) and not crash.told(Kind.HARD_LOCKUP, Kind.MACHINE_CHECK)
        if not (told or crash.in_stack("unknown_nmi_error", "io_check_error", "pci_serr_error")):
            return None
        text = " ".join(line for event in crash.events if Kind.NMI in event.kinds for line in event.lines[:3])
        hardware = "IOCK" in text or "SERR" in text or "PCI system error" in text
        return Finding(
            title="Stopped by an NMI" + (": the hardware reported an error" if hardware else " of unknown origin"),
            confidence=CERTAIN,
            explanation="A non-maskable interrupt (NMI) arrived"
                        + (", with which the hardware reports an error of a bus or of memory." if hardware else
                           " that no driver asked for. Mostly an operator has sent it, by the NMI button or the "
                           "management board (ipmitool chassis power diag), to get a dump of a machine that hangs; "
                           "else it is the hardware.")
                        + " The kernel is set to panic then.",
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            next=["Read the management board's event log (ipmitool sel list).",
                  "If the machine hung before: in the shell `bt -a` shows what the CPUs did, `foreach UN bt` where "
                  "tasks wait."],
            subtype="hardware" if hardware else "unknown", tokens="nmi")
