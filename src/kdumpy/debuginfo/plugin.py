"""The layer as a plugin of drgn: with kdumpy installed, plain `drgn` and `drgn-crash` open a bare vmcore.

Registered as the entry point `kdumpy` of the group `drgn.plugins`; `DRGN_DISABLE_PLUGINS=kdumpy`
turns it off.
"""

from __future__ import annotations

import drgn
from drgn import ProgramFlags

from kdumpy.debuginfo.attach import attach


def drgn_prog_set(prog: drgn.Program) -> None:
    """drgn's hook: called when a program's target was set. A live kernel and a process are left alone."""
    if prog.flags & ProgramFlags.IS_LINUX_KERNEL and not prog.flags & ProgramFlags.IS_LIVE:
        attach(prog)
