"""What a lock or a page belongs to, in words that say more than a place in a slab: a file, a process, a file system.

Sources: include/linux/fs.h (struct inode, struct super_block), include/linux/mm_types.h, include/linux/percpu-rwsem.h.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property
from itertools import islice

import drgn
from drgn.helpers.linux.fs import inode_path

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.superblocks import device_name, super_blocks
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_objects

_MOST_TASKS = 4096
_KINDS = {0o040000: "directory", 0o100000: "file", 0o060000: "block device", 0o120000: "link", 0o010000: "pipe",
          0o140000: "socket", 0o020000: "character device"}
"""S_IFMT of i_mode, include/uapi/linux/stat.h."""
_IFMT = 0o170000
_LEVELS = ("writes", "page faults", "its own threads")
"""s_writers.rw_sem[], a semaphore a level that is frozen; include/linux/fs.h, SB_FREEZE_LEVELS."""
_NO_INODE = 0x3
"""PAGE_MAPPING_ANON and PAGE_MAPPING_MOVABLE in the lowest bits of page.mapping."""


class Things:
    """Names the things of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.prog = kernel.prog
        self._blocks: set[int] | None = None

    def of_lock(self, kind: str, address: int) -> str:
        """Name what a lock belongs to; empty where it is none of the kernel's well-known ones.

        Args:
            kind: rwsem, or percpu rwsem (whose wait queue's address is given).
            address: of the lock.
        """
        known: tuple[Callable[[int], str], ...] = ()
        if kind == "rwsem":
            known = (self._inode_lock, self._memory_map, self._mounting)
        elif kind in ("percpu rwsem", "wait queue"):
            known = (self._writing,)
        for find in known:
            try:
                words = find(address)
            except READ_ERRORS:
                continue
            if words:
                return words
        return ""

    def of_page(self, address: int) -> str:
        """Name what a page of a file holds; empty for another page, and where it is not in the dump."""
        try:
            mapping = int(drgn.Object(self.prog, "struct page *", address).mapping.value_())
            if not mapping or mapping & _NO_INODE:
                return ""
            inode = drgn.Object(self.prog, "struct address_space *", mapping).host
            return self._inode(inode) if inode else ""
        except READ_ERRORS:
            return ""

    def device_of_page(self, address: int) -> str:
        """Return the disk that a page of a file or of a block device is written to; empty where that is not told."""
        try:
            mapping = int(drgn.Object(self.prog, "struct page *", address).mapping.value_())
            if not mapping or mapping & _NO_INODE:
                return ""
            inode = drgn.Object(self.prog, "struct address_space *", mapping).host
            if inode.i_sb.s_type.name.string_() == b"bdev":
                return self._disk(int(inode.i_rdev.value_()))
            device = inode.i_sb.s_bdev
            return str(device.bd_disk.disk_name.string_().decode("utf-8", "backslashreplace")) if device else ""
        except READ_ERRORS:
            return ""

    def _disk(self, number: int) -> str:
        from drgn.helpers.linux.block import disk_devt, for_each_disk, for_each_partition, part_devt, part_name

        for disk in for_each_disk(self.prog):
            if int(disk_devt(disk).value_()) == number:
                return str(disk.disk_name.string_().decode("utf-8", "backslashreplace"))
        found = next((part for part in for_each_partition(self.prog) if int(part_devt(part).value_()) == number), None)
        return str(part_name(found).decode("utf-8", "backslashreplace")) if found is not None else ""

    def _inode(self, inode: drgn.Object) -> str:
        kind = _KINDS.get(int(inode.i_mode.value_()) & _IFMT, "file")
        where = device_name(inode.i_sb)
        if inode.i_sb.s_type.name.string_() == b"bdev":
            name = self._disk(int(inode.i_rdev.value_()))
            return f"the block device {name}" if name else "a block device"
        path = inode_path(inode)
        # Within its file system, whose own root has an empty name; None where no name of the file is remembered.
        name = f"with inode {int(inode.i_ino.value_())}" if path is None else \
            "/" + path.decode("utf-8", "backslashreplace").lstrip("/")
        kind_of_fs = inode.i_sb.s_type.name.string_().decode("utf-8", "backslashreplace")
        return f"the {kind} {name} on {where}" + (f" ({kind_of_fs})" if kind_of_fs != where else "")

    def _inode_lock(self, address: int) -> str:
        inode = self._around("struct inode", "i_rwsem", address)
        # Every inode's own pages are mapped by itself: that a place in memory is one by chance is out of the question.
        if inode.i_mapping and inode.i_data.host.value_() == inode.value_() and self._is_known(inode.i_sb.value_()):
            return f"i_rwsem of {self._inode(inode)}"
        return ""

    def _memory_map(self, address: int) -> str:
        owner = self._spaces.get(self._around("struct mm_struct", "mmap_lock", address).value_())
        if owner is None:
            return ""
        comm = owner.comm.string_().decode("utf-8", "backslashreplace")
        return f"mmap_lock of {comm} (pid {int(owner.tgid.value_())})"

    @cached_property
    def _spaces(self) -> dict[int, drgn.Object]:
        """The first task of each address space, by its mm_struct's address: asked for many locks."""
        found: dict[int, drgn.Object] = {}
        with contextlib.suppress(*READ_ERRORS):
            for task in islice(task_objects(self.prog), _MOST_TASKS):
                with contextlib.suppress(drgn.FaultError):
                    found.setdefault(task.mm.value_(), task)
        found.pop(0, None)          # kernel threads have none
        return found

    def _mounting(self, address: int) -> str:
        block = self._around("struct super_block", "s_umount", address)
        if self._is_known(block.value_()):
            return "s_umount of the file system on " + device_name(block)
        return ""

    def _writing(self, address: int) -> str:
        """Name the right to write to a file system, for which those wait who come when it is frozen."""
        made = self.prog.type("struct super_block")
        size = drgn.sizeof(self.prog.type("struct percpu_rw_semaphore"))
        inside = drgn.offsetof(self.prog.type("struct percpu_rw_semaphore"), "waiters")
        first = drgn.offsetof(made, "s_writers.rw_sem")
        for level, words in enumerate(_LEVELS):
            block = address - inside - size * level - first
            if self._is_known(block):
                found = drgn.Object(self.prog, "struct super_block *", block)
                where = device_name(found)
                frozen = ", which is frozen" if int(found.s_writers.frozen.value_()) else ""
                return f"s_writers ({words}) of the file system on {where}{frozen}"
        return ""

    def _around(self, name: str, member: str, address: int) -> drgn.Object:
        return drgn.Object(self.prog, f"{name} *", address - drgn.offsetof(self.prog.type(name), member))

    def _is_known(self, block: int) -> bool:
        if self._blocks is None:            # asked for every lock: where their list is damaged, too, it is read once
            self._blocks = set()
            with contextlib.suppress(*READ_ERRORS):
                for item in super_blocks(self.prog):
                    self._blocks.add(item.value_())
        return block in self._blocks
