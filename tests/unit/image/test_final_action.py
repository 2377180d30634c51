"""What follows a capture, in an image that lacks the program for it: the kernel's own way, never another action."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "src" / "kdumpy" / "image" / "files" / "final-action"


@pytest.mark.parametrize(("action", "there", "done"), [
    ("reboot", True, "reboot -f\n"), ("poweroff", True, "poweroff -f\n"), ("halt", True, "halt -f\n"),
    ("reboot", False, "b\n"), ("poweroff", False, "o\n"), ("halt", False, "")])
def test_the_action_is_done_as_configured_with_and_without_its_program(action: str, there: bool, done: str,
                                                                       tmp_path: Path) -> None:
    said, programs = tmp_path / "said", tmp_path / "bin"
    said.touch()
    programs.mkdir()
    # Nothing of the real ones is in reach: a program that ends the machine ends the script here.
    stubs = {"sync": "exit 0", "sleep": "kill -9 $PPID"}
    stubs |= {action: f'echo "{action} $*" >>{said}; kill -9 $PPID'} if there else {}
    for name, line in stubs.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "settings").write_text(f"final_action={action}\n")
    text = SCRIPT.read_text().replace("/proc/sysrq-trigger", str(said))
    assert "/proc" not in text
    (tmp_path / "script").write_text(text)
    programs.joinpath("sh").symlink_to(shutil.which("sh") or "/bin/sh")
    subprocess.run(["/bin/sh", tmp_path / "script"], check=False, timeout=20, capture_output=True,
                   env={"PATH": str(programs), "KDUMPY_SETTINGS": str(tmp_path / "settings")})
    assert said.read_text() == done
