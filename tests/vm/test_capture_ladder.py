"""Every rung of the ladder, taken for real: a guest crashes and something is wrong with its capture."""

from __future__ import annotations

import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from kdumpy.dumpfile import open_dump
from kdumpy.errors import LaboratoryError
from kdumpy.vm import capturing, trial
from kdumpy.vm.capturing import OUT, config
from kdumpy.vm.trial import Trial, crash

HIDE_LAYOUT = """\
import sys
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
real = VmcoreInfo._int
def hidden(self, line, base, default=None):
    if line.startswith(("OFFSET(page.", "SIZE(page)")):
        line = "no such line"
    return real(self, line, base, default)
VmcoreInfo._int = hidden
from kdumpy.capture.__main__ import main
sys.exit(main())
"""
"""A capture program for a kernel that does not tell how its struct page is laid out."""

HOG = b"""#!/bin/sh
# Fill the memory until so little is left that Python cannot work.
free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
mount -t tmpfs -o size=100% tmpfs /mnt
dd if=/dev/zero of=/mnt/hog bs=1M count=$((free - 12)) 2>/dev/null
"""

TERMINATE = b"""#!/bin/sh
# Send SIGTERM to the capture once it has seen the crash.
(until grep -q 'saved the kernel log' /run/kdumpy/steps; do sleep 0.1; done
for status in /proc/[0-9]*/status; do
    case $(head -n 1 "$status") in *python3) kill -TERM "$(basename "$(dirname "$status")")" ;; esac
done) >/dev/null 2>&1 &
"""


def said(trial: Trial, *wanted: str) -> None:
    """Hold that the ladder's lines hold these words, in this order."""
    lines = iter(trial.steps)
    for words in wanted:
        assert any(words in line for line in lines), (words, trial.steps)


def whole(trial: Trial, label: str, tmp_path: Path) -> Path:
    """Fetch the dump and hold that it is one, of the kernel that crashed."""
    path = trial.fetch(label, "vmcore", tmp_path / "vmcore")
    with open_dump(path) as dump:
        assert "cloud" in dump.vmcoreinfo.osrelease
    return path


def test_a_missing_target_then_a_full_one_then_one_that_takes_it(tmp_path: Path) -> None:
    text = config([f"disk:LABEL={label}/" for label in ("absent", "small", OUT)], device_wait_s=1)
    done = crash(tmp_path, trial.image(text), {"small": 14, OUT: 800})
    said(done, "LABEL=absent", "small", f"saved LABEL={OUT}")
    whole(done, OUT, tmp_path)
    log = done.fetch(OUT, "kexec-dmesg.log", tmp_path / "log").read_text()
    assert "LABEL=absent" in log
    assert "small" in log
    with pytest.raises(LaboratoryError, match="did not leave a file"):
        done.fetch("small", "vmcore", tmp_path / "none")
    assert "Linux version" in done.fetch("small", "vmcore-dmesg.txt", tmp_path / "dmesg").read_text()


def test_memory_that_runs_out_kills_python_and_the_shell_copies(tmp_path: Path) -> None:
    built = trial.image(config(), files={"etc/kdumpy/pre.d/hog": HOG})
    done = crash(tmp_path, built, {OUT: 800}, memory_mib=384, crashkernel="128M")
    said(done, "ended with 137 (killed: most likely for want of memory)", "trying with less memory",
         "copying", "saved the whole memory, unfiltered")
    assert whole(done, OUT, tmp_path).read_bytes()[:4] == b"\x7fELF"
    assert "ended with 137" in done.fetch(OUT, "kexec-dmesg.log", tmp_path / "log").read_text()


def test_a_kernel_whose_page_layout_is_unknown_is_saved_unfiltered(tmp_path: Path) -> None:
    made = capturing.packed_python()
    start = next(made.tree.root.rglob("kdumpy_start.pyc")).relative_to(made.tree.root)
    code = compile(HIDE_LAYOUT, "hidden", "exec")
    # Python's archive is unpacked behind ours: the files change places in the capture kernel.
    built = trial.image(config(), files={"hidden": MAGIC_NUMBER + bytes(12) + marshal.dumps(code),
                                         "etc/kdumpy/pre.d/swap": f"#!/bin/sh\ncp /hidden /{start}\n".encode()})
    done = crash(tmp_path, built, {OUT: 800}, memory_mib=384, crashkernel="128M")
    said(done, f"saved LABEL={OUT}")
    assert any("all memory is taken" in line for line in done.steps), done.steps
    with open_dump(whole(done, OUT, tmp_path)) as dump:
        assert dump.pages_present > 40_000


def test_a_termination_ends_it_with_what_there_is(tmp_path: Path) -> None:
    built = trial.image(config(), files={"etc/kdumpy/pre.d/terminate": TERMINATE})
    done = crash(tmp_path, built, {OUT: 800})
    said(done, "saved the kernel log", "ended early", "no whole dump was saved")
    assert not [line for line in done.steps if line.startswith("copying")]
    assert "sysrq" in done.fetch(OUT, "vmcore-dmesg.txt", tmp_path / "dmesg").read_text()


def test_without_python_and_settings_the_shell_copies_all(tmp_path: Path) -> None:
    done = crash(tmp_path, trial.image(config(), carried=False), {OUT: 800}, memory_mib=384, crashkernel="128M")
    said(done, "there is no Python", "copying", "saved the whole memory, unfiltered")
    with open_dump(whole(done, OUT, tmp_path)) as dump:
        assert dump.format == "elf"
        assert dump.vmcoreinfo


def test_a_broken_configuration_is_copied_past(tmp_path: Path) -> None:
    built = trial.image(config(), files={"etc/kdumpy-capture.toml": b"targets = [oops\n"})
    done = crash(tmp_path, built, {OUT: 800}, memory_mib=384, crashkernel="128M")
    said(done, "not TOML", "saved the whole memory, unfiltered")
    whole(done, OUT, tmp_path)
