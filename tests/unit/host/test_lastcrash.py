"""The last crash: found, or missed with the reason why."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from armedhost import BEFORE, BOOT, MIB, Host
from kdumpy.crash.panicline import fatal_line
from kdumpy.host import bootends, crashes, lastcrash, seen, settings
from kdumpy.host.checks import Facts, Verdict, ask
from kdumpy.host.lastcrash import LastCrash

CUT = ((BEFORE - 999, "boot"), (BEFORE - 99, "shutdown"), (BEFORE, "boot"), (BEFORE + 9, "login"), (BOOT + 3, "boot"))
"""wtmp of a host whose last boot ended without a shutdown."""

OOPS = "[  12.5] BUG: kernel NULL pointer dereference, address: 0000000000000000\n[  12.5] CPU: 0 PID: 1 Comm: x\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.wtmp(*CUT)
    made.history(("before", BEFORE + 20, "loaded"), ("boot-now", BOOT + 20, "loaded"))
    return made


def look(host: Host) -> LastCrash:
    return lastcrash.look(host.system, settings.load(host.system).capture, lambda log: fatal_line(
        (-1.0, line.partition("] ")[2]) for line in log.splitlines()))


def test_a_shutdown_is_no_crash(host: Host) -> None:
    host.wtmp((BEFORE, "boot"), (BOOT - 60, "shutdown"), (BOOT + 5, "boot"))
    assert look(host).kind == "none"


def test_where_nothing_tells_no_crash_is_made_up(host: Host) -> None:
    host.remove("/var/log/wtmp")
    host.history(("before", BEFORE + 20, "loaded"), ("before", BOOT - 60, "unloaded"))
    assert look(host) == LastCrash("none")
    host.remove("/var/lib/kdumpy/history.json")
    assert look(host) == LastCrash("none")


def test_where_the_system_keeps_no_record_ours_tells_of_a_boot_that_was_cut_off(host: Host) -> None:
    host.remove("/var/log/wtmp")
    found = look(host)
    assert (found.kind, "/var/lib/kdumpy/history.json" in found.evidence[0]) == ("lost", True)
    host.history(("before", BEFORE + 20, "loaded"), ("before", BOOT - 60, "kept", "kexec_load_disabled is set"))
    assert look(host).kind == "none"


def test_a_dump_of_the_last_boot(host: Host) -> None:
    host.crash("web-1", BOOT - 40, vmcore="x", vmcore_dmesg__txt=OOPS, kexec_dmesg__log="kdumpy: saved\n")
    found = look(host)
    assert (found.kind, found.path) == ("dumped", "/var/crash/web-1/vmcore")
    assert found.cause == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert found.why == ""


def test_an_older_dump_is_not_that_of_the_last_crash(host: Host) -> None:
    host.crash("web-1", BEFORE - 5000, vmcore="x", vmcore_dmesg__txt=OOPS)
    assert look(host).kind == "lost"
    host.wtmp((BEFORE, "boot"), (BOOT - 60, "shutdown"), (BOOT + 5, "boot"))
    assert look(host).kind == "dumped"      # the last one that is known, whenever it was


def boot(host: Host) -> None:
    """Write down what the boot after the crash finds, as `kdumpy report --new` does."""
    found = crashes.find(host.system, crashes.folders(settings.load(host.system).capture))
    seen.remember(host.system, found, lambda crash: "an oops")


@pytest.mark.parametrize("shutdown", [False, True])
@pytest.mark.parametrize("left", [(), ("vmcore_dmesg__txt",)])
def test_a_dump_that_was_removed_by_hand_was_left_all_the_same(host: Host, left: tuple[str, ...],
                                                               shutdown: bool) -> None:
    if shutdown:
        host.wtmp((BEFORE, "boot"), (BOOT - 60, "shutdown"), (BOOT + 5, "boot"))
    folder = host.crash("web-1", BOOT - 40, vmcore="x", vmcore_dmesg__txt=OOPS, kexec_dmesg__log="kdumpy: saved\n")
    boot(host)
    assert look(host).kind == "dumped"
    for file in folder.iterdir():
        if file.name.replace("-", "_").replace(".", "__") not in left:
            file.unlink()
    if not left:
        folder.rmdir()
    found = look(host)
    assert (found.kind, found.at, found.cause) == ("removed", BOOT - 40, "an oops")
    assert found.why == "it left a dump, /var/crash/web-1/vmcore, which was removed since"
    line = ask("last-crash", Facts(host.system))
    assert (line.verdict, "which was removed since" in line.reason) == (Verdict.OK, True)
    host.write(seen.PATH, "[{]")        # a damaged record is none
    assert look(host).kind == ("partly" if left else "none" if shutdown else "lost")


def test_a_removed_dump_of_an_earlier_crash_does_not_stand_for_the_last_one(host: Host) -> None:
    folder = host.crash("web-1", BEFORE - 5000, vmcore="x")
    boot(host)
    (folder / "vmcore").unlink()
    assert look(host).kind == "lost"
    host.crash("web-2", BOOT - 40, vmcore="x")
    assert look(host).path == "/var/crash/web-2/vmcore"


def test_a_dump_is_found_after_the_target_was_changed(host: Host) -> None:
    host.crash("web-1", BOOT - 40, vmcore="x")
    boot(host)
    host.write("/etc/kdumpy.toml", "[capture]\ntargets = ['/srv/new']\n")
    assert (look(host).kind, look(host).path) == ("dumped", "/var/crash/web-1/vmcore")


@pytest.mark.parametrize(("last", "mend"), [
    ("kdumpy: target disk:UUID=1/var/crash failed: no space left on the device", "make room"),
    ("kdumpy: a worker was killed by signal 9", "reserve more memory"),
    ("kdumpy: saving failed: cannot write the dump: No space left on device", "make room"),
    ("kdumpy: ended early: the time budget of 60 s is over", "time_budget_s"),
    ("kdumpy: writing vmcore failed: Input/output error", "kexec-dmesg.log tells every step"),
])
def test_a_part_is_told_with_the_captures_own_reason(host: Host, last: str, mend: str) -> None:
    journal = f"[ 3.1] kdumpy: saved the kernel log, 400 lines\n[ 4.0] {last}\n[ 5.0] kdumpy: poweroff\n"
    host.crash("web-1", BOOT - 40, vmcore_incomplete="x", vmcore_dmesg__txt=OOPS, kexec_dmesg__log=journal)
    found = look(host)
    assert (found.kind, found.path) == ("partly", "/var/crash/web-1/vmcore-incomplete")
    assert found.why == f"the dump is incomplete: {last.removeprefix('kdumpy: ')}"
    assert mend in found.mend


def test_where_the_capture_had_it_mounted_is_not_told(host: Host) -> None:
    journal = "[ 4.0] kdumpy: saving the dump failed: /run/kdumpy/target-8hq7myf1/var/crash/w/vmcore-incomplete at " \
              "0x5ab000: cannot write the dump: No space left on device\n"
    host.crash("web-1", BOOT - 40, vmcore_incomplete="x", kexec_dmesg__log=journal)
    host.crash("web-1", BOOT + 40, report__txt="later")
    assert look(host).at == BOOT - 40
    assert look(host).why == ("the dump is incomplete: saving the dump failed: cannot write the dump: No space left on "
                              "device")


def test_the_log_alone(host: Host) -> None:
    host.crash("web-1", BOOT - 40, vmcore_dmesg__txt=OOPS)
    found = look(host)
    assert (found.kind, found.why) == ("partly", "only the kernel's log was saved")
    assert found.cause.startswith("BUG: kernel NULL")


@pytest.mark.parametrize(("event", "why", "mend"), [
    (None, "`kdumpy load` was not run", "kdumpy setup"),
    (("before", BEFORE - 500, "loaded"), "`kdumpy load` was not run", "kdumpy setup"),
    (("before", BEFORE + 20, "failed", "no memory is reserved", "reboot"), "no memory is reserved", "reboot"),
    (("before", BEFORE + 500, "unloaded"), "was unloaded at 2026-11-", "kdumpy.service"),
    (("before", BEFORE + 20, "loaded"), "no panic is on record", "on_hard_lockup"),
])
def test_why_there_is_nothing_at_all(host: Host, event: tuple[str, float, str] | None, why: str, mend: str) -> None:
    host.history(*([event] if event else []), ("boot-now", BOOT + 20, "loaded"))
    found = look(host)
    assert found.kind == "lost"
    assert why in found.why
    assert mend in found.mend
    assert "ended without a shutdown (/var/log/wtmp)" in found.evidence[0]


@pytest.mark.parametrize(("reserved", "why"), [(90 * MIB, "the capture kernel cannot start"),
                                               (130 * MIB, "the capture kernel runs out of memory"),
                                               (200 * MIB, "no panic is on record")])
def test_a_reservation_that_was_too_small_is_the_reason(host: Host, reserved: int, why: str) -> None:
    host.history(("before", BEFORE + 20, "loaded", "", "", reserved))
    found = look(host)
    assert (found.kind, why in found.why) == ("lost", True), found
    if reserved < 148 * MIB:
        assert "kernel and image need about 148.0 MiB" in found.why
        assert "larger crashkernel" in found.mend


def test_a_test_that_left_nothing_is_known_for_a_crash(host: Host) -> None:
    mark = {"time": BOOT - 90, "release": "x", "boot_id": "before"}
    host.write("/var/lib/kdumpy/test.json", json.dumps(mark))
    found = look(host)
    assert (found.kind, found.at) == ("lost", BOOT - 90)
    assert found.cause == "`kdumpy test` crashed it"
    assert "the kernel panicked with the capture kernel loaded" in found.why
    host.write("/var/lib/kdumpy/test.json", json.dumps({**mark, "boot_id": "one long ago"}))
    assert look(host).cause == ""


def test_a_watchdog_that_reset_the_machine_is_named(host: Host) -> None:
    host.write("/sys/class/watchdog/watchdog0/bootstatus", "32\n")
    host.write("/sys/class/watchdog/watchdog0/identity", "SP5100 TCO timer\n")
    found = look(host)
    assert found.why.startswith("a hardware watchdog reset the machine")
    assert "SP5100 TCO timer says that it reset the machine" in found.evidence


@pytest.mark.parametrize("place", ["/sys/fs/pstore/dmesg-efi-179490000001001",
                                   "/var/lib/systemd/pstore/179490/001/dmesg.txt"])
def test_the_firmwares_log_tells_of_the_panic(host: Host, place: str) -> None:
    host.write(place, "Panic#1 Part1\n<4>[ 12.5] " + OOPS.partition("] ")[2], BOOT - 100)
    found = look(host)
    assert found.kind == "lost"
    assert found.cause.startswith("BUG: kernel NULL pointer dereference")
    assert found.at == BOOT - 100
    assert "the kernel panicked with the capture kernel loaded" in found.why
    assert any(place in told for told in found.evidence)
    host.write(place, "Oops#1 Part1\n<4>[ 12.5] " + OOPS.partition("] ")[2], BEFORE - 100)
    assert look(host).cause == ""       # of an earlier crash


def test_what_went_to_a_server_is_not_judged(host: Host) -> None:
    host.write("/etc/kdumpy.toml", "[capture]\ntargets = ['nfs://store/crashes']\n")
    found = look(host)
    assert (found.kind, "nfs://store/crashes" in found.why) == ("elsewhere", True)
    host.history(("before", BEFORE + 20, "failed", "no memory is reserved", "reboot"))
    assert look(host).kind == "lost"


def test_the_targets_of_that_boot_count_and_not_those_of_now(host: Host) -> None:
    host.history(("before", BEFORE + 20, "loaded", "", "", 0, ["nfs://store/crashes"]))
    assert "dumps went to nfs://store/crashes" in look(host).why
    host.write("/etc/kdumpy.toml", "[capture]\ntargets = ['nfs://store/crashes']\n")
    host.history(("before", BEFORE + 20, "loaded", "", "", 0, ["/var/crash"]))
    assert look(host).kind == "lost"


def test_a_boot_that_wrote_no_record_of_itself(host: Host) -> None:
    host.wtmp((BEFORE - 999, "boot"), (BEFORE - 99, "shutdown"), (BEFORE, "boot"))
    assert bootends.last_end(host.system) == bootends.BootEnd(BEFORE, False, "/var/log/wtmp")
    host.wtmp((BEFORE, "boot"), (BOOT - 60, "shutdown"))
    assert bootends.last_end(host.system).clean is True


def test_the_first_boot_of_all_tells_nothing(host: Host) -> None:
    host.wtmp((BOOT + 3, "boot"))
    assert bootends.last_end(host.system).clean is None


@pytest.mark.parametrize(("logout", "clean"), [(None, False), ((BOOT - 30) * 1_000_000, True)])
def test_wtmpdb_tells_it_where_there_is_no_wtmp(host: Host, logout: int | None, clean: bool) -> None:
    host.remove("/var/log/wtmp")
    path = host.root / "var/lib/wtmpdb/wtmp.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        # Source: wtmpdb, lib/sqlite.c.
        database.execute("CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT NOT NULL, Login INTEGER, "
                         "Logout INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT)")
        rows = [(1, "reboot", BEFORE * 1_000_000, logout), (3, "root", BEFORE * 1_000_000, None),
                (1, "reboot", (BOOT + 3) * 1_000_000, None)]
        database.executemany("INSERT INTO wtmp(Type, User, Login, Logout) VALUES (?, ?, ?, ?)", rows)
    assert bootends.last_end(host.system) == bootends.BootEnd(BEFORE, clean, "/var/lib/wtmpdb/wtmp.db")


def test_a_journal_that_was_not_closed_tells_it_last(host: Host) -> None:
    host.remove("/var/log/wtmp")
    place = "/var/log/journal/0123/system@0006-12.journal~"
    host.write(place, "x", BOOT - 100)      # set aside just now: its inode's time is
    assert bootends.last_end(host.system) == bootends.BootEnd(None, False, place)
    os.utime(host.root / place[1:], (BOOT + 100, BOOT + 100))
    assert bootends.last_end(host.system).clean is None
