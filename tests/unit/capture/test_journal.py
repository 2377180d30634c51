"""kexec-dmesg.log: the steps of all attempts, and the capture kernel's own log."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from kdumpy.capture.console import Console
from kdumpy.capture.journal import Journal, kernel_log, told
from kdumpy.errors import HostError


def test_attempts_and_the_shell_write_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "steps"
    out = io.StringIO()
    Journal(Console(out), path).say("first attempt")
    with path.open("a") as file:
        file.write("[    9.000000] kdumpy: python died of signal 9\n")
    second = Journal(Console(out), path)
    second.say("second attempt")
    second.note("silent")
    text = second.text().decode()
    steps, _head, log = text.partition("\n# The capture kernel's own log.\n")
    assert [line.split("] ", 1)[1] for line in steps.splitlines()[1:]] == [
        "kdumpy: first attempt", "kdumpy: python died of signal 9", "kdumpy: second attempt", "kdumpy: silent"]
    assert log
    assert out.getvalue() == "kdumpy: first attempt\nkdumpy: second attempt\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_the_file_the_steps_are_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (None, tmp_path / "file" / "steps", tmp_path):
        journal = Journal(Console(io.StringIO()), place)
        journal.say("a step")
        assert b"kdumpy: a step\n" in journal.text()


def test_a_link_in_the_file_s_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "steps").symlink_to("elsewhere")
    Journal(Console(io.StringIO()), tmp_path / "steps").say("a step")
    assert not (tmp_path / "elsewhere").exists()


def test_records_of_kmsg_become_lines_as_dmesg_prints_them(tmp_path: Path) -> None:
    record = b"6,339,5140900,-;pci 0000: two\\x0alines\n SUBSYSTEM=pci\n DEVICE=+pci:0000\n"
    file = tmp_path / "kmsg"
    file.write_bytes(record)
    assert kernel_log(file) == b"[    5.140900] pci 0000: two\n[    5.140900] lines\n"
    assert b"cannot be read" in kernel_log(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: reads the kernel's log")
def test_this_kernel_s_log_is_read() -> None:
    """Its first line is the kernel's version only until the ring is full, which takes days."""
    log = kernel_log()
    assert b"cannot be read" in log or re.match(rb"\[ *\d+\.\d{6}\] \S", log)


def fail(error: Exception) -> str:
    try:
        raise error
    except Exception as caught:
        return told(caught)


def test_an_error_of_ours_is_told_in_its_words_and_another_with_its_place() -> None:
    assert fail(HostError("no", why="because")) == "no: because"
    assert fail(ZeroDivisionError("division")).startswith("ZeroDivisionError: division (test_journal.py:")
