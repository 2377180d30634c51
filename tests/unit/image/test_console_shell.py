"""The capture's first scripts go on where the kernel has no console: /dev/console cannot be opened then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src" / "kdumpy"
SCRIPTS = (SOURCE / "image/files/init", SOURCE / "host/images/files/begin")


@pytest.mark.parametrize("shell", [["sh"], ["busybox", "sh"]])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("console", [True, False])
def test_a_kernel_without_a_console_is_no_end(script: Path, shell: list[str], console: bool, tmp_path: Path) -> None:
    (block,) = [part for part in script.read_text().split("\n\n") if "/dev/console" in part]
    node = tmp_path / "console"
    if console:
        node.touch()
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    # Only what has to do with the console is run: the rest would mount file systems here.
    lines = [line for line in block.splitlines() if not line.startswith(("#", "/bin/busybox", "mkdir", "export"))]
    text = "\n".join(lines).replace("/dev/console", str(node)) + f"\necho said\n: >{tmp_path}/reached\n"
    done = subprocess.run([*shell, "-uc", text], capture_output=True, text=True, check=False, timeout=20)
    assert (tmp_path / "reached").exists(), done.stderr
    if console:
        assert node.read_text() == "said\n"
