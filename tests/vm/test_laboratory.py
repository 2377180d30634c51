"""Real boots: a fault is brought about in a guest, and kdump takes the dump."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.errors import LaboratoryError
from kdumpy.vm import kernels, laboratory, qemu, toolchain
from kdumpy.vm.faults import FAULTS
from kdumpy.vm.qemu import Hardware, Machine

KDUMP_SIGNATURE = b"KDUMP   "


def test_a_fault_becomes_a_dump_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whole way: a fresh boot; then the cache answers."""
    said: list[str] = []
    # A recipe that nothing else uses, so that the dump is made and not found.
    boot = f"kdumpy.test={os.getpid()}.{time.time_ns()}"

    def unique(recipe: laboratory.Recipe) -> laboratory.Recipe:
        return replace(recipe, fault=replace(recipe.fault, boot=boot))

    made = laboratory.dump("6.1", "null-procread", recipe=unique, progress=said.append)
    try:
        assert made.path.read_bytes()[:8] == KDUMP_SIGNATURE
        console = made.console.read_text(errors="replace")
        assert "NULL pointer dereference" in console
        assert "flaky_show_channel" in console
        assert made.release in console
        assert made.driver.read_bytes()[:4] == b"\x7fELF"
        facts = json.loads((made.path.parent / "recipe.json").read_text())
        assert facts["fault"]["boot"] == boot
        assert facts["bytes"] == made.path.stat().st_size
        assert any(line.startswith("booting 6.1.") for line in said)

        said.clear()
        started = time.monotonic()
        again = laboratory.dump("6.1", "null-procread", recipe=unique, progress=said.append)
        assert again == made
        assert said == []
        assert time.monotonic() - started < 2
    finally:
        for file in made.path.parent.iterdir():
            file.unlink()
        made.path.parent.rmdir()


def test_a_guest_that_falls_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laboratory, "ATTEMPTS", 1)

    def wrong(recipe: laboratory.Recipe) -> laboratory.Recipe:
        return replace(recipe, fault=replace(recipe.fault, symptoms=("this is never printed",)))

    # The symptom is no part of the key: make a directory of its own by another boot parameter.
    def unique(recipe: laboratory.Recipe) -> laboratory.Recipe:
        changed = wrong(recipe)
        return replace(changed, fault=replace(changed.fault, boot=f"kdumpy.test={time.time_ns()}"))

    with pytest.raises(LaboratoryError, match="another fault") as caught:
        laboratory.dump("6.1", "bug", recipe=unique)
    kept = Path(caught.value.where)
    assert kept.name.startswith("bug-")
    assert "kernel BUG at" in kept.read_text(errors="replace")
    assert not Path(str(kept).removesuffix(".failed.log")).exists()
    kept.unlink()


def test_a_guest_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    kernel = kernels.get("6.1")
    empty = tmp_path / "initrd"
    empty.write_bytes(b"")
    # Without an init the kernel panics and, by panic=0, stays there for ever.
    hardware = Hardware(kernel.image, empty, "console=ttyS0 panic=0", memory_mib=256)
    with Machine(hardware, tmp_path / "console.log") as machine:
        match = machine.wait_for(r"Kernel panic - not syncing: (.*)", 60)
        assert "Unable to mount root fs" in match[1]
        status = machine.qmp("query-status")
        assert status["running"] is True
        with pytest.raises(LaboratoryError, match="in time"):
            machine.wait_for("never", 0.5)
        process = machine._process
    assert process is not None
    assert process.returncode == -9


def test_the_accelerator_is_found_by_trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDUMPY_ACCEL", raising=False)
    found = qemu.accelerator(kernels.get("6.1").image)
    assert found in ("kvm", "tcg")
    if not Path("/dev/kvm").exists():
        assert found == "tcg"
    monkeypatch.setenv("KDUMPY_ACCEL", "kvm")
    assert qemu.accelerator(tmp_path / "not there") == "kvm"


def test_an_unknown_kernel_or_fault_is_refused() -> None:
    with pytest.raises(LaboratoryError, match="no such fault"):
        laboratory.dump("6.1", "nothing")
    with pytest.raises(LaboratoryError, match=r"one of 5\.10"):
        laboratory.dump("2.4", "sysrq")


def test_a_driver_that_does_not_compile_says_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**toolchain.driver_source(), "flaky_main.c": b"int main(void) { return undeclared_thing; }\n"}
    monkeypatch.setattr(toolchain, "driver_source", lambda name="flaky": broken)
    with pytest.raises(LaboratoryError, match="undeclared_thing"):
        toolchain.build_driver(kernels.get("6.1"))


@pytest.mark.parametrize("fault", ["live", "live-kdump"])
def test_a_live_guest_is_dumped_without_a_panic(fault: str) -> None:
    made = laboratory.dump("6.1", fault)
    with made.path.open("rb") as file:
        head = file.read(12)
    # QEMU before 8.2 can write the kdump format flattened only.
    signatures = (KDUMP_SIGNATURE, b"makedumpfile") if fault == "live-kdump" else (b"\x7fELF",)
    assert head.startswith(signatures)
    assert "panic" not in made.console.read_text(errors="replace").lower().replace("panic=", "")
    assert FAULTS[fault].cause == "none"
