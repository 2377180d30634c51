"""`kdumpy status` on trees of files: a host that is armed, and the same with one thing wrong at a time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from armedhost import BEFORE, BOOT, MIB, RELEASE, Host
from kdumpy.errors import HostError
from kdumpy.host import images, status
from kdumpy.host.checks import CHECKS, Answer, Verdict, ask, check
from kdumpy.host.checks.base import Facts
from kdumpy.host.images import path_of


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(images, "stale", lambda system, settings, release: "")
    plenty = SimpleNamespace(f_bavail=5 << 20, f_bfree=5 << 20, f_frsize=4096, f_blocks=10 << 20, f_flag=0, f_files=9,
                             f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda path: plenty)
    return Host(tmp_path)


def answer(host: Host, name: str) -> Answer:
    return ask(name, Facts(host.system))


def test_an_armed_host_is_ready_and_all_checks_are_well(host: Host) -> None:
    found = status.look(host.system)
    assert {line.name: line.answer.reason for line in found.lines if line.answer.verdict is not Verdict.OK} == {}
    assert found.ready is True
    # Memory without the reservation, less what is free, cached and of users: 714.5 MiB, by 2.5.
    assert found.verdict == "READY: the next panic will leave a dump in /var/crash (about 285.8 MiB)"


def test_every_check_is_described_and_says_whether_it_is_essential() -> None:
    for name in CHECKS:
        assert isinstance(check(name).ESSENTIAL, bool)
        assert check(name).__doc__


Spoil = Callable[[Host], object]

SPOILED: list[tuple[str, str, Spoil, Verdict, str, str]] = [
    ("no configuration", "configuration", lambda host: host.remove("/etc/kdumpy.toml"), Verdict.WARN,
     "the defaults hold", "kdumpy setup"),
    ("a wrong key", "configuration", lambda host: host.write("/etc/kdumpy.toml", "crashkernl = 'auto'"), Verdict.WARN,
     "there is no key 'crashkernl'", "did you mean crashkernel?"),
    ("a container", "kernel", lambda host: host.write("/run/systemd/container", "lxc"), Verdict.BAD, "lxc",
     "arm the host"),
    ("a kernel without crash dumps", "kernel", lambda host: host.remove("/sys/kernel/kexec_crash_loaded"), Verdict.BAD,
     "CONFIG_CRASH_DUMP", "boot a kernel"),
    ("a capture kernel without /proc/vmcore", "kernel", lambda host: host.write(
        f"/boot/config-{RELEASE}", "CONFIG_CRASH_DUMP=y\n"), Verdict.BAD, "CONFIG_PROC_VMCORE", "boot a kernel"),
    ("a kernel that nothing tells of", "kernel", lambda host: host.remove(f"/boot/config-{RELEASE}"), Verdict.UNKNOWN,
     "nothing tells", "/boot/config-"),
    ("nothing reserved", "reservation", lambda host: (host.write("/sys/kernel/kexec_crash_size", "0"),
                                                      host.write("/proc/cmdline", "ro quiet")), Verdict.BAD,
     "crashkernel= is not on", "kdumpy setup"),
    ("a range that gives nothing", "reservation", lambda host: (
        host.write("/sys/kernel/kexec_crash_size", "0"), host.write("/proc/cmdline", "crashkernel=64G-:512M")),
     Verdict.BAD, "gives a machine of 4.0 GiB nothing", "plain size"),
    ("no room for it", "reservation", lambda host: (
        host.write("/sys/kernel/kexec_crash_size", "0"), host.write("/proc/cmdline", "crashkernel=3G"),
        host.write("/var/log/dmesg", "crashkernel reservation failed - No suitable area found.\n")),
     Verdict.BAD, "it says: crashkernel reservation failed", "smaller"),
    ("not loaded", "loaded", lambda host: (host.write("/sys/kernel/kexec_crash_loaded", "0"), host.history()),
     Verdict.BAD, "no capture kernel is loaded", "kdumpy load"),
    ("loading failed", "loaded", lambda host: (
        host.write("/sys/kernel/kexec_crash_loaded", "0"),
        host.history(("boot-now", BOOT + 9, "failed", "the kernel is locked down", "sign it"))),
     Verdict.BAD, "the kernel is locked down", "sign it"),
    ("another boot's failure", "loaded", lambda host: (
        host.write("/sys/kernel/kexec_crash_loaded", "0"),
        host.history(("boot-before", BEFORE, "failed", "the kernel is locked down", "sign it"))),
     Verdict.BAD, "no capture kernel is loaded", "run `kdumpy load`; it says why"),
    ("unloaded by hand", "loaded", lambda host: (
        host.write("/sys/kernel/kexec_crash_loaded", "0"), host.history(("boot-now", BOOT + 99, "unloaded"))),
     Verdict.BAD, "it was unloaded at ", "kdumpy load"),
    ("loading forbidden", "loaded", lambda host: (
        host.write("/sys/kernel/kexec_crash_loaded", "0"), host.write("/proc/sys/kernel/kexec_load_disabled", "1")),
     Verdict.BAD, "kexec_load_disabled", "reboot"),
    ("loaded by others", "loaded", lambda host: host.remove("/run/kdumpy/loaded.json"), Verdict.WARN, "not by kdumpy",
     "kdumpy load"),
    ("a newer image", "loaded", lambda host: host.write(path_of(RELEASE), bytes(1000)), Verdict.WARN,
     f"{path_of(RELEASE)} changed since", "kdumpy load"),
    ("memory that was plugged in", "loaded", lambda host: host.write(
        "/proc/iomem", "00001000-0009fbff : System RAM\n100000000-23fffffff : System RAM\n"), Verdict.WARN,
     "the machine's memory changed since", "kdumpy load"),
    ("another command line", "loaded", lambda host: host.write(
        "/etc/kdumpy.toml", "[image]\ncmdline_append = 'debug'\n"), Verdict.WARN, "its command line is another one",
     "kdumpy load"),
    ("an image cut short", "image", lambda host: host.write(path_of(RELEASE), bytes(1000)), Verdict.BAD,
     "1000 bytes of 9.0 MiB", "kdumpy image"),
    ("no image", "image", lambda host: host.remove(path_of(RELEASE)), Verdict.WARN, "no image is known", "kdumpy load"),
    ("a rehearsal that needed more", "memory", lambda host: host.write(
        "/var/lib/kdumpy/rehearsal.json", json.dumps({"release": RELEASE, "smallest_safe_crashkernel": 320 * MIB})),
     Verdict.BAD, "a rehearsal needed 320.0 MiB", "larger crashkernel"),
    ("a small reservation", "memory", lambda host: host.write("/sys/kernel/kexec_crash_size", str(128 * MIB)),
     Verdict.WARN, "about 148.0 MiB are needed", "kdumpy rehearse"),
    ("a hopeless reservation", "memory", lambda host: host.write("/sys/kernel/kexec_crash_size", str(90 * MIB)),
     Verdict.BAD, "gives half of the rest to the image", "larger crashkernel"),
    ("a target in memory", "target", lambda host: host.write(
        "/proc/self/mountinfo", "25 1 0:22 / / rw - tmpfs tmpfs rw\n"), Verdict.BAD, "tmpfs", "name a target"),
    ("an unknown disk", "target", lambda host: host.write(
        "/etc/kdumpy.toml", "[capture]\ntargets = ['disk:UUID=0000-0001/crash']\n"), Verdict.BAD, "disk:UUID=0000-0001",
     ""),
    ("a sysctl that another file sets", "panic", lambda host: host.write("/proc/sys/kernel/panic_on_oops", "0"),
     Verdict.WARN, "kernel.panic_on_oops is 0, configured is 1", "kdumpy setup"),
    ("notifiers first", "panic", lambda host: host.write(
        "/sys/module/kernel/parameters/crash_kexec_post_notifiers", "Y\n"), Verdict.WARN, "other code runs before",
     "command line"),
    ("no unit", "service", lambda host: host.remove("/etc/systemd/system/kdumpy.service"), Verdict.WARN,
     "there is no kdumpy.service", "kdumpy setup"),
    ("a unit that may not write where the dumps are", "service", lambda host: (
        host.write("/etc/systemd/system/kdumpy-report.service", "[Service]\nReadWritePaths=\"-/var/crash\"\n"),
        host.write("/etc/kdumpy.toml", "[capture]\ntargets = ['/var/crash', '/home/crash']\n")), Verdict.WARN,
     "kdumpy-report.service may not write to /home/crash", "kdumpy setup"),
    ("a unit that is not enabled", "service", lambda host: host.remove(
        "/etc/systemd/system/multi-user.target.wants/kdumpy.service"), Verdict.WARN, "is not enabled",
     "systemctl enable kdumpy.service"),
    ("an update that lost the reservation", "next-boot", lambda host: (
        host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n'),
        host.write("/boot/grub/grub.cfg", "menuentry 'D' {\n\tlinux /boot/vmlinuz-1 ro quiet\n}\n")), Verdict.WARN,
     "there is no crashkernel=", "kdumpy setup"),
    ("lockdown", "security", lambda host: (
        host.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality"),
        host.write("/sys/kernel/kexec_crash_loaded", "0"), host.history()), Verdict.WARN,
     "only a signed capture kernel", "signed kernel"),
    ("kdump-tools beside it", "conflict", lambda host: (
        host.write("/usr/sbin/kdump-config", "#!/bin/sh\n"), host.write("/etc/default/kdump-tools", "USE_KDUMP=1\n"),
        host.write("/lib/systemd/system/kdump-tools.service", "[Unit]\n"),
        host.link("/etc/systemd/system/multi-user.target.wants/kdump-tools.service", "/lib/x")), Verdict.WARN,
     "kdump-tools is active, too", "kdumpy setup --replace"),
    ("too many dumps", "retention", lambda host: [
        host.crash(f"h-{number}", BOOT - number, vmcore="x") for number in range(7)], Verdict.WARN,
     "7 crashes, 7 bytes; 5 are to be kept", "kdumpy prune"),
]


@pytest.mark.parametrize(("name", "spoil", "verdict", "reason", "mend"), [row[1:] for row in SPOILED],
                         ids=[row[0] for row in SPOILED])
def test_what_is_wrong_is_told_with_its_mend(host: Host, name: str, spoil: Spoil, verdict: Verdict, reason: str,
                                             mend: str) -> None:
    assert answer(host, name).verdict is Verdict.OK
    spoil(host)
    found = answer(host, name)
    assert (found.verdict, reason in found.reason, mend in found.mend) == (verdict, True, True), found


def test_in_a_container_nothing_else_is_looked_at(host: Host) -> None:
    host.write("/run/systemd/container", "lxc")
    found = status.look(host.system)
    assert (found.ready, found.verdict) == (False, "NOT READY: this is a container (lxc): its kernel is the host's")
    assert {line.answer.mend for line in found.lines} == {"", "arm the host it runs on"}


def test_a_wrong_configuration_stops_a_host_that_is_not_loaded(host: Host) -> None:
    host.write("/etc/kdumpy.toml", "[capture]\nlevel = 99\n")
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    found = status.look(host.system)
    assert found.ready is False
    assert "level is 99" in found.verdict


def test_an_active_watchdog_wants_its_driver_in_the_image(host: Host) -> None:
    base = "/sys/class/watchdog/watchdog0"
    for name, text in (("state", "active\n"), ("identity", "iTCO_wdt\n"), ("timeout", "30\n")):
        host.write(f"{base}/{name}", text)
    driver = host.root / "sys/bus/platform/drivers/iTCO_wdt"
    module = host.root / "sys/module/iTCO_wdt"
    device = host.root / "sys/devices/platform/iTCO_wdt"
    for folder in (driver, module, device):
        folder.mkdir(parents=True)
    (driver / "module").symlink_to("../../../../module/iTCO_wdt")
    (device / "driver").symlink_to(driver)
    (host.root / base[1:] / "device").symlink_to(device)
    found = answer(host, "watchdog")
    assert found.verdict is Verdict.WARN
    assert "iTCO_wdt is active and resets the machine 30 s after a panic" in found.reason
    assert '"iTCO_wdt"' in found.mend
    host.write(f"{base}/state", "inactive\n")
    assert answer(host, "watchdog").verdict is Verdict.OK


@pytest.mark.parametrize(("free", "verdict"), [(100 * MIB, Verdict.BAD), (300 * MIB, Verdict.WARN),
                                               (900 * MIB, Verdict.OK)])
def test_the_estimated_dump_has_to_find_room(host: Host, monkeypatch: pytest.MonkeyPatch, free: int,
                                             verdict: Verdict) -> None:
    room = SimpleNamespace(f_bavail=free // 4096, f_bfree=free // 4096, f_frsize=4096, f_blocks=10 << 20, f_flag=0,
                           f_files=9, f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    found = answer(host, "space")
    assert found.verdict is verdict
    assert found.facts["free_bytes"] == free
    if verdict is Verdict.BAD:
        assert status.look(host.system).ready is False


def test_what_a_file_system_keeps_for_root_takes_a_dump_and_that_is_told(host: Host,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(f_bavail=6 * MIB // 4096, f_bfree=900 * MIB // 4096, f_frsize=4096, f_blocks=10 << 20,
                           f_flag=0, f_files=9, f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    found = answer(host, "space")
    assert (found.verdict, "all but 6.0 MiB of it is kept for root" in found.reason) == (Verdict.WARN, True)
    assert answer(host, "retention").verdict is Verdict.WARN


def test_a_target_that_is_mounted_read_only_is_bad_and_the_next_one_takes_its_place(
        host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SimpleNamespace(f_bavail=1 << 20, f_bfree=1 << 20, f_frsize=4096, f_blocks=1 << 21,
                              f_flag=os.ST_RDONLY, f_files=9, f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda path: stopped)
    found = answer(host, "target")
    assert (found.verdict, "read-only" in found.reason) == (Verdict.BAD, True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        host.write("/etc/kdumpy.toml", f"[capture]\ntargets = ['/var/crash', 'http://127.0.0.1:{port}/dumps']\n")
        found = answer(host, "target")
    assert found.verdict is Verdict.WARN
    assert f"dumps go to http://127.0.0.1:{port}/dumps" in found.reason
    found = answer(host, "target")      # the server is gone
    assert found.verdict is Verdict.BAD
    assert "the server does not answer" in found.reason


def test_what_may_not_be_read_is_not_known(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "statvfs", refused)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = status.look(host.system)
    assert found.ready is None
    assert found.verdict.startswith("NOT KNOWN: /var/crash: Permission denied")
    assert found.answer("target").mend == "run it as root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "a container's rules" in status.look(host.system).answer("target").mend


def test_a_user_is_not_told_what_only_root_sees(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host.system.read_bytes

    def read(name: str) -> bytes | None:
        if name.startswith(("/run/kdumpy", "/var/lib/kdumpy")):
            raise HostError("cannot read the file", where=name, why="Permission denied")
        return real(name)

    monkeypatch.setattr(host.system, "read_bytes", read)
    found = status.look(host.system)
    assert found.ready is None
    assert found.verdict.startswith("NOT KNOWN: /run/kdumpy/loaded.json: cannot read the file")
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    assert status.look(host.system).verdict == "NOT READY: no capture kernel is loaded"


def test_the_json_holds_every_check(host: Host) -> None:
    values = json.loads(json.dumps(status.look(host.system).as_json()))
    assert (values["schema"], values["ready"]) == (1, True)
    assert list(values["checks"]) == list(CHECKS)
    for name, one in values["checks"].items():
        assert one["verdict"] in ("ok", "warn", "bad", "unknown")
        assert one["holds"] == CHECKS[name]
        assert isinstance(one["essential"], bool)
        assert one["reason"]
    assert values["checks"]["reservation"]["facts"] == {"reserved_bytes": 256 * MIB}


def test_the_metrics_are_as_prometheus_reads_them(host: Host) -> None:
    host.write("/proc/sys/kernel/panic_on_oops", "0")
    text = status.prometheus(status.look(host.system))
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    kinds = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert {name.partition("{")[0] for name in samples} == kinds
    assert samples["kdumpy_ready"] == 1
    assert samples['kdumpy_check{check="panic"}'] == 1
    assert samples['kdumpy_check{check="reservation"}'] == 0
    assert samples["kdumpy_reservation_reserved_bytes"] == 256 * MIB
    assert text.endswith("\n")
