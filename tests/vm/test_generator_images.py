"""Images made by the distributions' generators, booted by a crash: their init hands over, the dump arrives.

The disk is a plain one of the laboratory's guest; tests/vm/test_debian_layers.py has LVM, RAID and LUKS.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import generatorimage
import lab
from kdumpy.dumpfile import open_dump
from kdumpy.host import cmdline
from kdumpy.image.capture import Built
from kdumpy.vm import bootparams, capturing, guest, kernels, rehearsal
from kdumpy.vm.capturing import OUT
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.rehearsal import Subject
from kdumpy.vm.rehearsalguest import fault_of
from kdumpy.vm.targetdisk import TargetDisk
from kdumpy.vm.trial import Builder, crash
from recordedhost import recorded

UUID = "33333333-2222-4333-8444-000000000000"

GENERATORS = {"initramfs-tools": "mkinitramfs", "dracut": "dracut", "mkinitcpio": "mkinitcpio"}

pytestmark = pytest.mark.skipif(not lab.FULL, reason="KDUMPY_MATRIX=full")


def builder(name: str, work: Path, program: Path = Path(generatorimage.__file__)) -> Builder:
    """Return what makes an image by a generator for a disk of the guest."""
    def build(kernel: Kernel, path: Path) -> Built:
        host = work / "host"
        recorded(host, contents={"254:1": ("ext4", UUID)})
        (work / "task").mkdir()
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, program, name, kernel.release, "/a/dumps", kernel.modules.directory,
             kernel.root / "boot" / f"config-{kernel.release}", capturing.packed_python().tree.root, path,
             work / "task", host], capture_output=True, text=True, check=False, timeout=600,
            cwd=Path(generatorimage.__file__).parent)
        assert done.returncode == 0, done.stdout + done.stderr
        made = re.search(r"^made (\d+) (\d+) (.*)$", done.stdout, re.M)
        assert made is not None
        return Built(path, int(made[1]), int(made[2]), tuple(made[3].split()))
    return build


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_crash_arrives(tmp_path: Path, name: str) -> None:
    if shutil.which(GENERATORS[name]) is None:
        pytest.skip(f"{GENERATORS[name]} is not installed")
    work = tmp_path / "work"
    work.mkdir()
    done = crash(tmp_path, builder(name, work), {OUT: 800}, uuids={OUT: UUID})
    saved = re.search(rf"^kdumpy: saved UUID={UUID}: /(dumps/\S+/vmcore)", done.console, re.M)
    assert saved, done.steps
    guest.fetch(done.disks[OUT], saved[1], tmp_path / "vmcore")
    with open_dump(tmp_path / "vmcore") as dump:
        assert "cloud" in dump.vmcoreinfo.osrelease
    print(name, done.image.bytes, done.image.unpacked, [step for step in done.steps if "memory" in step])


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_rehearsal_takes_it(tmp_path: Path, name: str) -> None:
    if shutil.which(GENERATORS[name]) is None:
        pytest.skip(f"{GENERATORS[name]} is not installed")
    for folder in ("work", "run"):
        (tmp_path / folder).mkdir()
    kernel, mib = kernels.get("6.1"), 1 << 20
    built = builder(name, tmp_path / "work")(kernel, tmp_path / "image")
    fault = fault_of("sysrq", 1024)
    text, _left = bootparams.crashed("", 256 * mib, fault.boot)
    found = rehearsal.run(Subject(
        kernel=kernel.image, release=kernel.release, modules=kernel.modules, image=built.path, unpacked=built.unpacked,
        cmdline=text, crashkernel=256 * mib, disk=TargetDisk(1280, uuid=UUID), fault=fault,
        capture_cmdline=bootparams.capture(cmdline.capture_cmdline("", "x86_64"))), tmp_path / "run")
    assert found.trouble is None, found.trouble
    assert found.dump is not None
    with open_dump(found.dump) as dump:
        assert not dump.incomplete
    assert found.memory is not None
    print(name, f"{found.seconds:.0f} s, used {found.memory.used >> 20} MiB, need {found.memory.need >> 20} MiB")
