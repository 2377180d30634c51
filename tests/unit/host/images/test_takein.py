"""What a generator's hook does to the image in the making: takes our files in, throws out what no capture needs."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from kdumpy.host.images.takein import take_in


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    root = tmp_path / "stage"
    for name, data in (("add/lib/x86/libc.so.6", "ours"), ("add/lib/x86/libpython.so", "python"),
                       ("add/usr/lib/kdumpy/bin/busybox", "busy"), ("over/usr/lib/kdumpy/ladder", "climb"),
                       ("over/etc/hosts", "10.0.0.1 dumps\n"), ("over/etc/kdumpy/keys/safe", "secret"),
                       ("modules", "ext4\ndm_mod\n")):
        put(root, name, data)
    (root / "add/lib64").mkdir()
    (root / "add/lib64/ld.so").symlink_to("/lib/x86/ld.so")
    (root / "over/etc/kdumpy/keys/safe").chmod(0o600)
    (root / "over/usr/lib/kdumpy/ladder").chmod(0o755)
    return root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Lay out what a generator has made so far, merged into /usr."""
    root = tmp_path / "image"
    for name in ("lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("lib/x86/libc.so.6.1", "lib/modules/6.1/kernel/ext4.ko", "lib/modules/6.1/kernel/dm-mod.ko.xz",
                 "lib/modules/6.1/kernel/drm/i915.ko.zst", "lib/firmware/i915/x.bin", "usr/bin/busybox",
                 "lib/udev/hwdb.bin", "lib/udev/rules.d/69-lvm.rules", "lib/udev/rules.d/55-dm.rules",
                 "scripts/local-top/cryptroot", "scripts/init-top/udev", "cryptroot/crypttab", "etc/shadow"):
        put(root, name, "busy" if name.endswith("busybox") else "theirs")
    (root / "usr/lib/x86/libc.so.6").symlink_to("libc.so.6.1")
    put(root, "etc/hosts", "127.0.0.1 localhost\n")
    return root


def put(root: Path, name: str, data: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(data)


def test_links_of_the_image_lead_on_and_what_is_there_stays(stage: Path, image: Path) -> None:
    take_in(stage, image)
    assert (image / "lib").is_symlink()
    assert (image / "usr/lib/x86/libc.so.6").readlink() == Path("libc.so.6.1")
    assert (image / "usr/lib/x86/libpython.so").read_text() == "python"
    assert (image / "usr/lib64/ld.so").readlink() == Path("/lib/x86/ld.so")


def test_ours_replace_the_generator_s_with_their_modes(stage: Path, image: Path) -> None:
    take_in(stage, image)
    assert (image / "etc/hosts").read_text() == "10.0.0.1 dumps\n"
    assert stat.S_IMODE((image / "etc/kdumpy/keys/safe").stat().st_mode) == 0o600
    assert stat.S_IMODE((image / "usr/lib/kdumpy/ladder").stat().st_mode) == 0o755


def test_drivers_firmware_and_what_would_start_a_root_go(stage: Path, image: Path) -> None:
    take_in(stage, image)
    left = {str(path.relative_to(image / "usr")) for path in (image / "usr/lib").rglob("*") if path.is_file()}
    modules = "lib/modules/6.1/kernel"
    assert {f"{modules}/ext4.ko", f"{modules}/dm-mod.ko.xz", "lib/udev/rules.d/55-dm.rules"} <= left
    assert not [name for name in left if "i915" in name or "hwdb" in name or "69-lvm" in name]
    assert not (image / "scripts/local-top").exists()
    assert (image / "scripts/init-top/udev").exists()
    assert not (image / "cryptroot").exists()
    assert not (image / "etc/shadow").exists()


def test_the_same_busybox_is_there_once(stage: Path, image: Path) -> None:
    take_in(stage, image)
    assert (image / "usr/lib/kdumpy/bin/busybox").readlink() == Path("/usr/bin/busybox")


def test_another_busybox_stays_beside_ours(stage: Path, image: Path) -> None:
    (image / "usr/bin/busybox").write_text("less")
    take_in(stage, image)
    assert (image / "usr/lib/kdumpy/bin/busybox").read_text() == "busy"


def test_twice_is_as_once(stage: Path, image: Path) -> None:
    take_in(stage, image)
    before = sorted(str(path) for path in image.rglob("*"))
    take_in(stage, image)
    assert sorted(str(path) for path in image.rglob("*")) == before


@pytest.mark.parametrize("link", ["lib", "usr/lib/modules", "etc/kdumpy", "usr/lib/udev"])
def test_a_link_that_leads_out_of_the_image_leaves_the_host_as_it_is(stage: Path, image: Path, tmp_path: Path,
                                                                     link: str) -> None:
    host = tmp_path / "host"
    for name in ("firmware/x.bin", "modules/6.1/i915.ko", "6.1/i915.ko", "keys/safe", "hwdb.bin",
                 "rules.d/69-lvm.rules"):
        put(host, name, "the host's")
    if (image / link).is_symlink():
        (image / link).unlink()
    elif (image / link).is_dir():
        shutil.rmtree(image / link)
    (image / link).parent.mkdir(parents=True, exist_ok=True)
    (image / link).symlink_to(host)
    before = {path: path.read_text() for path in host.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="a link leads out of the image"):
        take_in(stage, image)
    assert {path: path.read_text() for path in host.rglob("*") if path.is_file()} == before
