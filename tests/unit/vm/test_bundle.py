from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest

from kdumpy.errors import LaboratoryError
from kdumpy.vm import bundle

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_LAB", str(tmp_path / "lab"))


def test_the_bundled_dump_is_small_and_of_the_format() -> None:
    assert (DATA / bundle.VMCORE).stat().st_size < 12 << 20
    vmcore = bundle.unpack(DATA)
    assert vmcore.read_bytes()[:8] == b"KDUMP   "
    assert "flaky_poll_channel" in vmcore.with_name(bundle.CONSOLE).read_text()
    assert bundle.unpack(DATA) == vmcore


def test_a_damaged_bundle_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    shutil.copyfile(DATA / bundle.CONSOLE, tmp_path / bundle.CONSOLE)
    packed = lzma.compress(bytes(100_000))
    (tmp_path / bundle.VMCORE).write_bytes(packed[:-40])
    with pytest.raises(LaboratoryError, match="damaged"):
        bundle.unpack(tmp_path)
    assert not list((tmp_path / "lab").rglob("vmcore"))
    with pytest.raises(LaboratoryError, match="no bundled dump"):
        bundle.unpack(tmp_path / "nowhere")
