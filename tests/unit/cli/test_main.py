"""The command line's frame: limits, exit codes, messages."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from kdumpy.cli.main import main
from kdumpy.errors import DamagedDump


@pytest.mark.parametrize("asked", ["2X", "much", "-1", "1.5G", "G"])
def test_a_memory_limit_that_is_no_size_is_wrong_usage(asked: str, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KDUMPY_MEMORY_LIMIT", asked)
    monkeypatch.setattr("sys.argv", ["kdumpy", "log", "/nonexistent"])
    assert main() == 2
    assert "KDUMPY_MEMORY_LIMIT" in capsys.readouterr().err


def test_an_error_cannot_command_the_terminal(monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    def run(arguments: object) -> int:
        raise DamagedDump("bad \x1b]0;pwned\x07\x1b[31m name", where="vmcore")

    monkeypatch.setattr("kdumpy.cli.info.run", run)
    assert main(("info", "vmcore")) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\x07" not in error
    assert len(error.splitlines()) == 1


def test_an_argument_too_many_points_to_the_command_s_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(("report", "vmcore", "another"))
    assert ended.value.code == 2
    assert "kdumpy report --help" in capsys.readouterr().err


def test_a_caller_s_process_is_not_limited() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert main(("log", "/nonexistent")) == 3
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_stream_that_the_caller_has_closed_is_no_error() -> None:
    done = subprocess.run(["sh", "-c", f"exec {sys.executable} -m kdumpy --version >&-"], capture_output=True,
                          check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(["sh", "-c", f"exec {sys.executable} -m kdumpy log /nosuch 2>&-"], capture_output=True,
                          check=False)
    assert (done.returncode, done.stdout) == (3, b"")
