"""Process 1 ended."""

from __future__ import annotations

import re
import signal

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind

_CODE = re.compile(r"exitcode=0x([0-9a-f]+)")


class InitExit(Cause):
    """The first process ended; the kernel cannot go on without it."""

    kind = "init-exit"

    def match(self, crash: Crash) -> Finding | None:
        """Match the closing panic, unless an oops killed the process."""
        if not crash.told(Kind.INIT) or crash.event is None:
            return None
        match = _CODE.search(crash.event.text)
        code = int(match[1], 16) if match else None
        by_signal = code is not None and code & 0x7F
        how, subtype = "ended", ""
        if code is not None and by_signal:
            name = _signal_name(code & 0x7F)
            how, subtype = f"was killed by {name}", name
        elif code is not None:
            how, subtype = f"ended by itself with exit status {code >> 8}", f"exit-{code >> 8}"
        comm = crash.task.comm if crash.task else "init"
        return Finding(
            title=f"The first process ({comm}) " + how,
            confidence=CERTAIN,
            explanation=f"Process 1 ({comm}) {how}. All other processes depend on it, so the kernel stops. "
                        "The reason lies in that program, its files or its libraries, not in the kernel"
                        + ("; a SIGSEGV or SIGBUS can also come of a bad disk or memory." if by_signal else "."),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            next=["Look at the log before the crash for messages of the first process (systemd, or the initramfs).",
                  "Boot with another one to repair it: add init=/bin/sh to the kernel's command line."],
            subtype=subtype, tokens="init")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
