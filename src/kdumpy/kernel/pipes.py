"""What processes have written into pipes: pages of the kernel's that hold users' data.

A pipe keeps up to two pages that were read, for the next write, with what was in them.
Source: include/linux/pipe_fs_i.h, struct pipe_inode_info.
"""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.fs import for_each_file
from drgn.helpers.linux.mm import page_to_phys

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.erasure import Erasure, Reach
from kdumpy.kernel.tasks import task_objects

_MOST_BUFFERS = 1 << 20


def find(reach: Reach) -> Erasure:
    """Return the pages of all pipes."""
    erasure = Erasure("pipe_inode_info.bufs", "pages of pipes")
    size = reach.memory.page_size
    try:
        for pipe in _pipes(reach.prog):
            try:
                for page in _pages(pipe):
                    erasure.extents.append((page_to_phys(page).value_(), size))
                    erasure.count += 1
                    erasure.size += size
            except READ_ERRORS as error:
                erasure.failed(error)
    except READ_ERRORS as error:
        if erasure.count:
            erasure.failed(error)
        else:
            erasure.not_judged = str(error) or type(error).__name__
    return erasure


def _pipes(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield each pipe that a task has open; the inodes of pipes are in no list (new_inode_pseudo())."""
    # In newer kernels (seen in 7.2) pipes without a name have operations of their own.
    operations = {symbol.address for name in ("pipefifo_fops", "pipeanon_fops") for symbol in prog.symbols(name)}
    if not operations:
        raise LookupError("the kernel's symbols do not tell which files are pipes")
    seen: set[int] = set()
    for task in task_objects(prog):
        if not task.files:
            continue
        for _number, file in for_each_file(task):
            if file and file.f_op.value_() in operations and file.private_data.value_() not in seen:
                seen.add(file.private_data.value_())
                yield drgn.Object(prog, "struct pipe_inode_info *", value=file.private_data.value_())


def _pages(pipe: drgn.Object) -> Iterator[drgn.Object]:
    kept = pipe.tmp_page
    for page in kept if kept.type_.kind == drgn.TypeKind.ARRAY else (kept,):
        if page:
            yield page
    count = pipe.ring_size.value_()
    if count > _MOST_BUFFERS:
        raise ValueError(f"a pipe of {count} buffers")
    for number in range(count):
        # What was read stays in the ring's slot as a pointer to a page that may be somebody else's by now.
        slot = pipe.bufs[number]
        if slot.ops and slot.page:
            yield slot.page
