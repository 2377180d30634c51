"""The root filesystem was not found."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind

_ROOT = re.compile(r"\broot=(\S+)")


class NoRoot(Cause):
    """The kernel found no root filesystem, or no program to start on it."""

    kind = "no-root"

    def match(self, crash: Crash) -> Finding | None:
        """Match the closing panic."""
        if not crash.told(Kind.ROOT) or crash.closing is None:
            return None
        cmdline = (crash.kernel.system.cmdline if crash.kernel else None) or ""
        root = _ROOT.search(cmdline)
        no_init = "init" in crash.closing_words.lower()
        return Finding(
            title="No first process could be started" if no_init else "The root filesystem was not found",
            confidence=CERTAIN,
            explanation=("The kernel mounted its root filesystem but found no program to start there." if no_init else
                         "The kernel could not mount its root filesystem"
                         + (f" (root={root[1]} on the command line)." if root else
                            " (there is no root= on the command line)."))
                        + " This is a matter of configuration: the initramfs is missing or lacks a driver, the disk is "
                          "not there, or its name has changed.",
            evidence=[*crash.evidence.log(crash.closing), *crash.evidence.log()],
            next=["Boot the previous kernel, and build the initramfs again (update-initramfs -u, or dracut -f).",
                  "Check root= on the kernel's command line against blkid."],
            subtype="no-init" if no_init else "", tokens="init" if no_init else "root")
