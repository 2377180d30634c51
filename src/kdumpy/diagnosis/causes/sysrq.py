"""An operator asked for the crash."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class Sysrq(Cause):
    """The SysRq key, or /proc/sysrq-trigger, was told to crash the kernel."""

    kind = "sysrq"
    outranks = ("null-dereference", "driver-panic")

    def match(self, crash: Crash) -> Finding | None:
        """Match the trigger in the stack or in the log."""
        earlier = crash.event is not None and crash.event.fatal
        if not crash.told(Kind.SYSRQ) and (earlier or not crash.in_stack("sysrq_handle_crash")):
            return None                         # an oops before it is the story; the key only ended it
        by_file = crash.in_stack("write_sysrq_trigger")
        how = ("wrote 'c' to /proc/sysrq-trigger" if by_file else
               "pressed the SysRq key (keyboard, serial console or management board)")
        who = crash.task_words if by_file else ""
        return Finding(
            title="The crash was asked for (SysRq c)",
            confidence=CERTAIN,
            explanation=Words(crash).paragraph(
                f"Somebody {how}, which makes the kernel crash at once"
                + (f"; it was done by {who}." if who else "."),
                "This is how crash dumps are tested, or taken of a machine that hangs; no fault of the kernel brought "
                "it about.", _waiting(crash)),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()], tokens="asked for",
            next=["If this was not a test: find out who has root or the console, and why the machine was crashed. "
                  "If it hung before: in the shell `foreach UN bt` shows where tasks wait, `bt -a` what the CPUs did; "
                  "look also at what else is found on this machine, and at the log before the crash."])


def _waiting(crash: Crash) -> str:
    """Say how many tasks waited uninterruptibly; a few do on any busy machine."""
    count = len(crash.waits.blocked) if crash.waits else 0
    return f"{count} task{'s' if count > 1 else ''} waited then, and could not be interrupted." if count else ""
