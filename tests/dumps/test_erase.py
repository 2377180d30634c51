"""Secrets of a real guest are found and erased: its memory holds them before, and not after."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.fs import for_each_mount

import kdumpy
import lab
import secret_guest
from kdumpy.cli.erasing import all_judged, erase
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.erased import ErasedDump
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel import Kernel, secrets
from kdumpy.kernel.erasure import Erasure, Reach
from kdumpy.kernel.transforms import algorithms

NAMES = ("key", "environment", "argument")


@cache
def opened(kernel: str) -> Kernel:
    return kdumpy.open(secret_guest.dump(kernel).path)


@pytest.fixture(params=lab.KERNELS)
def path(request: pytest.FixtureRequest) -> Path:
    return secret_guest.dump(request.param).path


def places(dump: Dump) -> dict[str, set[int]]:
    """Return the physical addresses at which each secret of the guest stands in a dump's memory."""
    found: dict[str, set[int]] = {name: set() for name in NAMES}
    for run in dump.present():
        for start in range(run.start, run.stop, 2048):
            data = dump.read_pages(range(start, min(start + 2048, run.stop))).tobytes()
            for name in NAMES:
                at = data.find(secret_guest.secret(name))
                while at >= 0:
                    found[name].add(start * dump.page_size + at)
                    at = data.find(secret_guest.secret(name), at + 1)
    return found


@cache
def places_before(path: Path) -> dict[str, set[int]]:
    """Return where each secret stands before anything is erased."""
    with open_dump(path) as dump:
        return places(dump)


def test_a_guest_without_its_secrets(path: Path) -> None:
    with open_dump(path) as dump:
        before = places_before(path)
        assert all(before.values()), before         # in the clear, each of them
        erased = erase(dump, path, ["keys", "environment", "user"])
        assert all_judged(erased)
        assert places(erased) == {name: set() for name in NAMES}
        assert b"erase key.payload size" in erased.eraseinfo
        assert b"erase user.pages size" in erased.eraseinfo


def test_keys_alone_are_taken_from_the_kernel_and_nothing_else(path: Path) -> None:
    with open_dump(path) as dump:
        before = places_before(path)
        after = places(erase(dump, path, ["keys"]))
        # What remains stands in pages of processes and in free ones: that is what `user` is for.
        assert len(before["key"] - after["key"]) == 1
        assert (after["environment"], after["argument"]) == (before["environment"], before["argument"])


def test_environments_alone(path: Path) -> None:
    with open_dump(path) as dump:
        before = places_before(path)
        after = places(erase(dump, path, ["environment"]))
        assert before["environment"] - after["environment"]
        assert after["key"] == before["key"]


def test_what_is_erased_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_dump(path) as dump:
        erase(dump, path, ["keys"])
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("kdumpy: ") for line in told)
    assert any("payloads of keys in keyrings" in line and "erased" in line for line in told)
    with open_dump(lab.dump("6.1", "sysrq").path) as dump:
        erase(dump, lab.dump("6.1", "sysrq").path, ["keys"])
    assert "kdumpy: none found: dm-crypt keys" in capsys.readouterr().err.splitlines()


def test_transforms_are_found_by_their_algorithms() -> None:
    kernel = opened("6.1")
    found = next(iter(each for each in secrets.extents(kernel, ["keys"]) if each.name.startswith("crypto_tfm")))
    assert {one.name for one in algorithms(kernel.prog)} >= {"aes-generic", "sha256-generic"}
    # The file system on the data disk has one, and points to it.
    superblock = next(sb for sb in for_each_mount(kernel.prog)
                      if sb.mnt.mnt_sb.s_type.name.string_() == b"ext4").mnt.mnt_sb
    info = drgn.Object(kernel.prog, "struct ext4_sb_info *", value=superblock.s_fs_info.value_())
    context = info.s_chksum_driver.base.__crt_ctx.address_of_().value_()
    assert Reach(kernel).memory.translate(context) in {start for start, _size in found.extents}


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_a_member_of_every_object_and_of_a_variable(kernel: str) -> None:
    found = opened(kernel)
    everywhere, variable, pointed = secrets.extents(
        found, ["task_struct.comm", "init_uts_ns.name.nodename", "task_struct.stack:64"])
    tasks = list(found.tasks())
    reach = Reach(found)
    comms = {reach.memory.translate(found.task_object(task.address).comm.address_of_().value_()) for task in tasks}
    assert comms <= {start for start, _size in everywhere.extents}
    assert {size for _start, size in everywhere.extents} == {16}
    with open_dump(secret_guest.dump(kernel).path) as dump:
        erased = ErasedDump(dump, everywhere.extents + variable.extents)
        assert {erased.read_physical(place, 16) for place in comms} == {b"X" * 16}
        assert dump.read_physical(variable.extents[0][0], 10) == b"laboratory"
        assert erased.read_physical(variable.extents[0][0], 10) == b"X" * 10
    assert variable.size == 65
    assert pointed.size == 64 * pointed.count


@pytest.mark.parametrize(("name", "error"), [
    ("no_such_thing", NotInDump), ("no_such_struct.member", NotInDump), ("task_struct.no_such_member", NotInDump),
    ("init_uts_ns.name.no_such_member", NotInDump), ("a b", UsageError), ("", UsageError), ("..", UsageError),
    ("task_struct.stack", UsageError), ("task_struct.comm:many", NotInDump), ("task_struct.comm:0x", UsageError),
    ("cred.uid", NotInDump),
])
def test_a_wrong_name_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        secrets.extents(opened("6.1"), [name])


def test_what_cannot_be_judged_is_said() -> None:
    path = lab.dump("6.1", "live").path     # it has no pages left out, so that all can be judged
    with open_dump(path) as dump:
        assert all_judged(erase(dump, path, ["keys"]))
    sought = Erasure("key.payload", "payloads of keys in keyrings", not_judged="the page is missing")
    assert sought.as_json()["not_judged"] == "the page is missing"
    assert sought.eraseinfo == ""
    assert not all_judged(ErasedDump(open_dump(path), [], told=(sought.as_json(),)))
