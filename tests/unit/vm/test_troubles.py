"""What a guest printed, and what is said of it. The lines are from consoles of real guests."""

from __future__ import annotations

import errno

import pytest

from kdumpy.vm import troubles
from kdumpy.vm.troubles import Stage


@pytest.mark.parametrize(("lines", "what", "short"), [
    (["[    0.790561] Kernel panic - not syncing: System is deadlocked on memory"],
     "the capture kernel ran out of memory", True),
    (["[    1.204] Initramfs unpacking failed: write error",
      "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"],
     "the image does not fit into the capture kernel's memory", True),
    (["[    0.9] Initramfs unpacking failed: invalid magic at start of compressed archive",
      "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"],
     "the capture image is broken", False),
    (["kdumpy: the capture program ended with 137 (killed: most likely for want of memory)"],
     "the capture program ran out of memory", True),
    (["kdumpy: there is no /proc/vmcore: this kernel was not started by a crash", "kdumpy: no whole dump was saved"],
     "the capture kernel has no /proc/vmcore", False),
    (["kdumpy: the dump (level 31, zstd) takes about 20.1 MiB, 9.0 MiB are free: there is nothing smaller, it is tried",
      "kdumpy: saving the dump (level 31, zstd) failed: No space left on device", "kdumpy: no whole dump was saved"],
     "the target has too little space", False),
    (["[    2.1] Run /init as init process", "[    2.2] something"], "the capture did not begin", False),
])
def test_the_capture_kernels_words_are_understood(lines: list[str], what: str, short: bool) -> None:
    found = troubles.in_capture(Stage.DUMP, lines, ended=True, seconds=1)
    assert (found.what, found.short_of_memory) == (what, short)
    assert found.why
    assert found.mend
    assert not found.why.startswith("[ ")


def test_a_refusal_to_load_has_its_meaning() -> None:
    assert troubles.refused(errno.EADDRNOTAVAIL).short_of_memory
    assert "CONFIG_KEXEC_FILE" in troubles.refused(errno.ENOSYS).mend
    assert troubles.refused(200).why.startswith("200")


def test_nothing_reserved_and_no_support_are_told_apart() -> None:
    lines = ["[    0.012] crashkernel reservation failed - No suitable area found.", "REHEARSAL reserved 0"]
    assert troubles.not_reserved("0", lines).why == "crashkernel reservation failed - No suitable area found."
    assert "CONFIG_CRASH_DUMP" in troubles.not_reserved("none", []).mend


def test_a_guest_that_says_nothing_is_told_so() -> None:
    assert "serial console" in troubles.in_first_kernel(Stage.BOOT, [], False, "").what
    assert "QEMU" in troubles.in_first_kernel(Stage.BOOT, [], True, "qemu: could not load kernel").what
    panic = ["[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs"]
    assert "panicked before" in troubles.in_first_kernel(Stage.BOOT, panic, True, "").what


def test_a_fault_that_did_nothing_and_a_capture_kernel_that_stays_silent() -> None:
    assert "fault" in troubles.not_started(["REHEARSAL ready"], ended=False).what
    found = troubles.not_started(["[ 3.1] sysrq: Trigger a crash"], ended=True)
    assert found.short_of_memory
