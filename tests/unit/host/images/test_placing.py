"""A new image takes the old one's place whole, with its record, or leaves both as they were; and no copies of keys."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpy.host import images


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "capture.img").write_bytes(b"old")
    (folder / "capture.json").write_text("of the old")
    (tmp_path / "new").write_bytes(b"new")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_image_and_record_are_new_and_for_root_alone(state: Path) -> None:
    images._put(state.parent / "new", state / "capture.img", "of the new", state / "capture.json")
    assert (state / "capture.img").read_bytes() == b"new"
    assert (state / "capture.json").read_text() == "of the new"
    assert names(state) == ["capture.img", "capture.json"]
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_full_disk_leaves_the_old_image_its_record_and_nothing_else(state: Path, monkeypatch: pytest.MonkeyPatch,
                                                                      fails_at: int) -> None:
    left = [fails_at]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        images._put(state.parent / "new", state / "capture.img", "of the new", state / "capture.json")
    assert (state / "capture.img").read_bytes() == b"old"
    assert (state / "capture.json").read_text() == "of the old"
    assert names(state) == ["capture.img", "capture.json"]


def test_an_image_to_look_at_leaves_no_record(state: Path) -> None:
    images._put(state.parent / "new", state / "elsewhere.img", "of the new", None)
    assert (state / "elsewhere.img").read_bytes() == b"new"
    assert names(state) == ["capture.img", "capture.json", "elsewhere.img"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_ended_leaves_no_copies_of_keys(number: signal.Signals) -> None:
    # Whoever runs the tests may have SIGHUP ignored (nohup), and a program that is started inherits that.
    program = (f"import signal, time\nsignal.signal({number}, signal.SIG_DFL)\n"
               "from kdumpy.host import images\nwith images._workplace() as work:\n"
               "    (work / 'key').write_text('secret')\n    print(work, flush=True)\n    time.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        work = Path(running.stdout.readline().strip())
        assert (work / "key").exists()
        running.send_signal(number)
    assert running.returncode == 128 + number
    assert not work.exists()
