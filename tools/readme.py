"""Renew what the README shows of real output: the transcript, from the bundled dump."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
LINES = 25
"""How much of a report the first screen shows."""


def transcript(vmcore: Path) -> str:
    """Return the beginning of the report on a dump, as the README shows it."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TZ": "UTC"}
    done = subprocess.run([sys.executable, "-m", "kdumpy", "report", "--dwarf", "no", vmcore.name], cwd=vmcore.parent,
                          env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.rstrip().splitlines()
    shown = [line.rstrip() for line in lines[:LINES]]
    if len(lines) > LINES:
        shown.append("…")
    return "\n".join(["```console", f"$ kdumpy report {vmcore.name}", *shown, "```"])


def renewed(text: str, vmcore: Path) -> str:
    """Return the README with a fresh transcript."""
    return re.sub(r"(<!-- transcript: .*? -->\n).*?(\n<!-- end -->)",
                  lambda match: match[1] + transcript(vmcore) + match[2], text, count=1, flags=re.S)


def main() -> None:
    """Write the README anew."""
    from kdumpy.vm import bundle

    README.write_text(renewed(README.read_text(), bundle.unpack(README.parent / "tests" / "data")))


if __name__ == "__main__":
    main()
