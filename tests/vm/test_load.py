"""`kdumpy load` for real: a guest calls it, is refused for every reason there is, and panics into what it loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kdumpy
from kdumpy.dumpfile import open_dump
from kdumpy.vm import capturing, guest, kernels
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.qemu import Machine
from loadguest import hardware, make_root

ARMED = """
release = os.uname().release
kernel, image = Path(f"/boot/vmlinuz-{release}"), Path(f"/var/lib/kdumpy/capture-{release}.img")
kdumpy("load", "--show")
whole = kernel.read_bytes()
for spoiled in (whole[:4000000], whole[:512] + bytes(9000000)):
    kernel.write_bytes(spoiled)
    kdumpy("load", "--no-build")
kernel.write_bytes(whole)
kept = image.rename("/kept")
with image.open("wb") as file:
    file.truncate(190 << 20)
kdumpy("load", "--no-build")
kept.rename(image)
kdumpy("load", "--no-build")
kdumpy("load", "--no-build")
kdumpy("unload")
kdumpy("unload")
Path("/etc/kdumpy.toml").write_text('[capture]\\ntargets = ["disk:LABEL=out"]\\n')
kdumpy("load", "--no-build", "--json")
kdumpy("status", "--json")
Path("/proc/sys/kernel/kexec_load_disabled").write_text("1")
kdumpy("load", "--no-build", "--again")
kdumpy("unload")
print("GUEST loaded", Path("/sys/kernel/kexec_crash_loaded").read_text(), flush=True)
crash()
"""

SEGMENTS = """
kdumpy("load", "--no-build", "--call", "kexec_load", "--json")
crash()
"""

LOCKED = """
kdumpy("load", "--no-build")
Path("/sys/kernel/security/lockdown").write_text("integrity")
kdumpy("load", "--no-build", "--again")
kdumpy("status")
print("GUEST loaded", Path("/sys/kernel/kexec_crash_loaded").read_text(), flush=True)
"""

NOT_RESERVED = """
kdumpy("load", "--no-build")
kdumpy("status")
os.setgid(1000)
os.setuid(1000)
kdumpy("unload")
"""


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return kernels.get("6.1")


def answers(kernel: Kernel, place: Path, script: str, reserve: str, end: str) -> list[tuple[int, str]]:
    """Run a script in a guest; return (exit code, what was said) of each `kdumpy`."""
    image = place / "image"
    capturing.build_image(kernel, capturing.config(), image)
    make_root(kernel, place / "root.img", {f"var/lib/kdumpy/capture-{kernel.release}.img": image}, script)
    machine = hardware(kernel, place, reserve)
    with Machine(machine, place / "console") as running:
        running.wait_for(end, 120, ("Kernel panic - not syncing: (?!sysrq)",))
        running.wait_end(60)
    said = (place / "console").read_text(errors="replace").replace("\r", "")
    parts = re.split(r"^GUEST exit (\d+)$", said, flags=re.MULTILINE)
    return [(int(code), text) for text, code in zip(parts[::2], parts[1::2], strict=False)]


def test_what_is_loaded_captures_the_panic_and_what_cannot_be_is_told(kernel: Kernel, tmp_path: Path) -> None:
    found = answers(kernel, tmp_path, ARMED, "crashkernel=192M", "kdumpy: poweroff")
    shown, short, broken, large, first, second, unloaded, nothing, third, status, disabled, refused = found
    assert shown[0] == 0
    assert "cmdline  console=ttyS0 no_timer_check nr_cpus=1 irqpoll" in shown[1]
    assert short[0] == 3
    assert "cut short: 4000000 bytes, and its header says" in short[1]
    assert broken[0] == 3
    assert "the file is not a kernel that this kernel can start" in broken[1]
    assert "the kernel says: kexec-bzImage64: Not a bzImage" in broken[1]
    assert large[0] == 3
    assert "do not fit into the 192.0 MiB that are reserved" in large[1]
    assert "EADDRNOTAVAIL" in large[1]
    assert first[0] == 0
    assert f"loaded {kernel.release}" in first[1]
    assert "is loaded already" in second[1]
    assert "the next panic leaves no dump" in unloaded[1]
    assert (nothing[0], "no capture kernel is loaded" in nothing[1]) == (0, True)
    assert '"call": "kexec_file_load"' in third[1]
    ready = json.loads(status[1])
    assert (status[0], ready["ready"]) == (0, True)
    assert ready["verdict"].startswith("READY: the next panic will leave a dump on disk:LABEL=out (about ")
    for code, text in (disabled, refused):
        assert code == 3
        assert "kernel.kexec_load_disabled is set" in text
    console = (tmp_path / "console").read_text(errors="replace")
    assert "GUEST loaded 1" in console
    guest.fetch_dump(tmp_path / "out.img", tmp_path / "vmcore")
    with open_dump(tmp_path / "vmcore") as dump:
        assert dump.vmcoreinfo.osrelease == kernel.release
        kept = dump.pages_present * dump.page_size
    estimated = ready["checks"]["space"]["facts"]
    assert 0.8 < estimated["kept_bytes"] / kept < 1.3
    assert estimated["estimated_bytes"] > (tmp_path / "vmcore").stat().st_size


def test_the_older_call_captures_as_well(kernel: Kernel, tmp_path: Path) -> None:
    found = answers(kernel, tmp_path, SEGMENTS, "crashkernel=192M", "kdumpy: poweroff")
    assert found[0][0] == 0
    assert '"call": "kexec_load"' in found[0][1]
    guest.fetch_dump(tmp_path / "out.img", tmp_path / "vmcore")
    with open_dump(tmp_path / "vmcore") as dump:
        assert dump.vmcoreinfo.osrelease == kernel.release
    with kdumpy.open(tmp_path / "vmcore") as opened:
        assert opened.panic is not None
        assert opened.panic.task is not None
        assert any("sysrq: Trigger a crash" in record.text for record in opened.log)


def test_lockdown_refuses_a_kernel_without_a_signature(kernel: Kernel, tmp_path: Path) -> None:
    found = answers(kernel, tmp_path, LOCKED, "crashkernel=192M", "GUEST loaded 0")
    assert [code for code, _ in found] == [0, 3, 1]
    told = found[1][1]
    assert "locked down (integrity)" in told
    assert "kexec of unsigned images is restricted" in told       # the kernel's own line
    assert "the capture kernel that was loaded before is gone" in told
    verdict = found[2][1].strip().splitlines()[0]
    assert "NOT READY: no capture kernel is loaded: " in verdict
    assert "locked down (integrity)" in verdict


def test_without_a_reservation_the_answer_is_setup(kernel: Kernel, tmp_path: Path) -> None:
    found = answers(kernel, tmp_path, NOT_RESERVED, "", "Power down")
    assert [code for code, _ in found] == [3, 1, 3]
    assert "no memory is reserved" in found[0][1]
    assert "run `kdumpy setup`, then reboot" in found[0][1]
    assert "NOT READY: no memory is reserved: crashkernel= is not on the running kernel's command line" in found[1][1]
    assert "only root may do that" in found[2][1]
