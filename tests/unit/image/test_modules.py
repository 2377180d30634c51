from __future__ import annotations

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest
import zstandard

from kdumpy.errors import HostError
from kdumpy.image.modules import ModuleTree, module_name, read_module


def tree(directory: Path, dep: str, soft: str = "", builtin: str = "") -> ModuleTree:
    (directory / "modules.dep").write_text(dep)
    (directory / "modules.softdep").write_text(soft)
    (directory / "modules.builtin").write_text(builtin)
    return ModuleTree(directory)


def names(found: ModuleTree, *wanted: str) -> list[str]:
    return [module_name(path.name) for path in found.closure(list(wanted)).files]


def test_needed_modules_come_first_and_once(tmp_path: Path) -> None:
    found = tree(tmp_path, "k/net.ko.xz: k/fail-over.ko.xz k/ring.ko.xz\nk/fail-over.ko.xz: k/ring.ko.xz\n"
                           "k/ring.ko.xz:\nk/blk.ko.xz: k/ring.ko.xz\n")
    assert names(found, "blk", "net") == ["ring", "blk", "fail_over", "net"]


def test_soft_dependencies_go_before_and_after_and_may_form_circles(tmp_path: Path) -> None:
    found = tree(tmp_path, "fs.ko:\nsum-fast.ko:\nlate.ko:\n",
                 soft="softdep fs pre: sum_fast missing post: late\nsoftdep late pre: fs\n")
    assert names(found, "fs") == ["sum_fast", "fs", "late"]


def test_an_alias_stands_for_its_modules(tmp_path: Path) -> None:
    found = tree(tmp_path, "fs.ko:\nsum-fast.ko:\nsum-slow.ko:\n", soft="softdep fs pre: crypto-sum\n")
    (tmp_path / "modules.alias").write_text("alias crypto-sum* sum_slow\nalias crypto_sum sum_fast\n")
    assert names(found, "fs") == ["sum_slow", "sum_fast", "fs"]


def test_a_builtin_is_told_and_not_loaded(tmp_path: Path) -> None:
    found = tree(tmp_path, "a.ko:\n", builtin="kernel/fs/ext4/ext4.ko\n").closure(["ext4", "a"], ["gone", "ext4"])
    assert [path.name for path in found.files] == ["a.ko"]
    assert found.builtin == ("ext4",)
    assert found.absent == ("gone",)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no_such"):
        tree(tmp_path, "a.ko:\n").closure(["no-such"])
    with pytest.raises(HostError, match="depmod"):
        ModuleTree(tmp_path / "elsewhere").closure(["a"])


@pytest.mark.parametrize(("suffix", "pack"), [
    (".ko", bytes), (".ko.xz", lzma.compress), (".ko.gz", gzip.compress),
    (".ko.zst", zstandard.ZstdCompressor(write_content_size=False).compress)])
def test_every_packing_gives_the_same_module(tmp_path: Path, suffix: str, pack: object) -> None:
    contents = b"\x7fELF" + bytes(range(256)) * 40
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pack(contents))  # type: ignore[operator]
    assert read_module(path) == contents


def test_the_order_is_the_one_of_modprobe(installed_tree: ModuleTree) -> None:
    """On a real kernel package: every module of a closure has its needs before it, as modprobe would load them."""
    root, release = installed_tree.directory.parents[2], installed_tree.directory.name
    for name in ("virtio_net", "btrfs", "nf_conntrack_netlink", "overlay", "dm-crypt"):
        if installed_tree.path(name) is None:
            continue
        shown = subprocess.run(["/sbin/modprobe", "-d", str(root), "-S", release, "--show-depends", name],
                               capture_output=True, text=True, check=True).stdout
        theirs = [module_name(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod")]
        ours = names(installed_tree, name)
        assert ours[-1] == module_name(name)
        # libkmod takes only the first of several softdep lines; btrfs has four.
        extra = {"sha256_ssse3", "xxhash_generic"} if name == "btrfs" else set()
        assert set(ours) == set(theirs) | extra
        for module in ours:
            needs = set(names(installed_tree, module)) - {module}
            assert needs <= set(ours[:ours.index(module)])
