"""The table of crash's options in the documentation is that of the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_documentation_has_the_options_that_the_commands_have() -> None:
    made = subprocess.run([sys.executable, str(ROOT / "tools" / "crash_options.py")], capture_output=True, text=True,
                          check=True)
    table = made.stdout.rstrip()
    assert table.count("\n") > 40
    assert table in (ROOT / "docs" / "crash-commands.md").read_text(), "run tools/crash_options.py"
