"""Loading on a tree: what is loaded, when nothing is done, what is refused before the call, what is written down."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from pathlib import Path

import pytest
import zstandard

from armedhost import BOOT, MIB, RELEASE, Host, bzimage
from kdumpy.errors import HostError
from kdumpy.host import history, images, kernelfile, kexec, kexecx86, loadcalls, loading, settings
from kdumpy.host.checks import Facts, Verdict, ask
from kdumpy.host.images import BuiltImage, path_of
from kdumpy.host.images.result import record_of
from kdumpy.host.kexecx86 import Layout
from kdumpy.host.loading import Loaded
from kdumpy.host.settings import Settings
from kdumpy.host.system import Done, System


class Kernel:
    """Stands for the running kernel's answer."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.answers: list[int] = []
        self.calls: list[tuple[bytes, bytes, str]] = []

    def file_load(self, kernel: int, initrd: int | None, cmdline: str) -> None:
        assert initrd is not None
        if self.answers:
            number = self.answers.pop(0)
            if number != errno.EBUSY:       # the loaded one is thrown away before the new one is looked at
                self.host.write("/sys/kernel/kexec_crash_loaded", "0")
            raise OSError(number, os.strerror(number))
        self.calls.append((os.read(kernel, 1 << 20), os.read(initrd, 16), cmdline))
        self.host.write("/sys/kernel/kexec_crash_loaded", "1")

    def unload(self) -> None:
        self.host.write("/sys/kernel/kexec_crash_loaded", "0")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(images, "stale", lambda system, settings, release: "")
    monkeypatch.setattr(loadcalls, "_PAUSE_S", 0)
    return Host(tmp_path)


@pytest.fixture
def kernel(host: Host, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(host)
    monkeypatch.setattr(kexec, "file_load", made.file_load)
    monkeypatch.setattr(kexec, "unload", made.unload)
    return made


def load(host: Host, *, build: bool = True, again: bool = False) -> Loaded:
    return loading.load(host.system, settings.load(host.system), build=build, again=again)


def events(host: Host) -> list[str]:
    return [event.event for event in history.events(host.system)]


def test_what_is_loaded_already_is_not_loaded_again(host: Host, kernel: Kernel) -> None:
    assert load(host).changed is False
    assert kernel.calls == []
    assert load(host, again=True).changed is True
    assert len(kernel.calls) == 1


def test_the_kernel_gets_kernel_image_and_command_line(host: Host, kernel: Kernel) -> None:
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    done = load(host)
    data, image, cmdline = kernel.calls[0]
    assert data == bzimage(RELEASE)
    assert image == bytes(16)
    assert cmdline.startswith("console=ttyS0 nr_cpus=1 ")
    assert (done.release, done.reserved, done.call) == (RELEASE, 256 * MIB, "kexec_file_load")
    assert events(host)[-1] == "loaded"
    assert load(host).changed is False


@pytest.mark.parametrize("change", [
    lambda host: host.write(path_of(RELEASE), bytes(5)),
    lambda host: host.write("/etc/kdumpy.toml", "[image]\ncmdline_append = 'x=1'\n"),
    lambda host: host.write("/sys/devices/system/cpu/present", "0-7\n"),
    lambda host: host.write("/proc/iomem", "00001000-0009fbff : System RAM\n"),
])
def test_a_change_is_loaded(host: Host, kernel: Kernel, change: object) -> None:
    assert callable(change)
    change(host)
    assert load(host).changed is True


def test_a_kernel_that_follows_hotplug_by_itself_is_left_alone(host: Host, kernel: Kernel) -> None:
    load(host, again=True)
    host.write("/sys/devices/system/cpu/crash_hotplug", "1\n")
    host.write("/sys/devices/system/cpu/present", "0-7\n")
    assert load(host).changed is False
    host.write("/sys/devices/system/cpu/crash_hotplug", "0\n")      # what is loaded is not kept right
    assert load(host).changed is True


def test_a_kernel_without_the_newer_call_is_loaded_by_the_older_one(host: Host, kernel: Kernel,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[tuple[int, int, str]] = []

    def lay_out(system: System, image: bytes, initrd: bytes, cmdline: str) -> Layout:
        laid_out.append((len(image), len(initrd), cmdline))
        return Layout(0x1000, ())

    monkeypatch.setattr(kexecx86, "lay_out", lay_out)
    monkeypatch.setattr(kexecx86, "suits", lambda release: True)
    monkeypatch.setattr(kexec, "segments_load",
                        lambda entry, segments: host.write("/sys/kernel/kexec_crash_loaded", "1"))
    host.write(f"/boot/config-{RELEASE}", "CONFIG_KEXEC=y\n")
    kernel.answers = [errno.ENOSYS]
    done = load(host, again=True)
    assert (done.call, done.note) == ("kexec_load", "this kernel was built without CONFIG_KEXEC_FILE "
                                      "(kexec_file_load: ENOSYS)")
    assert laid_out == [(8192, 9 * MIB, done.cmdline)]
    kernel.answers = [errno.ENOSYS]
    monkeypatch.setattr(kexecx86, "suits", lambda release: False)
    with pytest.raises(HostError, match="built without CONFIG_KEXEC_FILE") as refused:
        load(host, again=True)
    assert "or install kexec-tools" in refused.value.mend


def test_what_kexec_tools_complain_of_is_told_though_they_end_well(host: Host, kernel: Kernel,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    complaint = "Can't get the symbol of _text to calculate page_offset."
    answer = [Done(0, "", f"{complaint}\n")]

    def run(system: System, words: tuple[str, ...], **limits: object) -> Done:
        host.write("/sys/kernel/kexec_crash_loaded", "1")
        return answer[0]

    monkeypatch.setattr(kexecx86, "suits", lambda release: False)
    monkeypatch.setattr(System, "run", run)
    host.write("/usr/sbin/kexec", "")
    kernel.answers = [errno.ENOSYS]
    said: list[str] = []
    done = loading.load(host.system, settings.load(host.system), said.append, again=True)
    assert (done.call, done.complaint) == ("kexec-tools", complaint)
    assert said[-1] == f"warning: kexec-tools say: {complaint}"
    line = ask("loaded", Facts(host.system))
    assert (line.verdict, complaint in line.reason) == (Verdict.WARN, True)
    answer[0] = Done(0, "", "")
    kernel.answers = [errno.ENOSYS]
    assert load(host, again=True).complaint == ""
    assert ask("loaded", Facts(host.system)).verdict is Verdict.OK


@pytest.mark.parametrize(("trouble", "told"), [
    (HostError("there is no way to the target's server", why="the network is not up yet"), "the network is not up yet"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/tmp/x"), "No space left on device")])
def test_an_older_image_is_loaded_where_a_new_one_cannot_be_built(
        host: Host, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, trouble: Exception, told: str) -> None:
    def build(system: System, wanted: Settings, release: str, say: object) -> None:
        raise trouble

    monkeypatch.setattr(images, "stale", lambda system, settings, release: "a target is not as it was")
    monkeypatch.setattr(images, "build", build)
    said: list[str] = []
    assert loading.load(host.system, settings.load(host.system), said.append, again=True).changed
    assert told in said[1]
    assert "the older one is loaded as it is" in said[1]
    host.remove(record_of(RELEASE))      # what it was made of is not known: it is an image all the same
    assert load(host, again=True).changed
    host.remove(path_of(RELEASE))
    with pytest.raises(HostError, match=told):
        load(host, again=True)
    assert events(host)[-1] == "loaded"      # and is still
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    with pytest.raises(HostError, match=told):
        load(host)
    last = history.last_of_boot(host.system, history.boot_id(host.system))
    assert last is not None
    assert (last.event, told in last.why) == ("failed", True)


def test_a_stale_image_is_built_first(host: Host, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "stale", lambda system, settings, release: "the kernel changed")
    built = []

    def build(system: System, wanted: Settings, release: str, say: object) -> BuiltImage | None:
        built.append(release)
        host.write(path_of(release), bytes(77))
        return images.load(system, release)

    monkeypatch.setattr(images, "build", build)
    said: list[str] = []
    done = loading.load(host.system, settings.load(host.system), said.append)
    assert (built, done.built, done.changed) == ([RELEASE], "the kernel changed", True)
    assert said[0] == "the capture image is built anew: the kernel changed"
    built.clear()
    assert load(host, build=False).changed is False
    assert built == []
    host.remove(path_of(RELEASE))
    with pytest.raises(HostError, match="there is no capture image"):
        load(host, build=False)


OLDER = "6.1.0-55-amd64"


@pytest.mark.parametrize(("release", "built"), [(RELEASE, True), (RELEASE, False), (OLDER, True), (OLDER, False)])
def test_the_older_image_is_loaded_while_the_new_one_is_built(
        host: Host, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, release: str, built: bool) -> None:
    """After a change of the kernel or the configuration the host is armed for the minutes of the build, too."""
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    host.history(("before", BOOT - 900, "loaded", "", "", 1, ["/srv/then"]))
    if release == OLDER:
        host.write(f"/boot/vmlinuz-{OLDER}", bzimage(OLDER))
        (host.root / path_of(RELEASE)[1:]).rename(host.root / path_of(OLDER)[1:])
        host.write(path_of("6.1.0-54-amd64"), bytes(4), BOOT)       # that kernel is not installed any more
    during = []

    def build(system: System, wanted: Settings, wanted_release: str, say: object) -> None:
        there = loading.loaded_now(system)
        assert there is not None
        during.append((there.release, history.events(system)[-1].targets))
        if not built:
            raise HostError("there is no way to the target's server")
        host.write(path_of(RELEASE), bytes(77))

    monkeypatch.setattr(images, "stale", lambda system, settings, release: "the kernel changed")
    monkeypatch.setattr(images, "build", build)
    said: list[str] = []
    done = loading.load(host.system, settings.load(host.system), said.append)
    assert during == [(release, ("/srv/then",))]
    assert (done.changed, done.release) == (True, RELEASE if built else release)
    assert [call[0] for call in kernel.calls] == [bzimage(release), bzimage(RELEASE)][:1 + built]
    assert said[0] == f"the image of {release} is loaded until there is a new one: the kernel changed"
    assert history.events(host.system)[-1].targets == (("/var/crash",) if built else ("/srv/then",))


def test_an_older_image_that_cannot_be_loaded_does_not_keep_the_new_one_from_it(
        host: Host, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    host.write(path_of(RELEASE), bytes(250 * MIB))
    monkeypatch.setattr(images, "stale", lambda system, settings, release: "the kernel changed")
    monkeypatch.setattr(images, "build", lambda *given: host.write(path_of(RELEASE), bytes(77)))
    said: list[str] = []
    assert loading.load(host.system, settings.load(host.system), said.append).built == "the kernel changed"
    assert "do not fit into the 256.0 MiB" in said[1]
    assert len(kernel.calls) == 1


def test_nothing_is_built_where_nothing_can_be_loaded(host: Host, kernel: Kernel,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "stale", lambda system, settings, release: pytest.fail("asked"))
    host.write("/sys/kernel/kexec_crash_size", "0")
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    with pytest.raises(HostError, match="no memory is reserved"):
        load(host)
    assert events(host)[-1] == "failed"
    assert "no memory is reserved" in history.events(host.system)[-1].why


@pytest.mark.parametrize(("spoil", "match"), [
    (lambda host: host.write("/proc/sys/kernel/kexec_load_disabled", "1"), "kexec_load_disabled"),
    (lambda host: host.write(path_of(RELEASE), bytes(250 * MIB)), "do not fit into the 256.0 MiB"),
    (lambda host: host.write(f"/boot/vmlinuz-{RELEASE}", bzimage(RELEASE)[:5000]), "cut short"),
    (lambda host: host.write(f"/boot/vmlinuz-{RELEASE}", bzimage("6.1.0-99-amd64")), "it is 6.1.0-99-amd64, wanted"),
    (lambda host: host.remove(f"/boot/vmlinuz-{RELEASE}"), "the kernel's image is not there"),
    (lambda host: host.write(f"/boot/vmlinuz-{RELEASE}", bzimage(RELEASE, cmdline_bytes=255)), "too long"),
])
def test_a_loaded_kernel_is_not_put_at_risk(host: Host, kernel: Kernel, spoil: object, match: str) -> None:
    assert callable(spoil)
    spoil(host)
    with pytest.raises(Exception, match=match):
        load(host, again=True)
    assert kernel.calls == []
    assert loading.loaded_now(host.system) is not None


def test_a_refusal_that_lost_the_loaded_kernel_says_so(host: Host, kernel: Kernel) -> None:
    kernel.answers = [errno.EADDRNOTAVAIL]
    with pytest.raises(HostError, match="the capture kernel that was loaded before is gone"):
        load(host, again=True)
    assert loading.loaded_now(host.system) is None


def test_another_programs_load_is_waited_for(host: Host, kernel: Kernel) -> None:
    kernel.answers = [errno.EBUSY] * 3
    assert load(host, again=True).changed is True
    kernel.answers = [errno.EBUSY] * 99
    with pytest.raises(HostError, match="another program is loading"):
        load(host, again=True)


def test_a_call_that_did_nothing_is_noticed(host: Host, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write("/sys/kernel/kexec_crash_loaded", "0")
    monkeypatch.setattr(kexec, "file_load", lambda kernel, initrd, cmdline: None)
    with pytest.raises(HostError, match="the kernel says 0"):
        load(host)


def test_an_unload_is_written_down_and_twice_is_as_once(host: Host, kernel: Kernel) -> None:
    assert loading.unload(host.system) is True
    assert events(host)[-1] == "unloaded"
    assert loading.unload(host.system) is False
    assert loading.loaded_now(host.system) is None


def test_the_capture_kernel_may_be_another_one(host: Host, kernel: Kernel) -> None:
    other = "6.1.0-57-amd64"
    host.write("/etc/kdumpy.toml", f"[image]\nkernel = '{other}'\n")
    host.write(f"/usr/lib/modules/{other}/vmlinuz", bzimage(other))
    host.write(path_of(other), bytes(100))
    done = load(host)
    assert (done.release, done.kernel) == (other, f"/usr/lib/modules/{other}/vmlinuz")


def test_more_cpus_need_to_leave_the_one_that_booted_alone(host: Host, kernel: Kernel) -> None:
    host.write("/proc/cpuinfo", "processor\t: 0\ninitial apicid\t: 4\n\nprocessor\t: 1\ninitial apicid\t: 5\n")
    host.write("/etc/kdumpy.toml", "[image]\ncmdline_append = 'nr_cpus=4'\n")
    assert load(host).cmdline.endswith("nr_cpus=4 disable_cpu_apicid=4")


@pytest.mark.parametrize("packed", ["gzip", "zboot-gzip", "zboot-zstd"])
def test_a_packed_kernel_of_arm64_is_unpacked_for_the_call(host: Host, kernel: Kernel, packed: str) -> None:
    plain = bytearray(4096)
    plain[0x38:0x3C] = b"ARMd"
    data = zstandard.compress(bytes(plain)) if packed.endswith("zstd") else gzip.compress(bytes(plain)) + b"signature"
    if packed.startswith("zboot"):
        # Source: drivers/firmware/efi/libstub/zboot-header.S.
        head = struct.pack("<4s4sII8x32s", b"MZ\0\0", b"zimg", 64, len(data), packed.partition("-")[2].encode())
        data = head.ljust(64, b"\0") + data
    host.write("/proc/sys/kernel/arch", "aarch64\n")
    host.write(f"/boot/vmlinuz-{RELEASE}", data)
    load(host)
    assert kernel.calls[0][0] == plain
    assert list((host.root / "run/kdumpy").glob("tmp*")) == []


def test_a_damaged_packed_kernel_is_told(host: Host) -> None:
    host.write("/boot/packed", gzip.compress(bytes(9999))[:-20])
    with pytest.raises(HostError, match="damaged: it is cut short"):
        kernelfile.plain(kernelfile.describe(host.system, "/boot/packed"), host.system.path("/boot/packed"))
    host.write("/boot/packed", b"\x1f\x8bnothing of the kind")
    with pytest.raises(HostError, match="damaged"):
        kernelfile.plain(kernelfile.describe(host.system, "/boot/packed"), host.system.path("/boot/packed"))
