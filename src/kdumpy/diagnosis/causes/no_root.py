"""The root filesystem was not found."""

from __future__ import annotations

import errno
import os
import re

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind

_ROOT = re.compile(r"\broot=(\S+)")
# init/main.c, run_init_process() and kernel_init().
_FAILED = re.compile(r"(?:Failed to execute|Requested init) (\S+) (?:failed )?\(error (-\d+)\)")
_CONFIGURATION = " This is a matter of configuration: the initramfs is missing or lacks "


class NoRoot(Cause):
    """The kernel found no root filesystem, or no program to start on it."""

    kind = "no-root"

    def match(self, crash: Crash) -> Finding | None:
        """Match the closing panic, or the stack that leads to it."""
        if not crash.told(Kind.ROOT):
            return None
        mounting = crash.in_stack("mount_root_generic", "mount_block_root", "mount_root")
        no_init = "init" in crash.closing_words.lower() if crash.closing else not mounting
        return self._no_init(crash) if no_init else self._no_root(crash)

    @staticmethod
    def _no_root(crash: Crash) -> Finding:
        cmdline = (crash.kernel.system.cmdline if crash.kernel else None) or ""
        root = _ROOT.search(cmdline)
        ending = crash.evidence.log(crash.closing, "how it ended") if crash.closing is not crash.event else []
        return Finding(
            title="The root filesystem was not found",
            confidence=CERTAIN,
            explanation="The kernel could not mount its root filesystem"
                        + (f" (root={root[1]} on the command line)." if root else
                           " (there is no root= on the command line).")
                        + _CONFIGURATION + "a driver, the disk is not there, or its name has changed.",
            evidence=[*crash.evidence.log(), *ending],
            next=["Boot the previous kernel, and build the initramfs again (update-initramfs -u, or dracut -f).",
                  "Check root= on the kernel's command line against blkid."],
            tokens="root")

    @staticmethod
    def _no_init(crash: Crash) -> Finding:
        tried = dict.fromkeys(match.groups() for line in crash.lines if (match := _FAILED.search(line)))
        names = ", ".join(f"{name} ({_errno(-int(number))})" for name, number in tried)
        return Finding(
            title="No first process could be started",
            confidence=CERTAIN,
            explanation="The kernel had its root filesystem, but could start no first program there"
                        + (f": it tried {names}." if names else ".")
                        + _CONFIGURATION + "that program, or the command line (init=, rdinit=) names a wrong one.",
            evidence=crash.evidence.log(),
            next=["Look whether that program is there, whether it is of this machine's kind, and whether its "
                  "interpreter and libraries are there too.",
                  "Boot with init=/bin/sh on the kernel's command line to look around."],
            subtype="no-init", tokens="init")


def _errno(number: int) -> str:
    """Return an error in words."""
    if number == errno.ENOEXEC:
        return "no program that this kernel can run"
    return os.strerror(number).lower()
