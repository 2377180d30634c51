"""`kdumpy setup` on a terminal and for programs: what is shown, asked and refused. (What it does: tests/vm.)"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

import otherhosts
from armedhost import Host
from kdumpy.cli.main import main


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr("kdumpy.host.system.System", lambda: made.system)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def test_a_dry_run_answers_in_json_and_changes_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = otherhosts.contents(host.system)
    assert main(["setup", "--dry-run", "--json", "--crashkernel", "512M", "--set", "panic.reboot_s=30"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["applied"], answer["empty"], answer["reboot"]) == (False, False, True)
    assert answer["machine"]["boot_loader"] == "grub"
    assert answer["machine"]["distribution"]["id"] == "debian"
    diffs = "".join(change.get("diff", "") for step in answer["steps"] for change in step["changes"])
    assert "crashkernel=512M" in diffs
    assert "+reboot_s = 30" in diffs
    assert "+kernel.panic = 30" in diffs
    assert otherhosts.contents(host.system) == before


@pytest.mark.parametrize("typed", ["n\n", "\n", "yes please\n", ""])
def test_what_is_not_agreed_to_is_not_done(host: Host, monkeypatch: pytest.MonkeyPatch, typed: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    before = otherhosts.contents(host.system)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert main(["setup"]) == 1
    said = capsys.readouterr()
    assert "Do this? [y/N]" in said.out
    assert "nothing was changed" in said.err
    assert otherhosts.contents(host.system) == before


@pytest.mark.parametrize(("words", "said"), [
    (["setup"], "there is nobody to ask"), (["setup", "--undo", "--yes"], "was not set up by kdumpy"),
    (["setup", "--set", "panic.on_opps=true"], "did you mean on_oops?"),
    (["setup", "--crashkernel", "25GB"], "crashkernel is '25GB'"),
    (["setup", "--target", "ftp://store/x"], "ftp"), (["setup", "--target", "/var/crash", "--set", "x"], "TABLE.KEY")])
def test_what_cannot_be_done_is_said_in_a_line(host: Host, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(words) in (2, 3)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_only_root_changes_a_system_and_everybody_may_look(host: Host, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["setup", "--yes"]) == 3
    assert "sudo kdumpy setup" in capsys.readouterr().err
    assert main(["setup", "--dry-run"]) == 0
