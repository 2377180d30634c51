"""The README shows what kdumpy really prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import lab

ROOT = Path(__file__).parents[2]


def test_the_transcript_is_what_the_report_prints() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text = (ROOT / "README.md").read_text()
    assert "flaky_poll_channel" in text
    assert readme.renewed(text, lab.bundled()) == text, "run tools/readme.py"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    import re

    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
