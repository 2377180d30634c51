"""The package for servers as tests install it: built once in a run."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).parents[1]


@cache
def deb() -> Path:
    """Return a .deb of this checkout, compressed quickly."""
    out = Path(mkdtemp(prefix="kdumpy-deb-"))
    done = subprocess.run([sys.executable, "-m", "tools.packages", "deb", "--fast", "--python", "3.11",
                           "--out", out], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.deb"))
