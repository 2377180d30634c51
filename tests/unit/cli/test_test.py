"""`kdumpy test`: it crashes only what is ready, and only when the machine's name was typed. (The crash: tests/vm.)"""

from __future__ import annotations

import io
import os
import socket

import pytest

from kdumpy.cli.main import main
from kdumpy.host import crashing, status
from kdumpy.host.checks import CHECKS, Answer, Verdict
from kdumpy.host.status import Line, Status

NAME = socket.gethostname()


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


@pytest.fixture
def crashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets an entry in place of each crash."""
    happened: list[str] = []
    monkeypatch.setattr(crashing, "crash", lambda system: happened.append("crash"))
    monkeypatch.setattr(crashing, "refuse_a_container", lambda system: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return happened


def ready(monkeypatch: pytest.MonkeyPatch, answer: bool | None) -> None:
    verdict = {True: Verdict.OK, False: Verdict.BAD, None: Verdict.UNKNOWN}[answer]
    lines = tuple(Line(name, True, Answer(verdict, f"{name} says so")) for name in CHECKS)
    monkeypatch.setattr(status, "look", lambda system: Status(answer, "the verdict", lines, 1.5))


@pytest.mark.parametrize(("typed", "code"), [(NAME, 0), (f" {NAME} ", 0), ("yes", 1), ("y", 1), ("", 1),
                                             (NAME[:-1], 1)])
def test_only_the_machines_name_crashes_it(monkeypatch: pytest.MonkeyPatch, crashed: list[str], typed: str, code: int,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    ready(monkeypatch, True)
    monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n" if typed else ""))      # empty: Ctrl-D
    assert main(["test"]) == code
    assert crashed == (["crash"] if code == 0 else [])
    assert f"Type this machine's name to crash it ({NAME}): " in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "words", "code", "happens"), [
    (True, ["--yes-crash-this-machine"], 0, True), (True, ["--dry-run"], 0, False),
    (True, ["--dry-run", "--yes-crash-this-machine"], 0, False),
    (False, ["--yes-crash-this-machine"], 1, False), (False, ["--yes-crash-this-machine", "--force"], 0, True),
    (None, ["--yes-crash-this-machine"], 1, False), (None, ["--yes-crash-this-machine", "--force"], 1, False)])
def test_only_what_is_ready_is_crashed(monkeypatch: pytest.MonkeyPatch, crashed: list[str], answer: bool | None,
                                       words: list[str], code: int, happens: bool,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    ready(monkeypatch, answer)
    assert main(["test", *words]) == code
    assert bool(crashed) is happens
    out = capsys.readouterr().out
    assert ("will crash: every program ends" in out) is (code == 0)
    assert ("loaded: loaded says so" in out) is (answer is not True)


def test_without_a_terminal_nobody_can_agree(monkeypatch: pytest.MonkeyPatch, crashed: list[str],
                                             capsys: pytest.CaptureFixture[str]) -> None:
    ready(monkeypatch, True)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{NAME}\n"))
    assert main(["test"]) == 3
    assert "--yes-crash-this-machine does it" in capsys.readouterr().err
    assert crashed == []


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, crashed: list[str]) -> None:
    ready(monkeypatch, True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["test", "--yes-crash-this-machine"]) == 3
    assert crashed == []
