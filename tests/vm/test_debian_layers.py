"""A whole Debian whose dumps go to LVM on RAID, and to LUKS on that: by initramfs-tools, then by dracut.

Two disks make an array, the array a volume group, and one of its volumes is encrypted, with a key file that crypttab
names. One story, told in the order of the tests; each crash is a real one, and its report is read after the reboot.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import packaged
from debianstory import Story, begun, check_order
from kdumpy.vm.qemu import Disk

pytestmark = pytest.mark.skipif(os.environ.get("KDUMPY_MATRIX") != "full",
                                reason="nine boots of a whole system: taken in the full matrix only")

PACKAGES = ("lvm2", "cryptsetup-bin", "dracut-core", "mdadm")

COMES_BACK_S = 1200
"""Seconds from a crash to the agent's greeting after it: two boots, on a busy machine."""

BUILDS_S = 1800

STORAGE = r"""
mdadm --create /dev/md/lab --run --level=1 --raid-devices=2 --assume-clean --homehost=any --bitmap=none \
    /dev/disk/by-id/virtio-one /dev/disk/by-id/virtio-two
udevadm settle
pvcreate -q /dev/md/lab
vgcreate -q crash-vg /dev/md/lab
lvcreate -q -y -Wy -L 320M -n dumps crash-vg
lvcreate -q -y -Wy -L 320M -n locked crash-vg
mkfs.ext4 -q /dev/crash-vg/dumps
mkdir -p /etc/keys /srv/lv /srv/safe
chmod 700 /etc/keys
(umask 077; head -c 64 /dev/urandom >/etc/keys/safe.key)
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/crash-vg/locked /etc/keys/safe.key
cryptsetup open --key-file /etc/keys/safe.key /dev/crash-vg/locked safe
mkfs.ext4 -q /dev/mapper/safe
echo "safe UUID=$(cryptsetup luksUUID /dev/crash-vg/locked) /etc/keys/safe.key luks,nofail" >/etc/crypttab
echo "/dev/crash-vg/dumps /srv/lv ext4 nofail 0 2" >>/etc/fstab
echo "/dev/mapper/safe /srv/safe ext4 nofail 0 2" >>/etc/fstab
systemctl daemon-reload
mount /srv/lv
mount /srv/safe
# A busy machine without KVM: see vm/guest.py, CMDLINE. The capture kernel inherits it.
sed -i 's/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check"/' /etc/default/grub
"""

GENERATORS = r"""
find /etc/initramfs-tools /usr/share/initramfs-tools /etc/dracut.conf.d /usr/lib/dracut /boot /var/tmp -printf \
    '%p %m %s %T@\n' 2>/dev/null |
    grep -v '^/boot/grub\|^/var/tmp \|^/var/tmp/systemd-private-\|^/var/tmp/dracut[.]' | LC_ALL=C sort
"""
"""Without what systemd makes at each boot for services with a /var/tmp of their own, and what mdadm-shutdown.service
leaves: it runs dracut at each reboot, which is killed. kdumpy's runs of dracut have a directory of their own."""


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = tmp_path_factory.mktemp("layers")
    disks = []
    for name in ("one", "two"):
        with (home / f"{name}.img").open("wb") as file:
            file.truncate(700 << 20)
        disks.append(Disk(home / f"{name}.img", name))
    with begun(home, request.session.testsfailed, packages=PACKAGES, disks=tuple(disks)) as told:
        told.guest.shell(STORAGE, seconds=300)
        told.guest.put(packaged.deb(), "/root/kdumpy.deb")
        told.guest.shell("dpkg --install /root/kdumpy.deb", seconds=600)
        told.before = told.guest.shell(GENERATORS)
        yield told
    for disk in disks:
        disk.path.unlink()


@pytest.fixture(autouse=True)
def in_order(story: Story, request: pytest.FixtureRequest) -> None:
    check_order(story, request)


def image(story: Story) -> dict[str, Any]:
    """Return what is known of the capture image."""
    found: dict[str, Any] = json.loads(story.guest.run(("kdumpy", "image", "--check", "--json")).out)
    assert found["fresh"], found["why"]
    return dict(found["image"])


def unchanged(story: Story) -> None:
    """See that the generators, their configuration and what they have made are as before the setup."""
    assert set(story.guest.shell(GENERATORS).splitlines()) ^ set(story.before.splitlines()) == set()


def ready(story: Story) -> None:
    status = story.guest.run(("kdumpy", "status"), seconds=300)
    assert status.code == 0, status.out + story.guest.shell("journalctl -b -u kdumpy --no-pager | tail -20")


def crash(story: Story, folder: str) -> str:
    """Crash the guest for real; return what the capture kernel wrote of its steps."""
    before = {row["path"] for row in json.loads(story.guest.shell("kdumpy list --json"))}
    story.guest.send(("kdumpy", "test", "--yes-crash-this-machine"), seconds=300)
    story.guest.wait_for_boot(COMES_BACK_S)
    rows = [row for row in json.loads(story.guest.shell("kdumpy list --json")) if row["path"] not in before]
    assert [row["state"] for row in rows] == ["complete"], rows
    place = Path(rows[0]["path"]).parent
    assert re.fullmatch(rf"{folder}/web-3-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d", str(place))
    story.guest.shell("while systemctl is-active -q kdumpy-report || [ $(systemctl show -P ActiveState kdumpy-report) "
                      "= activating ]; do sleep 1; done", seconds=300)
    report = json.loads(story.guest.get(f"{place}/report.json"))
    assert report["verdict"]["cause"] == "sysrq"
    assert report["dump"]["health"] == "complete"
    return story.guest.get(f"{place}/kexec-dmesg.log").decode()


def test_a_volume_on_an_array_takes_the_distribution_s_generator(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --yes --target /srv/lv/crash", seconds=BUILDS_S)
    assert "capture image by initramfs-tools: not builtin: the target lies on raid, lvm" in said
    made = image(story)
    assert made["builder"] == "initramfs-tools"
    assert made["unpacked"] < 64 << 20
    assert {"dm_mod", "md_mod", "raid1", "virtio_blk"} <= set(made["modules"])
    assert not {"raid456", "raid10", "dm_crypt", "virtio_net"} & set(made["modules"])
    assert story.guest.shell("stat -c %a /var/lib/kdumpy/*.img").strip() == "600"
    unchanged(story)
    story.guest.reboot()
    ready(story)


def test_a_crash_arrives_on_the_volume(story: Story) -> None:
    steps = crash(story, "/srv/lv/crash")
    assert re.search(r"kdumpy: layers: the array /dev/md\d+ is there", steps)
    assert "kdumpy: layers: the volume crash-vg/dumps is there" in steps
    assert "safe" not in steps
    ready(story)


def test_without_a_key_an_encrypted_target_is_refused(story: Story) -> None:
    story.guest.shell("cp -p /etc/crypttab /root/; sed -i 's,/etc/keys/safe.key,none,' /etc/crypttab")
    refused = story.guest.run(("kdumpy", "setup", "--yes", "--target", "/srv/safe/crash"), seconds=300)
    assert refused.code == 3
    assert "nobody is there to type the passphrase" in refused.err
    assert "luksAddKey --pbkdf pbkdf2 /dev/dm-" in refused.err
    assert 'targets = ["/srv/lv/crash"]' in story.guest.shell("cat /etc/kdumpy.toml")
    story.guest.shell("cp -p /root/crypttab /etc/crypttab")


def test_a_key_that_does_not_open_it_is_found_out_before_the_crash(story: Story) -> None:
    story.guest.shell("install -d -m 700 /etc/kdumpy/luks; echo wrong >/etc/kdumpy/luks/safe.key")
    refused = story.guest.run(("kdumpy", "setup", "--yes", "--target", "/srv/safe/crash"), seconds=300)
    assert refused.code == 3
    assert "the key does not open the encrypted target" in refused.err
    story.guest.shell("rm -r /etc/kdumpy")


def test_an_encrypted_volume_is_opened_with_the_key_of_crypttab(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --yes --target /srv/safe/crash", seconds=BUILDS_S)
    assert "safe is encrypted: the capture image carries its key (/etc/keys/safe.key)" in said
    made = image(story)
    assert made["unlock"] == 0
    assert "dm_crypt" in made["modules"]
    ready(story)
    steps = crash(story, "/srv/safe/crash")
    assert "kdumpy: layers: the encrypted device safe is there" in steps
    assert "volume crash-vg/dumps" not in steps
    ready(story)


def test_dracut_makes_such_an_image_as_well(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --yes --set image.builder=dracut --target /srv/lv/crash", seconds=BUILDS_S)
    assert "capture image by dracut: as configured" in said
    if "crashkernel=" not in story.guest.shell("cat /proc/cmdline"):        # this part of the story is told alone
        story.guest.reboot()
    assert image(story)["builder"] == "dracut"
    unchanged(story)
    ready(story)
    assert "kdumpy: layers: the volume crash-vg/dumps is there" in crash(story, "/srv/lv/crash")


def test_undo_leaves_the_generators_as_they_were(story: Story) -> None:
    story.guest.shell("rm -rf /srv/lv/crash/web-3-* /srv/safe/crash/web-3-*")
    undone = story.guest.run(("kdumpy", "setup", "--undo", "--yes"), seconds=300)
    assert undone.code == 0, undone
    unchanged(story)
    assert not story.guest.shell("ls -A /srv/lv /srv/safe | grep crash || true").strip()
