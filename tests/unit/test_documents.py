"""The documents: every link between them leads somewhere, and nothing is left that was to be filled in."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from kdumpy.host.checks import CHECKS

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"\bdocs/[a-z0-9-]+\.md\b")


def anchors(path: Path) -> set[str]:
    """Return what a document's headings are called in links, as GitHub makes it of them."""
    heads = re.findall(r"^#+ (.*)$", CODE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in LINK.findall(CODE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{path.name} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_be_filled_in(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(r"^[A-Z]{4,}$", CODE.sub("", text), re.MULTILINE)
    assert not re.findall(r"\b(?:TODO|FIXME|to come|tbd)\b", text)


def test_documents_that_the_program_names_are_there() -> None:
    named = {(name, path.name) for path in (ROOT / "src").rglob("*.py") for name in NAMED.findall(path.read_text())}
    assert [(name, file) for name, file in sorted(named) if not (ROOT / name).exists()] == []


def test_every_check_of_status_is_described() -> None:
    text = (ROOT / "docs/status.md").read_text()
    assert [name for name, holds in CHECKS.items() if f"| `{name}` | {holds} |" not in text] == []
