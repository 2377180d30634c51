"""Checks of file systems and of the cache of names.

Sources: include/linux/fs.h, fs/dcache.c, include/linux/jbd2.h, lib/errseq.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import drgn
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.diagnosis.findings.base import CRITICAL, WARNING, Check, Found, Machine, with_symbol
from kdumpy.diagnosis.superblocks import device_name, super_blocks
from kdumpy.units import human_bytes

FROZEN = {1: "against writes", 2: "against page faults", 3: "against its own threads", 4: "whole"}
"""SB_FREEZE_*, include/linux/fs.h."""
_ERRNO = 0xFFF
"""ERRSEQ's bits of the error itself: MAX_ERRNO."""
_JBD2_ABORT = 0x002
_MANY = 1_000_000
_SHARE = 20
"""A cache of names that are not there is too large from a million of them and a twentieth of memory on."""


def frozen(machine: Machine) -> Iterator[Found]:
    """A file system is frozen: who writes to it waits."""
    for block in super_blocks(machine.kernel.prog):
        level = int(block.s_writers.frozen.value_())
        if level:
            words = f"The file system on {device_name(block)} is frozen {FROZEN.get(level, '')}".rstrip()
            yield Found(WARNING, words, command=f"struct super_block.s_id,s_writers.frozen {block.value_():x}")


def lost_writes(machine: Machine) -> Iterator[Found]:
    """What was to be written to a file system is lost."""
    for block in super_blocks(machine.kernel.prog):
        error = int(block.s_wb_err.value_()) & _ERRNO
        if error:
            yield Found(CRITICAL, f"Data could not be written to the file system on {device_name(block)}",
                        os.strerror(error), f"struct super_block {block.value_():x}")


def aborted(machine: Machine) -> Iterator[Found]:
    """The journal of a file system was given up after an error: nothing can be written any more."""
    prog = machine.kernel.prog
    for block in super_blocks(machine.kernel.prog):
        if block.s_type.name.string_() != b"ext4" or not block.s_fs_info:
            continue
        journal = drgn.Object(prog, "struct ext4_sb_info *", block.s_fs_info.value_()).s_journal
        if journal and int(journal.j_flags.value_()) & _JBD2_ABORT:
            error = abs(int(journal.j_errno.value_()))
            yield Found(CRITICAL, f"The journal of the file system on {device_name(block)} was given up",
                        os.strerror(error) if error else "", f"struct journal_s {journal.value_():x}")


def names_of_nothing(machine: Machine) -> Iterator[Found]:
    """The cache of names is full of names that do not exist (negative dentries): looking one up in it takes long."""
    prog = machine.kernel.prog
    known, nothing = (sum(int(per_cpu(prog[name], cpu).value_()) for cpu in for_each_possible_cpu(prog))
                      for name in ("nr_dentry", "nr_dentry_negative"))
    size = nothing * drgn.sizeof(prog.type("struct dentry"))
    if nothing >= _MANY and size >= machine.account.managed // _SHARE:
        yield Found(WARNING, f"The kernel remembers {nothing:,} names of files that do not exist",
                    f"{human_bytes(size)}, of {known:,} names in all", "kmem -s dentry")


CHECKS = (
    Check("frozen file systems", frozen, ("variable super_blocks",)),
    # 735e4ae5ba28 "vfs: track per-sb writeback errors and report them to syncfs" (5.8)
    Check("lost writes", lost_writes, ("variable super_blocks",)),
    Check("journals", aborted, ("variable super_blocks", "struct ext4_sb_info", "struct journal_s"),
          with_symbol("jbd2_journal_abort")),
    Check("negative dentries", names_of_nothing,
          ("variable nr_dentry", "variable nr_dentry_negative", "the account of memory")),
)
