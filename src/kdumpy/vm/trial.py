"""A crash in a guest whose capture is set up by hand: other targets, other images, things that go wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.capture import Built
from kdumpy.vm import capturing, guest, kernels, toolchain
from kdumpy.vm.faults import FAULTS
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.laboratory import BOOT_SECONDS, CAPTURE_SECONDS, Recipe, guest_recipe
from kdumpy.vm.paths import room_for_a_guest
from kdumpy.vm.qemu import Disk, Hardware, Machine

NO_UUIDS: Mapping[str, str] = {}

BOOTS = 2
"""Boots before giving up: on a busy machine a guest's start may panic, or its last word be lost in the crash."""

Builder = Callable[[Kernel, Path], Built]
"""Builds a capture image for a kernel at a path."""


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    console: str
    """What the capture kernel and its ladder printed."""
    disks: Mapping[str, Path]
    """The targets, by label."""
    image: Built
    seconds: float
    """From the panic to power off."""

    @property
    def steps(self) -> list[str]:
        """The ladder's lines on the console, without their `kdumpy: `."""
        return re.findall(r"^kdumpy: (.*?)\s*$", self.console, re.M)

    def fetch(self, label: str, name: str, target: Path) -> Path:
        """Copy a file of the crash's directory out of a disk; LaboratoryError when it is not there."""
        disk = self.disks[label]
        guest.fetch(disk, f"{guest.crash_directory(disk)}/{name}", target)
        return target


def crash(work: Path, image: Builder, disks: Mapping[str, int], *, kernel: str = "6.1",
          fault: str = "sysrq", memory_mib: int = 640, crashkernel: str = "192M", bus: str = "virtio-blk",
          uuids: Mapping[str, str] = NO_UUIDS, extra: tuple[str, ...] = ()) -> Trial:
    """Boot a guest, bring the fault about, wait until its capture image powers off.

    Args:
        work: an empty directory; the disks stay there.
        image: builds the capture image for a kernel at a path.
        disks: label → size in MiB of ext4 file systems for the dump.
        kernel: a name of kernels.LINES.
        fault: a name of faults.FAULTS that is taken by kdump.
        memory_mib: of the guest.
        crashkernel: what is reserved for the capture kernel.
        bus: what the disks for the dump hang on, a key of qemu.BUSES.
        uuids: label → UUID of its file system, where it is to be a certain one.
        extra: further arguments for QEMU.

    Raises:
        LaboratoryError: the guest did not get as far as that.
    """
    chosen = kernels.get(kernel)
    plan = Recipe(chosen, FAULTS[fault], memory_mib=memory_mib, crashkernel=crashkernel)
    initrd, carried, data, loop = (work / name for name in ("initrd", "capture", "data.img", "image"))
    guest.build_initramfs(chosen, [toolchain.build_driver(chosen)], initrd)
    built = image(chosen, carried)
    guest.make_disk(loop, mib=1)
    targets = {label: work / f"{label}.img" for label in disks}
    hardware = Hardware(kernel=chosen.image, initrd=initrd, memory_mib=memory_mib,
                        cmdline=f"{guest.CMDLINE} crashkernel={crashkernel}",
                        disks=(Disk(data, "data"), *(Disk(path, label, bus) for label, path in targets.items())),
                        extra=extra)
    console = work / "console.log"
    for boot in range(BOOTS):
        guest.make_data_disk(data, {"vmlinuz": chosen.image, "initrd": carried, "image": loop,
                                    "recipe": guest_recipe(plan).encode()}, mib=96)
        for label, mib in disks.items():
            guest.make_disk(targets[label], mib=mib, label=label, uuid=uuids.get(label, ""))
        with room_for_a_guest(), Machine(hardware, console) as machine:
            try:
                machine.wait_for(r"LAB ready", BOOT_SECONDS, failures=("LAB failed", "Kernel panic"))
            except LaboratoryError:
                if boot + 1 == BOOTS:
                    raise
                continue
            started = time.monotonic()
            machine.wait_for(r"^kdumpy: ", plan.fault.seconds, failures=("LAB failed", "Rebooting in"))
            machine.wait_for(r"^kdumpy: poweroff", CAPTURE_SECONDS, failures=("Kernel panic",))
            machine.wait_end(60)
            seconds = time.monotonic() - started
            break
    text = console.read_text(errors="replace")
    return Trial(text[text.index("LAB ready"):], targets, built, seconds)


def image(text: str, **more: object) -> Builder:
    """Return a builder for `crash`: the laboratory's capture image with a configuration of its own."""
    return lambda kernel, path: capturing.build_image(kernel, text, path, **more)  # type: ignore[arg-type]
