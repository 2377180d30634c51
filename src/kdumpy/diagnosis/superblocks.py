"""The file systems that the kernel has, mounted or its own.

Source: fs/super.c, super_blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kdumpy.errors import DamagedDump

_MOST = 65_536


def super_blocks(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield each `struct super_block *`.

    Raises:
        DamagedDump: their list runs in a circle.
        READ_ERRORS: it cannot be read.
    """
    offset = drgn.offsetof(prog.type("struct super_block"), "s_list")
    head = prog["super_blocks"]
    entry, end = head.next.value_(), head.address_
    for _ in range(_MOST):
        if entry == end:
            return
        yield drgn.Object(prog, "struct super_block *", entry - offset)
        entry = prog.read_u64(entry)
    raise DamagedDump("the list of file systems runs in a circle")


def device_name(block: drgn.Object) -> str:
    """Return the name of the device of a `struct super_block *`, or of its kind where it has none."""
    return str(block.s_id.string_().decode("utf-8", "backslashreplace"))
