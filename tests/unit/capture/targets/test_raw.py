"""A bare device: what may be overwritten, and that the dump and the small files come back from it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpy.capture.targets import rawtable, target_of
from kdumpy.capture.targets.raw import refuse_if_used
from kdumpy.capture.targets.rawtable import Entry, Layout, Table
from kdumpy.dumpfile import open_dump
from kdumpy.errors import HostError, NoSpace, UsageError
from saving import assert_is_the_dump, config, run, save_dump

Loop = Callable[[int], Path]


def test_a_dump_is_read_straight_from_the_device(loop: Loop, tmp_path: Path) -> None:
    device = loop(128)
    target = target_of(f"raw:{device}", config(), "web-3-2026-11-23-17:58:57")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"[    0.000000] Linux\n")
    assert save_dump(target) == "vmcore"
    digest = target.digest("vmcore")
    target.put("kexec-dmesg.log", b"steps\n")
    target.close()
    assert_is_the_dump(device)

    # What the documentation tells to do with a shell alone.
    table = run("tail", "-c", "4096", device).rstrip(b"\0").decode().splitlines()
    assert table[:2] == ["kdumpy raw 1", "directory web-3-2026-11-23-17:58:57"]
    assert table[2] == f"start {rawtable.contents(device, Entry('vmcore', 0, 16)).hex()}"
    places = {line.split(" ", 3)[3]: line.split(" ", 3)[1:3] for line in table[3:-1]}
    assert list(places) == ["vmcore", "vmcore-dmesg.txt", "kexec-dmesg.log"]
    for name, (offset, size) in places.items():
        run("dd", f"if={device}", f"of={tmp_path / name}", "bs=1M", f"skip={offset}", f"count={size}",
            "iflag=skip_bytes,count_bytes")
    assert (tmp_path / "vmcore-dmesg.txt").read_bytes() == b"[    0.000000] Linux\n"
    assert (tmp_path / "kexec-dmesg.log").read_bytes() == b"steps\n"
    assert hashlib.sha256((tmp_path / "vmcore").read_bytes()).hexdigest() == digest
    assert_is_the_dump(tmp_path / "vmcore")


def test_a_crash_is_collected_from_the_device(loop: Loop, tmp_path: Path) -> None:
    device = loop(128)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"log")
    save_dump(target)
    target.close()
    found = rawtable.collect(device, tmp_path)
    assert found == tmp_path / "here"
    assert (found / "vmcore-dmesg.txt").read_bytes() == b"log"
    assert_is_the_dump(found / "vmcore")


def test_an_empty_device_has_nothing_to_collect(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no crash on the device"):
        rawtable.collect(loop(16), tmp_path)


def test_the_next_crash_overwrites_the_one_before_and_the_same_crash_adds(loop: Loop) -> None:
    device = loop(64)
    for directory, name in (("first", "vmcore-dmesg.txt"), ("first", "kexec-dmesg.log"), ("second", "kexec-dmesg.log")):
        target = target_of(f"raw:{device}", config(), directory)
        target.prepare()
        target.put(name, directory.encode())
        target.close()
        found = rawtable.read(device)
        assert found is not None
        if name == "kexec-dmesg.log" and directory == "first":
            assert [rawtable.contents(device, entry) for entry in found.entries] == [b"first", b"first"]
    assert found is not None
    assert (found.directory, [entry.name for entry in found.entries]) == ("second", ["kexec-dmesg.log"])


def mkfs(device: Path) -> None:
    run("mkfs.ext4", "-q", "-F", device)


@pytest.mark.parametrize("what", ["ext4", "mounted", "data"])
def test_what_is_no_dump_is_not_overwritten(loop: Loop, tmp_path: Path, what: str) -> None:
    device = loop(32)
    if what == "data":
        device.write_bytes(b"precious" * 100)
    else:
        mkfs(device)
    if what == "mounted":
        run("mount", device, tmp_path)
    before = device.read_bytes()
    expected = {"ext4": "holds ext4", "mounted": f"is mounted: on {tmp_path}", "data": "70 72 65 63 69 6f 75 73"}[what]
    with pytest.raises(HostError, match=expected):
        target_of(f"raw:{device}", config(), "here").prepare()
    if what != "mounted":
        assert device.read_bytes() == before
        target = target_of(f"raw:{device}", config(raw_overwrite=True), "here")
        target.prepare()
        target.put("vmcore-dmesg.txt", b"log")
        target.close()
        refuse_if_used(device)  # nothing of what was there is left
    else:
        with pytest.raises(HostError, match="is mounted"):
            target_of(f"raw:{device}", config(raw_overwrite=True), "here").prepare()


def test_a_file_system_made_after_a_capture_is_not_overwritten(loop: Loop) -> None:
    device = loop(128)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    save_dump(target)
    target.close()
    refuse_if_used(device)
    other = loop(128)
    mkfs(other)
    with other.open("rb") as source, device.open("r+b") as file:
        file.write(source.read(1 << 20))
    assert rawtable.read(device) is not None    # not every mkfs wipes a device's end
    with pytest.raises(HostError, match="holds ext4"):
        refuse_if_used(device)


def test_an_encrypted_dump_that_looks_like_a_file_system_is_still_ours(loop: Loop) -> None:
    device = loop(32)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    stream = target.stream("vmcore.flat.gpg")
    stream.write(b"\x84\x5e" + bytes(range(250)) * 4 + bytes(78) + b"\x53\xef" + bytes(9000))
    stream.finish()
    target.keep("vmcore.flat.gpg", 10000)
    target.close()
    refuse_if_used(device)
    with device.open("r+b") as file:
        file.write(b"else")
    with pytest.raises(HostError, match="holds ext2"):
        refuse_if_used(device)


def test_a_device_that_is_swapped_to_is_in_use(loop: Loop) -> None:
    device = loop(32)
    run("mkswap", device)
    if subprocess.run(["swapon", device], check=False, capture_output=True).returncode:
        pytest.skip("no right to swap here")
    try:
        with pytest.raises(HostError, match="is in use"):
            refuse_if_used(device, overwrite=True)
    finally:
        run("swapoff", device)


def test_a_dump_that_dd_left_may_be_overwritten(loop: Loop) -> None:
    device = loop(32)
    with device.open("r+b") as file:
        file.write(b"\x7fELF\x02\x01\x01" + bytes(100))
    refuse_if_used(device)


def test_a_dump_stops_before_the_small_files(loop: Loop) -> None:
    device = loop(64)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"log")
    limit = target.free_bytes()
    assert limit == Layout(64 << 20).dump_limit
    assert limit is not None
    sink = target.open("vmcore")
    sink.write_at(limit - 4096, b"x" * 4096)
    with pytest.raises(NoSpace, match="are for the dump"):
        sink.write_at(limit - 4096, b"x" * 4097)
    assert target.abandon("vmcore", limit).endswith(": vmcore-incomplete")
    found = rawtable.read(device)
    assert found is not None
    assert found.entries[0] == Entry("vmcore-incomplete", 0, limit)
    assert rawtable.contents(device, found.entries[1]) == b"log"
    target.discard("vmcore")
    assert [entry.name for entry in (rawtable.read(device) or found).entries] == ["vmcore-dmesg.txt"]
    with pytest.raises(Exception, match="starts with zeros"):
        open_dump(device)


def test_a_log_that_is_too_long_keeps_its_end(loop: Loop) -> None:
    device = loop(32)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    half = Layout(32 << 20).half_bytes
    target.put("vmcore-dmesg.txt", b"a" * half + b"the panic")
    found = rawtable.read(device)
    assert found is not None
    text = rawtable.contents(device, found.entries[0])
    assert len(text) == half
    assert text.startswith(b"(the beginning was cut off")
    assert text.endswith(b"the panic")
    with pytest.raises(NoSpace, match="too large for the device"):
        target.put("vmcore.sha256", b"1" * 100)


def test_the_files_lie_in_the_other_half_each_time(loop: Loop) -> None:
    device = loop(32)
    target = target_of(f"raw:{device}", config(), "here")
    target.prepare()
    places = []
    for text in (b"one", b"two", b"three"):
        target.put("kexec-dmesg.log", text)
        found = rawtable.read(device)
        assert found is not None
        places.append(found.entries[0].offset)
        assert rawtable.contents(device, found.entries[0]) == text
    assert places[0] == places[2] != places[1]


def test_a_table_that_was_not_written_whole_is_none() -> None:
    table = Table("here", [Entry("vmcore", 0, 5)])
    raw = table.as_bytes()
    assert Table.parse(raw) == table
    table.set_dump(Entry("vmcore", 0, 6), b"KDUMP   ")
    assert Table.parse(table.as_bytes()) == table
    assert Table.parse(raw[:40].ljust(4096, b"\0")) is None
    assert Table.parse(bytes(4096)) is None
    assert Table.parse(raw.replace(b" vmcore", b" ../etc")) is None
    with pytest.raises(HostError, match="too many"):
        Table("here", [Entry("x" * 60, 4096, 1)] * 100).as_bytes()


def test_what_cannot_be_a_bare_device_is_refused() -> None:
    for url in ("raw:UUID=1", "raw:vdb", "raw:LABEL=x", "raw:PARTLABEL=crash/dir"):
        with pytest.raises(UsageError):
            target_of(url, config())
    target_of("raw:PARTLABEL=crash", config())
