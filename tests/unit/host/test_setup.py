"""The plan of `kdumpy setup` on a tree of every distribution: what is shown, done, not done twice, and given back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import otherhosts
from armedhost import MIB, RELEASE, Host
from kdumpy.cli import setup as screen
from kdumpy.errors import HostError, UsageError
from kdumpy.host import applying, distribution, packages, services, setup
from kdumpy.host.changes import Change, Command
from kdumpy.host.images import generated
from kdumpy.host.setup import Setup
from kdumpy.host.system import Done, System
from kdumpy.host.wish import Wishes, parse_keys

TREES = sorted(path.name for path in otherhosts.HOSTS.iterdir() if (path / "etc/os-release").is_file())
"""Distributions whose real files lie in tests/data/hosts."""

MACHINE = {"proc/meminfo": "MemTotal: 16252928 kB\n", "proc/sys/kernel/arch": "x86_64\n",
           "proc/sys/kernel/osrelease": "6.1.0\n", "proc/sys/kernel/panic": "0\n",
           "proc/sys/kernel/panic_on_oops": "0\n", "usr/bin/busybox": "", "usr/bin/systemctl": ""}
"""What a running system has beside its files: a machine of 16 GiB."""


def machine(name: str, root: Path) -> System:
    """Return a distribution's tree as a running machine."""
    system = otherhosts.copy(name, root)
    for path, text in MACHINE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return system


@pytest.mark.parametrize("name", TREES)
def test_every_distribution_gets_a_plan_that_is_done_once_and_given_back(
        name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = machine(name, tmp_path)
    before = otherhosts.contents(system)
    made = setup.make(system, Wishes(replace=True))
    titles = {step.title for step in made.plan.steps}
    assert {"Configuration", "When the kernel panics", "Services", "Capture image"} <= titles
    changes = list(made.plan.changes())
    written = otherhosts.files(changes)
    assert {"/etc/kdumpy.toml", "/etc/sysctl.d/60-kdumpy.conf", "/etc/systemd/system/kdumpy.service"} <= set(written)
    assert "ExecStart=/usr/bin/kdumpy load" in written["/etc/systemd/system/kdumpy.service"]
    reserving = [step for step in made.plan.steps if "crashkernel=" in step.title]
    text = "\n".join([*written.values(), *(" ".join(words) for words in otherhosts.commands(changes))])
    assert not reserving or "crashkernel=256M" in text
    screen._show(made)
    shown = capsys.readouterr().out
    assert made.machine.distribution.name in shown
    assert "15.5 GiB of memory" in shown
    assert all(len(line) < 400 for line in shown.splitlines())
    assert "\n\n\n" not in shown
    otherhosts.apply(system, changes)
    again = list(setup.make(system, Wishes(replace=True)).plan.changes())
    assert otherhosts.files(again) == {}, "a second setup writes nothing"
    otherhosts.undo(system, changes)
    assert otherhosts.contents(system) == before


@pytest.mark.parametrize("name", TREES)
def test_every_boot_loader_takes_a_high_and_a_low_part(name: str, tmp_path: Path) -> None:
    system = machine(name, tmp_path)
    before = otherhosts.contents(system)
    made = setup.make(system, Wishes("512M,high 128M,low", replace=True))
    changes = list(made.plan.changes())
    text = "\n".join([*otherhosts.files(changes).values(), *(" ".join(words) for words in
                                                             otherhosts.commands(changes))])
    assert re.search(r"crashkernel=512M,high (--append=)?crashkernel=128M,low", text)
    assert 'crashkernel = "512M,high 128M,low"' in text
    assert any("crashkernel=512M,high crashkernel=128M,low" in step.title for step in made.plan.steps)
    otherhosts.apply(system, changes)
    reserving = [step for step in setup.make(system, Wishes(replace=True)).plan.steps if "Reserve" in step.title]
    assert otherhosts.files(change for step in reserving for change in step.changes) == {}, "a second setup"
    changed = [*changes, *back_to_one(system)]
    otherhosts.undo(system, changed)
    assert otherhosts.contents(system) == before


def back_to_one(system: System) -> list[Change]:
    """Change the pair to one value and look that nothing of it is left; return the changes."""
    changes = list(setup.make(system, Wishes("256M", replace=True)).plan.changes())
    otherhosts.apply(system, changes)
    text = "\n".join(otherhosts.files(changes).values())
    assert "crashkernel=128M,low" not in text
    return changes


@pytest.mark.parametrize("name", ["debian-12", "opensuse-leap-15.6", "ubuntu-s390x"])
def test_a_menu_that_could_not_be_made_is_made_by_the_next_setup(name: str, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    system = machine(name, tmp_path)

    def run(system: System, words: tuple[str, ...], **limits: object) -> Done:
        if words == made:
            raise HostError("a program failed", why="No space left on device")
        return Done(0, "", "")

    wishes = Wishes(replace=True, crashkernel="320M")
    plan = setup.make(system, wishes).plan
    step = next(step for step in plan.steps if step.reboot)
    made = otherhosts.commands(step.changes)[-1]
    monkeypatch.setattr(System, "run", run)
    with pytest.raises(HostError, match="a program failed"):
        applying.apply(system, plan, lambda line: None)
    again = next(step for step in setup.make(system, wishes).plan.steps if step.reboot)
    assert otherhosts.files(again.changes) == {}
    assert made in otherhosts.commands(again.changes)


@pytest.mark.parametrize(("name", "words"), [
    ("debian-12", ("apt-get", "install", "--yes", "--no-install-recommends", "openssh-client", "iproute2")),
    ("fedora-42", ("dnf", "install", "-y", "openssh-clients", "iproute", "openssh")),
    ("opensuse-leap-15.6", ("zypper", "--non-interactive", "install", "openssh-clients", "iproute2",
                            "openssh-common")),
    ("arch", ("pacman", "-S", "--noconfirm", "--needed", "openssh", "iproute2")),
])
def test_missing_packages_are_installed_first_by_the_distributions_own_manager(
        name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    system = machine(name, tmp_path)
    otherhosts.made(tmp_path, {"/root/.ssh/id_ed25519": "", "/root/.ssh/known_hosts": ""})
    made = setup.make(system, Wishes(targets=("ssh://dump@store/crashes",), replace=True))
    assert made.plan.steps[0].title == "Packages"
    assert otherhosts.commands(made.plan.steps[0].changes)[-1] == words
    unit = otherhosts.files(made.plan.changes())["/etc/systemd/system/kdumpy.service"]
    assert "After=local-fs.target network-online.target\nWants=network-online.target\n" in unit
    assert "@" not in unit


@pytest.mark.parametrize(("name", "lists", "days", "fetch", "said"), [
    ("debian-12", None, 0, ["apt-get", "update"], ""),
    ("debian-12", "/var/lib/apt/lists/deb.debian.org_dists_bookworm_main_binary-amd64_Packages.lz4", 3,
     ["apt-get", "update"], ""),
    ("debian-12", "/var/lib/apt/lists/deb.debian.org_dists_bookworm_main_binary-amd64_Packages", 0, [], ""),
    ("fedora-42", None, 0, [], ""), ("opensuse-leap-15.6", None, 0, [], ""),
    ("arch", None, 0, ["pacman", "-Sy", "--noconfirm"], ""), ("arch", "/var/lib/pacman/sync/core.db", 3, [], ""),
    ("arch", "/var/lib/pacman/sync/core.db", 9, [], "run `pacman -Syu` first")])
def test_lists_of_packages_are_fetched_first_where_they_are_lacking_or_old(
        name: str, lists: str | None, days: int, fetch: list[str], said: str, tmp_path: Path) -> None:
    system = machine(name, tmp_path)
    otherhosts.made(tmp_path, {"/root/.ssh/id_ed25519": "", "/root/.ssh/known_hosts": ""})
    if lists is not None:
        otherhosts.made(tmp_path, {lists: "x"})
        then = time.time() - days * 86400 - 60
        for path in (system.path(lists), system.path(lists).parent):
            os.utime(path, (then, then))
    made = setup.make(system, Wishes(targets=("ssh://dump@store/crashes",), replace=True))
    commands = [change for change in made.plan.steps[0].changes if isinstance(change, Command)]
    assert [list(command.words) for command in commands[:-1]] == ([fetch] if fetch else [])
    assert all(command.may_fail for command in commands[:-1])
    assert any("pacman -Syu" in warning for warning in made.plan.warnings) is bool(said)


def test_an_ssh_target_takes_roots_own_key_or_says_how_to_make_one(tmp_path: Path) -> None:
    system, wishes = machine("debian-12", tmp_path), Wishes(targets=("ssh://dump@store/crashes", "/var/crash"))
    with pytest.raises(HostError) as refused:
        setup.make(system, wishes)
    assert "ssh-keygen -t ed25519 -N '' -f /root/.ssh/kdumpy_ed25519" in refused.value.mend
    assert "--set capture.ssh_key=FILE" in refused.value.mend
    otherhosts.made(tmp_path, {"/root/.ssh/id_rsa": "", "/etc/ssh/ssh_known_hosts": ""})
    made = setup.make(system, wishes)
    assert (made.settings.capture.ssh_key, made.settings.capture.ssh_known_hosts) == (
        "/root/.ssh/id_rsa", "/etc/ssh/ssh_known_hosts")
    assert any("root's own" in note for note in made.plan.notes)
    named = parse_keys(["capture.ssh_key=/k", "capture.ssh_known_hosts=/h"])
    assert setup.make(system, Wishes(targets=wishes.targets, keys=named)).settings.capture.ssh_key == "/k"


def test_keys_are_set_as_the_file_would_have_them(tmp_path: Path) -> None:
    keys = parse_keys(["panic.on_hung_task=true", "retention.keep=3", "capture.path_name=web-3", "crashkernel=512M"])
    made = setup.make(machine("debian-12", tmp_path), Wishes(keys=keys))
    assert (made.settings.panic.on_hung_task, made.settings.retention.keep, made.settings.crashkernel) == (
        True, 3, "512M")
    assert made.settings.capture.targets == ("/var/crash",)
    for wrong, said in (("panic.on_hang=true", "did you mean on_hung_task"), ("retention.keep=many", "a number is"),
                        ("panic", "not a key and its value"), ("panik.x=1", "did you mean panic?"),
                        ("crashkernel.x=1", "")):
        with pytest.raises(UsageError) as refused:
            setup.make(machine("debian-12", tmp_path / "again"), Wishes(keys=parse_keys([wrong])))
        assert said in str(refused.value)


def test_a_program_that_no_package_is_known_for_is_told(tmp_path: Path) -> None:
    system = machine("extlinux", tmp_path)
    (tmp_path / "usr/bin/busybox").unlink()
    made = setup.make(system, Wishes())
    assert made.plan.steps[0].title == "Configuration"
    assert any("busybox is not installed" in warning for warning in made.plan.warnings)
    assert packages.advice(system, "ssh-keygen") == "install ssh-keygen"


def test_installed_programs_are_found_where_they_will_be(tmp_path: Path) -> None:
    system = packages.Equipped(machine("debian-12", tmp_path), ("ssh",))
    assert (system.which("ssh"), system.which("age"), system.which("busybox")) == \
        ("/usr/bin/ssh", None, "/usr/bin/busybox")


def test_a_missing_program_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System()
    monkeypatch.setattr(System, "which", lambda self, program: "/x" if program == "apt-get" else None)
    with pytest.raises(HostError) as refused:
        system.run(("ssh-keygen", "-y"))
    if distribution.of(system).family("debian"):
        assert refused.value.mend == "apt-get install --yes --no-install-recommends openssh-client"


HOTPLUG, FOLLOWS = "CONFIG_HOTPLUG_CPU=y\n", "CONFIG_HOTPLUG_CPU=y\nCONFIG_CRASH_HOTPLUG=y\n"


@pytest.mark.parametrize(("kernels", "needed"), [
    ({"6.1.0": HOTPLUG}, True), ({"6.12.0": FOLLOWS}, False), ({"6.12.0": FOLLOWS, "6.1.0": HOTPLUG}, True),
    ({"6.1.0": "# CONFIG_HOTPLUG_CPU is not set\n"}, False), ({"6.12.0": FOLLOWS, "9.9.9": None}, True), ({}, True)])
def test_the_udev_rule_is_there_only_where_a_kernel_needs_it(kernels: dict[str, str | None], needed: bool,
                                                             tmp_path: Path) -> None:
    files = {f"/lib/modules/{release}/modules.dep": "" for release in kernels}
    files |= {f"/boot/config-{release}": text for release, text in kernels.items() if text is not None}
    system = otherhosts.made(tmp_path, files)
    assert services.needs_rule(system) is needed
    rule = "/etc/udev/rules.d/60-kdumpy.rules"
    assert (rule in otherhosts.files(services.plan(system, "/usr/bin/kdumpy"))) is needed
    otherhosts.made(tmp_path, {rule: "of an older kernel\n"})
    assert (otherhosts.files(services.plan(system, "/usr/bin/kdumpy"))[rule] == "") is not needed


def test_a_generator_that_hangs_leaves_time_to_load_the_older_image(host: Host) -> None:
    unit = otherhosts.files(plan(host).plan.changes())[f"{services.UNITS}/{services.SERVICE}"]
    limit = re.search(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    assert int(limit[1]) >= generated.SECONDS + 300
    build = [change for change in plan(host).plan.changes() if isinstance(change, Command) and change.words[0] in
             ("/usr/bin/kdumpy", "systemctl") and change.words[1] in ("image", "restart")]
    assert {change.words[1] for change in build} == {"image", "restart"}
    assert all(change.seconds >= generated.SECONDS + 300 for change in build)


ODD = ("/home/dumps/of web-3", "/srv/two\nlines", "/srv/100%/a-b:c", "/var/tmp/cr\"ash", "/var/.hidden/c\\x")


def test_the_units_wait_for_the_targets_and_may_write_there(host: Host) -> None:
    host.write("/etc/kdumpy.toml", "[capture]\ntargets = ['/home/dumps/crash', '/var/tmp/crash', 'nfs://x/y']\n")
    made = plan(host)
    units = otherhosts.files(made.plan.changes())
    loads, tells = (units[f"{services.UNITS}/{name}"] for name in (services.SERVICE, services.REPORT_SERVICE))
    assert "\nAfter=home.mount home-dumps.mount home-dumps-crash.mount var.mount " in loads
    assert 'ReadWritePaths="-/home/dumps/crash"' in tells
    assert 'BindPaths="-/var/tmp/crash"' in tells
    assert "@" not in re.sub(r"@system-service|#.*", "", loads + tells)


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd is not installed")
@pytest.mark.parametrize("folder", ["/", "/var/crash", "//a//b/", *ODD])
def test_mounts_are_named_as_systemd_names_them(folder: str) -> None:
    done = subprocess.run(["systemd-escape", "--path", "--suffix=mount", folder], capture_output=True, text=True,
                          check=True)
    wanted = done.stdout.strip()
    assert (services.mounts((folder,)).removeprefix("After=").split(" ")[-1] or "-.mount") == wanted


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(("online", "folders"), [(False, ()), (True, ("/var/crash",)), (False, ODD)])
def test_systemd_takes_the_units_and_finds_them_hardened(online: bool, folders: tuple[str, ...],
                                                         tmp_path: Path) -> None:
    written = otherhosts.files(services.plan(System(tmp_path / "root"), shutil.which("true") or "", online=online,
                                             folders=folders))
    exposure = {}
    for name in (services.SERVICE, services.REPORT_SERVICE):
        unit = tmp_path / name
        # What is not installed here: the man page.
        unit.write_text(written[f"{services.UNITS}/{name}"].replace("Documentation=man:kdumpy(1)\n", ""))
        verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stderr) == (0, "")
        said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
                              capture_output=True, text=True, check=False)
        if "unrecognized option" in said.stderr:
            pytest.skip("systemd before 250 judges no file")
        found = re.search(r"exposure level for \S+: ([\d.]+)", said.stdout)
        assert found is not None, said
        exposure[name] = float(found[1])
    # It loads kernels, and builds images by the distribution's own programs; the other reads untrusted dumps.
    assert exposure[services.SERVICE] <= 7.6
    assert exposure[services.REPORT_SERVICE] <= 3.8


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def plan(host: Host, *, crashkernel: str = "") -> Setup:
    return setup.make(host.system, Wishes(crashkernel))


def test_a_container_is_refused_with_the_reason(host: Host) -> None:
    host.write("/run/systemd/container", "podman")
    with pytest.raises(HostError, match="a container has no kernel of its own to arm: podman"):
        plan(host)


@pytest.mark.parametrize(("value", "said"), [
    ("512M,cma", "lends the memory to programs"), ("72M,low", "alone it reserves nothing"),
    ("96M", "reserves 96.0 MiB, less than the advised 256.0 MiB"), ("256M@16M", "the kernel chooses one")])
def test_what_is_wrong_with_a_reservation_is_said_before_it_is_made(host: Host, value: str, said: str) -> None:
    assert any(said in warning for warning in plan(host, crashkernel=value).plan.warnings)


def test_a_high_reservation_is_taken_as_it_is(host: Host) -> None:
    made = plan(host, crashkernel="512M,high")
    assert "crashkernel=512M,high" in "".join(otherhosts.files(made.plan.changes()).values())
    assert made.plan.warnings == ()


def test_the_next_boots_reservation_is_held_against_the_image(host: Host) -> None:
    from kdumpy.host.checks import Facts, ask

    cmdline = f"BOOT_IMAGE=/boot/vmlinuz-{RELEASE} ro crashkernel=64M"
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="crashkernel=64M"\n')
    host.write("/boot/grub/grub.cfg", f"menuentry 'D' {{\n\tlinux {cmdline.partition('=')[2]}\n}}\n")
    found = ask("next-boot", Facts(host.system))
    assert "the next boot reserves 64.0 MiB" in found.reason
    assert "the capture kernel would not start" in found.reason
    host.write("/var/lib/kdumpy/rehearsal.json", json.dumps({"release": RELEASE,
                                                             "smallest_safe_crashkernel": 60 * MIB}))
    assert "64.0 MiB" in ask("next-boot", Facts(host.system)).reason
    assert ask("next-boot", Facts(host.system)).verdict == "ok"


def test_on_a_terminal_a_warning_is_red_and_nothing_of_a_file_commands_it(
        host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(screen, "colourful", lambda: True)
    host.write("/etc/sysctl.d/60-kdumpy.conf", "\x1b]0;owned\x07\n")
    screen._show(plan(host, crashkernel="96M"))
    shown = capsys.readouterr().out
    assert "\x1b[31mwarning: crashkernel=96M reserves 96.0 MiB" in shown
    assert "\\x1b[" not in shown
    assert "\x1b]0" not in shown
    assert "\\x1b]0;owned" in shown
