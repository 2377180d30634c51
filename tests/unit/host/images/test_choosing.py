"""Which builder makes the image, why not another one, and what makes its image stale."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host import images, settings
from kdumpy.host.images import initramfs_tools, luks, memory
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.needs import look
from kdumpy.host.images.result import BuiltImage, path_of, record_of, render
from recordedhost import RecordedSystem, put, recorded

RELEASE = "6.1.0-9-test"
MIB = 1 << 20

PROGRAMS = {"mkinitramfs": "usr/sbin/mkinitramfs", "dracut": "usr/bin/dracut", "mkinitcpio": "usr/bin/mkinitcpio"}


@pytest.fixture
def host(tmp_path: Path) -> RecordedSystem:
    system = recorded(tmp_path)
    put(system.root, "etc/crypttab", "safe /dev/nvme0n1p1 /etc/safe.key luks\n")
    put(system.root, "etc/safe.key", b"x" * 64)
    for name in ("usr/bin/busybox", "usr/sbin/lvm", "usr/sbin/mdadm", "usr/sbin/cryptsetup"):
        put(system.root, name, b"")
    put(system.root, f"lib/modules/{RELEASE}/modules.dep", "")
    return system


def install(host: RecordedSystem, *names: str) -> None:
    for name in names:
        put(host.root, PROGRAMS[name], b"")
    if "dracut" in names:
        put(host.root, "usr/lib/dracut/modules.d/99base/module-setup.sh", b"")
    if "mkinitcpio" in names:
        for hook in ("base", "udev"):
            put(host.root, f"usr/lib/initcpio/install/{hook}", b"")


def chosen(host: RecordedSystem, target: str, builder: str = "auto") -> tuple[str, str]:
    wanted = settings.parse(f'[capture]\ntargets = ["{target}"]\n[image]\nbuilder = "{builder}"\n')
    return images.choose(host, wanted, look(host, wanted))


@pytest.mark.parametrize(("program", "name"), [("mkinitramfs", "initramfs-tools"), ("dracut", "dracut"),
                                               ("mkinitcpio", "mkinitcpio")])
def test_a_plain_disk_takes_our_own_and_a_stack_the_distribution_s(host: RecordedSystem, program: str,
                                                                   name: str) -> None:
    install(host, program)
    assert chosen(host, "/a/var/crash")[0] == "builtin"
    for target in ("/b", "/c/dumps"):
        assert chosen(host, target)[0] == name
    assert "the target lies on raid, lvm" in chosen(host, "/b")[1]


def test_the_distribution_s_own_comes_before_another_that_is_there(host: RecordedSystem) -> None:
    install(host, "dracut", "mkinitcpio")
    assert chosen(host, "/b")[0] == "dracut"
    assert chosen(host, "/b", "mkinitcpio") == ("mkinitcpio", "as configured")


def test_without_any_every_reason_is_told(host: RecordedSystem) -> None:
    with pytest.raises(HostError) as refused:
        chosen(host, "/b")
    for name in ("builtin", "initramfs-tools", "dracut", "mkinitcpio"):
        assert f"not {name}: " in refused.value.why


def test_a_program_of_the_layers_that_is_missing_is_the_reason(host: RecordedSystem) -> None:
    install(host, "mkinitramfs")
    (host.root / "usr/sbin/lvm").unlink()
    with pytest.raises(HostError) as refused:
        chosen(host, "/b", "initramfs-tools")
    assert refused.value.why == "lvm is not installed (lvm2)"


def test_busybox_is_only_needed_for_the_network(host: RecordedSystem) -> None:
    install(host, "mkinitramfs")
    (host.root / "usr/bin/busybox").unlink()
    assert chosen(host, "/b")[0] == "initramfs-tools"
    assert chosen(host, "/a/var/crash")[0] == "initramfs-tools"


def test_its_image_is_stale_when_the_generator_or_the_layers_change(host: RecordedSystem) -> None:
    install(host, "mkinitramfs")
    put(host.root, "etc/lvm/lvm.conf", "devices {}\n")
    hook = put(host.root, "usr/share/initramfs-tools/hooks/lvm2", "#!/bin/sh\n")
    wanted = settings.parse('[capture]\ntargets = ["/b"]\n')
    for change, why in ((lambda: None, ""), (lambda: hook.write_text("#!/bin/sh\nexit 1\n"), "hooks/lvm2"),
                        (lambda: put(host.root, "etc/lvm/lvm.conf", "devices { filter=[] }\n"), "lvm.conf"),
                        (lambda: put(host.root, "etc/mdadm/mdadm.conf", "x"), "mdadm.conf"),
                        (lambda: put(host.root, "usr/sbin/mdadm", b"new"), "mdadm")):
        record(host, wanted)
        change()
        assert (why in images.stale(host, wanted, RELEASE)) if why else images.stale(host, wanted, RELEASE) == ""


def test_its_image_is_stale_when_the_key_changes_or_goes(host: RecordedSystem) -> None:
    install(host, "mkinitramfs")
    wanted = settings.parse('[capture]\ntargets = ["/c/dumps"]\n')
    record(host, wanted)
    assert images.stale(host, wanted, RELEASE) == ""
    put(host.root, "etc/safe.key", b"another")
    assert "/etc/safe.key" in images.stale(host, wanted, RELEASE)
    (host.root / "etc/safe.key").unlink()
    assert "key file" in images.stale(host, wanted, RELEASE)


def test_a_key_that_changes_while_the_image_is_built_makes_it_stale(host: RecordedSystem,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    install(host, "mkinitramfs")
    wanted = settings.parse('[capture]\ntargets = ["/c/dumps"]\n')

    def build(task: Task) -> Made:
        task.output.write_bytes(b"with the old key")
        put(host.root, "etc/safe.key", b"another")
        return Made(16, 4096, ())

    monkeypatch.setattr(initramfs_tools, "build", build)
    monkeypatch.setattr(images, "_python", lambda root, needs: None)
    monkeypatch.setattr(luks, "prove", lambda system, lock: 64 * MIB)
    assert images.build(host, wanted, RELEASE).unlock == 64 * MIB
    assert "/etc/safe.key" in images.stale(host, wanted, RELEASE)
    monkeypatch.setattr(initramfs_tools, "build", lambda task: (task.output.touch(), Made(16, 4096, ()))[1])
    images.build(host, wanted, RELEASE)
    assert images.stale(host, wanted, RELEASE) == ""


def record(host: RecordedSystem, wanted: settings.Settings) -> None:
    needs = look(host, wanted)
    made = images._ingredients(host, wanted, RELEASE, needs, builder="initramfs-tools")
    put(host.root, path_of(RELEASE).lstrip("/"), b"image")
    put(host.root, record_of(RELEASE).lstrip("/"), render(BuiltImage(
        path_of(RELEASE), RELEASE, 16 * MIB, 50 * MIB, "initramfs-tools", "", (), needs.config.targets, 1.0,
        time.time(), made, unlock=64 * MIB)))


def test_memory_counts_the_image_and_what_opens_the_target(host: RecordedSystem) -> None:
    install(host, "mkinitramfs")
    wanted = settings.parse('[capture]\ntargets = ["/b"]\n')
    needs = look(host, wanted)
    assert images.need(host, wanted, RELEASE, needs) == memory.KERNEL + 64 * MIB + memory.CAPTURE
    record(host, wanted)
    assert images.need(host, wanted, RELEASE, needs) == memory.KERNEL + 50 * MIB + memory.CAPTURE
    assert memory.needed(16 * MIB, 50 * MIB, 1 << 30) == memory.KERNEL + 50 * MIB + (1 << 30)
