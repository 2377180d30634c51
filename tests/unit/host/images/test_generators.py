"""The builders by initramfs-tools and dracut, whose real programs run here and make whole images.

mkinitcpio is no Debian package: its builder is tried where it is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from kdumpy.image import unpacking
from kdumpy.image.cpio import Entry
from kdumpy.vm import capturing, kernels
from recordedhost import put, recorded

TESTS = Path(__file__).parents[3]

KEY = b"nobody else may read this key"

GENERATORS = {"initramfs-tools": "mkinitramfs", "dracut": "dracut", "mkinitcpio": "mkinitcpio"}

HOST_FILES = ("/etc/initramfs-tools", "/etc/dracut.conf.d", "/etc/dracut.conf", "/usr/lib/dracut/modules.d",
              "/usr/share/initramfs-tools", "/etc/mkinitcpio.conf", "/usr/lib/initcpio")


@pytest.fixture(params=list(GENERATORS), scope="module")
def generator(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if shutil.which(GENERATORS[name]) is None:
        pytest.skip(f"{GENERATORS[name]} is not installed")
    return name


@pytest.fixture(scope="module")
def built(generator: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Entry], str]:
    """Return generator, files of its image for an encrypted target, and what it said."""
    work = tmp_path_factory.mktemp(generator)
    before = host_state()
    kernel = kernels.get("6.1")
    host = work / "host"
    recorded(host)
    put(host, "etc/crypttab", "safe /dev/nvme0n1p1 /etc/safe.key luks\n")
    put(host, "etc/safe.key", KEY)
    (work / "task").mkdir()
    command: list[str | Path] = ["unshare", "--mount", *([] if root() else ["--map-root-user"]), sys.executable,
               TESTS / "generatorimage.py", generator, kernel.release, "/c/dumps", kernel.modules.directory,
               kernel.root / "boot" / f"config-{kernel.release}", capturing.packed_python().tree.root,
               work / "image", work / "task", host]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host_state() == before
    entries = {entry.name: entry for entry in unpacking.entries((work / "image").read_bytes())}
    return generator, entries, done.stdout


@cache
def root() -> bool:
    return subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout.strip() == "0"


def host_state() -> str:
    """Return what the host has of generators' configuration and modules, as one hash."""
    digest = hashlib.sha256()
    for name in HOST_FILES:
        for path in (Path(name), *sorted(Path(name).rglob("*"))):
            if path.exists():
                state = path.stat()
                digest.update(f"{path} {state.st_mode} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def text(entries: dict[str, Entry], name: str) -> str:
    return entries[name].contents().decode()


def test_it_holds_python_numpy_kdumpy_and_the_ladder(built: tuple[str, dict[str, Entry], str]) -> None:
    entries = built[1]
    library = f"usr/lib/kdumpy/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("kdumpy/capture/__main__.pyc", "kdumpy/dumpfile/__init__.pyc", "numpy/__init__.pyc",
                 "zstandard/__init__.pyc", "kdumpy_start.pyc"):
        assert f"{library}/{name}" in entries
    for name in ("ladder", "begin", "final-action", "bin/python3"):
        assert stat.S_IMODE(entries[f"usr/lib/kdumpy/{name}"].mode) == 0o755
    assert "disk:UUID=" in text(entries, "etc/kdumpy-capture.toml")


def test_the_generator_s_init_hands_over_to_the_ladder(built: tuple[str, dict[str, Entry], str]) -> None:
    generator, entries, _said = built
    assert "init" in entries
    if generator == "initramfs-tools":
        assert "BOOT=kdumpy" in text(entries, "conf/conf.d/zz-kdumpy").splitlines()
        assert "exec /usr/lib/kdumpy/begin" in text(entries, "scripts/kdumpy")
        assert not [name for name in entries if name.startswith(("scripts/local-top/", "scripts/init-premount/"))]
    elif generator == "dracut":
        hooks = next(prefix for prefix in ("usr/lib", "lib", "var/lib") if f"{prefix}/dracut/hooks" in entries)
        assert "exec /usr/lib/kdumpy/begin" in text(entries, f"{hooks}/dracut/hooks/pre-mount/00-capture.sh")
        assert "root=kdumpy" in text(entries, f"{hooks}/dracut/hooks/cmdline/99-no-root.sh")
        assert not [name for name in entries if name.endswith("/systemd/systemd")]
    else:
        assert 'HOOKS="udev kdumpy"' in text(entries, "config").splitlines()


def test_only_drivers_that_the_target_needs_are_in_it(built: tuple[str, dict[str, Entry], str]) -> None:
    modules = {Path(name).name.split(".ko")[0].replace("-", "_") for name in built[1] if ".ko" in name}
    assert {"dm_mod", "dm_crypt", "xts"} <= modules     # nvme and ext4 are part of this kernel
    assert not {"virtio_blk", "raid1", "xfs", "e1000"} & modules
    assert text(built[1], "etc/kdumpy/modules").split()[-1] in modules


def test_the_key_is_for_root_alone_and_the_script_asks_nobody(built: tuple[str, dict[str, Entry], str]) -> None:
    entries = built[1]
    assert entries["etc/kdumpy/keys/safe"].contents() == KEY
    assert stat.S_IMODE(entries["etc/kdumpy/keys/safe"].mode) == 0o600
    assert stat.S_IMODE(entries["etc/kdumpy-capture.toml"].mode) == 0o600
    script = text(entries, "etc/kdumpy/layers")
    assert "--batch-mode --tries 1 --key-file /etc/kdumpy/keys/safe" in script
    assert "shadow" not in {Path(name).name for name in entries}


def test_programs_of_the_layers_find_their_libraries(built: tuple[str, dict[str, Entry], str], tmp_path: Path) -> None:
    """The image, laid out, is the root of its own programs: what the capture kernel would call runs here."""
    entries = built[1]
    whole = {entry.inode: entry for entry in entries.values() if entry.size()}
    for entry in sorted(entries.values(), key=lambda entry: entry.name):
        place = tmp_path / entry.name
        if stat.S_ISDIR(entry.mode):
            place.mkdir(exist_ok=True)
        elif stat.S_ISLNK(entry.mode):
            place.symlink_to(entry.contents().decode())
        elif stat.S_ISREG(entry.mode):
            place.write_bytes(whole.get(entry.inode, entry).contents())
            place.chmod(stat.S_IMODE(entry.mode))
    change = ["chroot"] if root() else ["unshare", "--map-root-user", "chroot"]
    for words, wanted in ((("cryptsetup", "--version"), "cryptsetup 2"),
                          (("/usr/lib/kdumpy/tools/sh", "-n", "/etc/kdumpy/layers"), ""),
                          (("/usr/lib/kdumpy/bin/python3", "-I", "-S", "-c",
                            "import kdumpy.capture.ladder, numpy; print(numpy.arange(3).sum())"), "3")):
        done = subprocess.run([*change, tmp_path, *words], capture_output=True, text=True, check=False,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": "/usr/lib/kdumpy/lib"})
        assert (done.returncode, wanted in done.stdout) == (0, True), done


def test_it_is_small(built: tuple[str, dict[str, Entry], str]) -> None:
    unpacked = sum(-(-entry.size() // 4096) * 4096 for entry in built[1].values())
    assert unpacked < 72 << 20
    assert not [name for name in built[1] if "/firmware/" in name or name.endswith("hwdb.bin")]
