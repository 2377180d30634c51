"""The command line is light: help loads nothing heavy, and every command has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdumpy.cli.main import COMMANDS

HEAVY = ("drgn", "numpy", "rich", "prompt_toolkit", "capstone", "jinja2", "zstandard", "IPython")
MINE = ("log", "info", "list", "shell", "crash", "convert", "repair", "status", "load", "unload", "vmlinux")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *words], capture_output=True, text=True, timeout=60,
                          check=False)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in MINE)])
def test_help_loads_no_heavy_library(words: list[str]) -> None:
    code = ("import sys\nfrom kdumpy.cli.main import main\n"
            f"try: main({words!r})\nexcept SystemExit: pass\n"
            f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\nassert not heavy, heavy\n")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "usage: kdumpy" in answer.stdout


@pytest.mark.parametrize("name", MINE)
def test_every_command_has_help_with_examples(name: str) -> None:
    answer = run(name, "--help")
    assert answer.returncode == 0
    assert f"kdumpy {name} " in answer.stdout
    assert "examples:" in answer.stdout
    assert name in COMMANDS


@pytest.mark.parametrize("words", [
    [], ["no-such-command"], ["log"], ["log", "x", "--no-such-option"], ["info"], ["crash"], ["shell"],
    ["log", "/etc/hostname", "--last", "many"], ["log", "/etc/hostname", "-l", "loud"],
    ["convert"], ["repair"], ["repair", "/etc/hostname"], ["convert", "/etc/hostname"],
    ["vmlinux"], ["vmlinux", "/etc/hostname"],
    ["log", "/etc/hostname", "--last", "0"], ["shell", "/etc/hostname", "--no-such-option"],
    ["shell", "/etc/hostname", "no-such-script.py"], ["crash", "/etc/hostname", "-i", "no-such-file"],
])
def test_wrong_usage_exits_with_2_and_one_line(words: list[str]) -> None:
    answer = run(*words)
    assert answer.returncode == 2, answer
    assert "Traceback" not in answer.stderr
    assert answer.stderr.strip()


@pytest.mark.parametrize("command", ["log", "info", "crash", "shell", "convert", "repair", "vmlinux"])
@pytest.mark.parametrize("file", ["/etc/hostname", "/no/such/file", "/etc", "/dev/null"])
def test_what_is_no_dump_is_told_in_one_line(command: str, file: str, tmp_path: Path) -> None:
    more = {"crash": ["-e", "bt"], "convert": [str(tmp_path / "out")], "repair": [str(tmp_path / "out")],
            "vmlinux": ["-o", str(tmp_path / "out")]}
    answer = run(command, file, *more.get(command, []))
    assert not list(tmp_path.iterdir())
    assert answer.returncode in (1, 3), answer
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stderr.startswith("kdumpy: ")
    assert "internal error" not in answer.stderr
