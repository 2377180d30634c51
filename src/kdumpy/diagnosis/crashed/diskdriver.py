"""Whose disk a task waits for: from a page that is read or written to the driver, of which nothing is on a stack.

Sources: include/linux/fs.h (struct address_space, inode), include/linux/blk_types.h (struct block_device), block/bdev.c
(struct bdev_inode), include/linux/blkdev.h (struct gendisk, block_device_operations).
"""

from __future__ import annotations

from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_ANON = 3
"""PAGE_MAPPING_FLAGS: the low bits of `mapping` say that it is none of a file."""


class DiskDriver(NamedTuple):
    """A disk and its driver."""

    disk: str
    """Its name: vda."""
    frame: Frame
    """The driver's table of operations: a variable, and its module."""


def disk_of_page(kernel: Kernel, page: int) -> DiskDriver | None:
    """Return the disk that a page's contents come from, where a module drives it; None where that is not told."""
    try:
        return _disk(kernel, page)
    except READ_ERRORS:
        return None


def _disk(kernel: Kernel, page: int) -> DiskDriver | None:
    prog = kernel.prog
    mapping = drgn.Object(prog, "struct page *", page).mapping
    if not mapping or int(mapping.value_()) & _ANON:
        return None
    inode = mapping.host
    device = inode.i_sb.s_bdev
    if inode.i_sb.s_id.string_() == b"bdev":            # a page of the device itself, and not of a file on it
        offset = drgn.offsetof(prog.type("struct bdev_inode"), "vfs_inode")
        made = prog.type("struct bdev_inode")
        device = drgn.Object(prog, made, address=inode.value_() - offset).bdev.address_of_()
    if not device:
        return None
    return _driver(kernel, device.bd_disk)


def disk_of_request(kernel: Kernel, address: int) -> DiskDriver | None:
    """Return the disk that a struct request is for, where a module drives it; None where that is not told."""
    try:
        request = drgn.Object(kernel.prog, "struct request *", address)
        # d152c682f03c "block: add an explicit ->disk backpointer to the request_queue" (5.15)
        own = request.q.type_.type.has_member("disk")
        return _driver(kernel, request.q.disk if own else request.rq_disk)
    except READ_ERRORS:
        return None


def _driver(kernel: Kernel, disk: drgn.Object) -> DiskDriver | None:
    symbols = kernel.debuginfo.module_symbols
    operations = int(disk.fops.value_())
    module = symbols.module_at(operations) if symbols else None
    name = kernel.prog.symbol(operations).name
    if module is None:
        return None
    return DiskDriver(disk.disk_name.string_().decode("utf-8", "backslashreplace"),
                      Frame(operations, name, 0, module, data=True))
