"""Renew the picture of the README: the report on the bundled dump, in the system's Chromium.

Run `python tools/screenshot.py` after the page was changed (needs `tools/system-packages web`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PICTURE = HERE / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1200, 860


def main() -> None:
    """Write the picture."""
    from playwright.sync_api import sync_playwright

    from kdumpy.vm import bundle

    vmcore = bundle.unpack(HERE / "tests" / "data")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = Path(folder) / "report.html"
        subprocess.run([sys.executable, "-m", "kdumpy", "report", "--dwarf", "no", vmcore.name, "--html", page],
                       cwd=vmcore.parent, check=True, stdout=subprocess.DEVNULL)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        shown.goto(page.as_uri())
        shown.locator("html[data-state=ready]").wait_for()
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        shown.screenshot(path=PICTURE)
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
