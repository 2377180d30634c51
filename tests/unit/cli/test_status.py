"""`kdumpy status`: the exit code is true, the screen has every check with its mend, metrics are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdumpy.cli import status as command
from kdumpy.cli.main import main
from kdumpy.host import status
from kdumpy.host.checks import CHECKS, Answer, Verdict
from kdumpy.host.status import Line, Status


def found(ready: bool | None, **changed: Answer) -> Status:
    answers = {name: changed.get(name, Answer(Verdict.OK, f"{name} is well")) for name in CHECKS}
    lines = tuple(Line(name, name == "target", answer) for name, answer in answers.items())
    return Status(ready, {True: "READY: yes", False: "NOT READY: no", None: "NOT KNOWN: hidden"}[ready], lines, 1.5)


BAD = Answer(Verdict.BAD, "it is " + "very " * 30 + "wrong", "mend it\x1b[2J with " + "great " * 30 + "care")


def show(monkeypatch: pytest.MonkeyPatch, answer: Status, *words: str) -> int:
    monkeypatch.setattr(status, "look", lambda system, cause_of: answer)
    return main(["status", *words])


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1), (None, 3)])
@pytest.mark.parametrize("words", [[], ["--quiet"], ["--json"], ["--prometheus", "-"]])
def test_the_exit_code_is_the_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                     ready: bool | None, code: int, words: list[str]) -> None:
    assert show(monkeypatch, found(ready), *words) == code
    out = capsys.readouterr().out
    assert (out == "") == (words == ["--quiet"])


def test_the_screen_says_what_is_wrong_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(monkeypatch, found(False, loaded=BAD))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NOT READY: no"
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines[1:] if line[2:3] in "✓✗+x"] == list(CHECKS)
    assert sum("-> mend it\\x1b[2J" in line for line in lines) == 1
    assert "\x1b" not in "".join(lines)


def test_the_metrics_are_put_in_place_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "kdumpy.prom"
    place.write_text("old")
    assert show(monkeypatch, found(True), "--prometheus", str(place)) == 0
    assert "kdumpy_ready 1\n" in place.read_text()
    assert place.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [place]
    monkeypatch.setattr(status, "prometheus", lambda found: 1 / 0)
    show(monkeypatch, found(True), "--prometheus", str(place))
    assert "kdumpy_ready 1\n" in place.read_text()
    assert list(tmp_path.iterdir()) == [place]
    assert show(monkeypatch, found(True), "--prometheus", str(tmp_path / "no" / "x.prom")) == 3


def test_json_beside_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                             tmp_path: Path) -> None:
    show(monkeypatch, found(None), "--json", "--prometheus", str(tmp_path / "x.prom"))
    assert json.loads(capsys.readouterr().out)["ready"] is None
    assert "kdumpy_ready NaN" in (tmp_path / "x.prom").read_text()


@pytest.mark.parametrize(("line", "text"), [
    ("[   12.5] BUG: x", "BUG: x"), ("<4>[   12.5] BUG: x", "BUG: x"), ("BUG: a] b", "BUG: a] b"), ("", ""),
])
def test_a_logs_times_are_taken_off(line: str, text: str) -> None:
    assert command._untimed(line) == text
