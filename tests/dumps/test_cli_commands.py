"""`kdumpy log`, `info`, `list`, `shell` and `crash` as programs, on real dumps."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lab

ROOT = Path(__file__).parents[2]


def run(*words: object, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], input=stdin, capture_output=True,
                          text=True, timeout=120, cwd=cwd, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})


@pytest.fixture(params=lab.KERNELS)
def dump(request: pytest.FixtureRequest) -> Path:
    return lab.dump(request.param, "null-workqueue").path


@pytest.fixture
def old() -> Path:
    return lab.dump("6.1", "null-workqueue").path


def test_log_is_the_log(dump: Path) -> None:
    answer = run("log", dump)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("[    0.000000] Linux version ")
    assert "BUG: kernel NULL pointer dereference" in answer.stdout
    records = json.loads(run("log", dump, "--json").stdout)
    assert [record["seq"] for record in records] == sorted(record["seq"] for record in records)
    assert records[0]["text"].startswith("Linux version")
    assert answer.stdout.count("\n") == sum(record["text"].count("\n") + 1 for record in records)


def test_log_chooses(old: Path) -> None:
    whole = run("log", old).stdout.splitlines()
    assert run("log", old, "--last", 3).stdout.splitlines() == whole[-3:]
    assert "BUG: kernel NULL" in run("log", old, "-l", "err+", "-x").stdout
    assert "Linux version" not in run("log", old, "--since", "-1").stdout
    assert re.match(r"\[\w{3} \w{3} +\d+ [\d:]{8} 20\d\d\] ", run("log", old, "-T", "--last", 1).stdout)
    assert len(json.loads(run("log", old, "--json", "--last", 2).stdout)) == 2


def test_info_describes(dump: Path) -> None:
    answer = run("info", dump, "--json")
    assert answer.returncode == 0, answer.stdout
    found = json.loads(answer.stdout)
    assert found["health"]["state"] == "complete"
    assert found["cpus"] == 2
    assert found["page_size"] == 4096
    assert found["pages_bytes"] == found["pages"] * 4096
    assert found["file_bytes"] == dump.stat().st_size
    assert abs(found["crash_time"] - dump.stat().st_mtime) < 86400
    assert found["release"] in run("info", dump).stdout
    deep = json.loads(run("info", "--deep", dump, "--json").stdout)
    assert deep["health"]["deep"]
    assert deep["health"]["pages_lost"] == 0


def test_info_and_log_of_a_cut_dump_say_so(old: Path, tmp_path: Path) -> None:
    cut = tmp_path / "vmcore"
    shutil.copy(old, cut)
    os.truncate(cut, cut.stat().st_size // 2)
    answer = run("info", cut)
    assert answer.returncode == 1
    assert "damaged" in answer.stdout
    assert "cut short" in answer.stdout
    (row,) = json.loads(run("list", cut, "--json").stdout)
    assert row["state"] == "damaged"
    assert "cut short" in row["problem"]
    assert "[damaged] it was cut short, or " in run("list", cut).stdout
    log = run("log", cut)
    assert log.returncode == 1
    assert log.stderr.startswith("kdumpy: ")
    assert "Traceback" not in log.stderr


def test_a_dump_that_lost_its_log_is_not_taken_for_that_of_a_healthy_kernel(old: Path, tmp_path: Path) -> None:
    cut = tmp_path / "vmcore"
    shutil.copy(old, cut)
    os.truncate(cut, cut.stat().st_size // 2)
    answer = run("report", cut)
    assert answer.returncode == 1
    assert answer.stdout.startswith("The kernel crashed, but this dump has lost what would tell why\n")
    assert json.loads(run("report", "--json", cut).stdout)["verdict"]["cause"] == "unknown"


def test_list_has_the_newest_first_with_the_cause(tmp_path: Path) -> None:
    first, second = lab.dump("6.1", "sysrq").path, lab.dump("6.1", "null-workqueue").path
    for path, name in ((first, "a"), (second, "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vmcore").symlink_to(path)
    rows = json.loads(run("list", tmp_path, "--json").stdout)
    assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
    causes = {Path(row["path"]).parent.name: row["cause"] for row in rows}
    assert causes["a"].startswith("sysrq: Trigger a crash")
    assert causes["b"].startswith("BUG: kernel NULL pointer dereference")
    assert {row["state"] for row in rows} == {"complete"}
    text = run("list", tmp_path).stdout.splitlines()
    assert text[0].split()[:2] == ["TIME", "(UTC)"]
    assert len(text) == 3


def test_crash_runs_e_i_and_standard_input(old: Path, tmp_path: Path) -> None:
    answer = run("crash", old, "-e", "bt; mod -t")
    assert answer.returncode == 0, answer.stderr
    assert "flaky_poll_channel" in answer.stdout
    assert answer.stdout.endswith("flaky  OE\n")
    assert run("crash", old, stdin="# comment\nsym schedule\n").stdout.endswith("(T) schedule\n")
    script = tmp_path / "lines"
    script.write_text("set 1\nbt | head -1\n\nexit\nps\n")
    assert run("crash", old, "-i", script).stdout.splitlines()[-1].startswith("PID: 1 ")
    answer = run("crash", old, "-e", "bt 99999; sym schedule")
    assert answer.returncode == 1
    assert answer.stderr == "kdumpy: there is no task with process id 99999\n"
    assert answer.stdout.endswith("(T) schedule\n")
    assert run("crash", old, "-e", "exit; bt").stdout == ""


def test_crash_has_drgns_commands_whatever_plugins_are_disabled(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (("--dwarf", "no"), ()):
        answer = run("crash", old, *words, "-e", "help timer")
        assert answer.returncode == 0, answer.stderr
        monkeypatch.setenv("DRGN_DISABLE_PLUGINS", "*")


def test_crash_takes_the_command_line_of_crash(old: Path) -> None:
    release = run("crash", "--osrelease", old).stdout.strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*-amd64", release)
    assert run("crash", "--log", old).stdout == run("log", old).stdout
    build = run("crash", "--build-id", old)
    assert (build.returncode == 0) == bool(re.fullmatch(r"[0-9a-f]{40}\n", build.stdout))
    answer = run("crash", "-s", "--minimal", "--active", "--kaslr", "auto", "--no_crashrc", old, "-e", "sym schedule")
    assert answer.stdout.endswith("(T) schedule\n")
    answer = run("crash", "-s", "-x", "-S", "--less", "--more", "--hash", "8", "-d", "1", "-p", "4096", "--cpus", "2",
                 "-m", "phys_base=0", "--src", "/usr/src", "--offline", "hide", "-e", "vi", old, stdin="sym schedule\n")
    assert answer.stdout.endswith("(T) schedule\n"), answer.stderr
    assert run("crash", "--version").stdout == run("crash", "-v").stdout == run("--version").stdout
    for refused in (["--zero_excluded"], ["--mod", "/lib/modules"]):
        answer = run("crash", old, *refused)
        assert answer.returncode == 2
        assert "is not done here: " in answer.stderr


def test_crash_pipes_and_redirects(old: Path, tmp_path: Path) -> None:
    answer = run("crash", old, "-e", "ps | grep -c kworker; sym schedule > 'one file'; sym yield >> 'one file'; !ls",
                 cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout.split()[0]) > 5
    assert "one file" in answer.stdout
    assert len((tmp_path / "one file").read_text().splitlines()) == 2
    assert run("crash", old, "-e", "log | head -1").returncode == 0


def test_shell_runs_code_and_scripts(old: Path, tmp_path: Path) -> None:
    assert run("shell", old, "-c", "print(kernel.panic.fault.function, find_task(1).comm.string_())").stdout == \
        "flaky_poll_channel b'init'\n"
    (tmp_path / "helper.py").write_text("NAME = 'beside'\n")
    script = tmp_path / "script.py"
    script.write_text("import sys, helper\nprint(sys.argv[1:], helper.NAME, __name__, prog['init_task'].pid.value_())\n"
                      "sys.exit(7)\n")
    answer = run("shell", old, script, "a", "-b", "--json")
    assert answer.stdout == "['a', '-b', '--json'] beside __main__ 0\n"
    assert answer.returncode == 7
    failing = run("shell", old, "-c", "def f():\n    1 / 0\nf()")
    assert failing.returncode == 1
    assert "ZeroDivisionError" in failing.stderr
    assert "kdumpy/cli" not in failing.stderr
    assert run("shell", old, stdin="print(len(kernel.modules) > 3)").stdout == "True\n"


def test_a_shell_opens_within_a_second(old: Path) -> None:
    times = []
    for _ in range(3):
        begin = time.monotonic()
        assert run("crash", old, "-e", "").returncode == 0
        times.append(time.monotonic() - begin)
    assert min(times) < 1.0, times


def test_a_start_loads_nothing_that_only_some_commands_need() -> None:
    """A session starts in 0.2 s; each of these takes 5 to 90 ms more."""
    code = ("import sys\nfrom kdumpy.cli.main import main\n"
            f"assert main(['crash', {str(lab.dump('6.1', 'null-workqueue').path)!r}, '-e', 'mod']) == 0\n"
            "heavy = {'numpy', 'zstandard', 'drgn.cli', 'drgn.commands', 'importlib.metadata', 'subprocess', "
            "'capstone', 'prompt_toolkit'} & set(sys.modules)\nassert not heavy, heavy\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
