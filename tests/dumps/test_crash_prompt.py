"""The prompt: completion, history, and Ctrl-C, on a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

import kdumpy
import lab
from kdumpy.crash.completion import ShellCompleter
from kdumpy.crash.prompt import history_file
from kdumpy.crash.session import Session

ROOT = Path(__file__).parents[2]
_WHERE_IS_THE_CURSOR = b"\x1b[6n"


@pytest.fixture(scope="module")
def completer() -> Iterator[ShellCompleter]:
    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as kernel:
        yield ShellCompleter(Session(kernel))


@pytest.mark.parametrize(("before", "word", "expected"), [
    ([], "sy", {"sym", "sys"}), ([], "runq", {"runq"}), ([], "zzz", set()), (["bt"], "-a", {"-a"}),
    (["help"], "run", {"runq"}), (["runq"], "-m", {"-m"}), (["struct"], "list_hea", {"list_head"}),
    (["dis"], "flaky_poll_w", {"flaky_poll_work"}), (["sym"], "sc", set()), (["nothing"], "-x", set()),
    (["struct"], "task_struct.tgi", {"task_struct.tgid"}), ([], "task_struct.tgi", {"task_struct.tgid"}),
    (["struct"], "task_struct.pid,tgi", {"task_struct.pid,tgid"}), ([], "vmap_ar", {"vmap_area"}),
    (["struct"], "task_struct.se.vrun", {"task_struct.se.vruntime"}), (["list"], "module.li", {"module.list"}),
    (["p"], "init_task.comm", {"init_task.comm"}), (["p"], "init_task.se.vrun", {"init_task.se.vruntime"}),
    (["p"], "init_task.mm->", set()), (["p"], "nothing.x", set()), (["p"], "init_task.parent->comm",
                                                                   {"init_task.parent->comm"}),
    (["foreach", "user"], "f", {"files"}), (["set"], "time", {"timeout"}), (["mod"], "fl", {"flaky"}),
    (["ps", "|:"], "wh", {"where"}), (["ps", "|:", "sort"], "-rss", {"-rss_kb"}),
    (["ps", "|:", "columns"], "pid,com", {"pid,command"}), (["help"], "di", {"dis", "disassemble"}),
    (["py"], "len(prog.sym", {"len(prog.symbol", "len(prog.symbols"}), (["<"], "/etc/host", None),
])
def test_completion(completer: ShellCompleter, before: list[str], word: str, expected: set[str] | None) -> None:
    document = Document(" ".join((*before, word)))
    found = {completion.text for completion in completer.get_completions(document, CompleteEvent())}
    if expected is None:
        assert "/etc/hosts" in found
    elif word == "init_task.mm->":      # a kernel thread has none, the structure has members all the same
        assert "init_task.mm->mmap_base" in found
    else:
        assert found == expected


def test_the_history_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_file()
    assert path == tmp_path / "state/kdumpy/crash_history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert stat.S_IMODE(history_file().stat().st_mode) == 0o600


class Terminal:
    """A session on a pseudo-terminal."""

    def __init__(self, dump: Path, state: Path, command: str = "crash") -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", XDG_STATE_HOME=str(state),
                              PYTHONPATH=os.pathsep.join([str(ROOT / "src"), *sys.path]))
            os.execv(sys.executable, [sys.executable, "-m", "kdumpy", command, str(dump)])
        self.seen = b""

    def until(self, wanted: bytes) -> None:
        """Read until `wanted` was printed; answer where the cursor is, as a terminal does."""
        end = time.monotonic() + 30
        while wanted not in self.seen:
            assert time.monotonic() < end, self.seen[-500:]
            if select.select([self.descriptor], [], [], 0.1)[0]:
                data = os.read(self.descriptor, 65536)
                self.seen += data
                if _WHERE_IS_THE_CURSOR in data:
                    os.write(self.descriptor, b"\x1b[1;1R")

    def prompt(self) -> None:
        """Wait until the prompt takes keys."""
        self.until(b"crash>")
        time.sleep(0.3)

    def type(self, text: bytes, wanted: bytes) -> None:
        """Type, and wait for an answer."""
        self.seen = b""
        os.write(self.descriptor, text)
        self.until(wanted)


    def leave(self) -> int:
        """Say exit; return what the process ended with."""
        os.write(self.descriptor, b"exit\r")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    os.read(self.descriptor, 65536)
                except OSError:             # the other side has closed the terminal
                    time.sleep(0.1)
            found, code = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return code
        raise AssertionError("the session did not end")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    opened = Terminal(lab.dump("6.1", "null-workqueue").path, tmp_path)
    opened.until(b"PANIC: ")
    opened.prompt()
    opened.type(b"set scroll off\r", b"scroll: off")
    opened.prompt()
    return opened


def test_ctrl_c_stops_a_command_and_not_the_session(terminal: Terminal, tmp_path: Path) -> None:
    # The command says that it runs: a key that comes earlier is the prompt's.
    terminal.type(b"drgn exec('print(98 + 1, flush=True)\\nwhile True: pass')\r", b"99\r\n")
    terminal.type(b"\x03", b"KeyboardInterrupt")        # drgn tells it of the user's code
    terminal.prompt()
    terminal.type(b"repeat sys -t\r", b"TAINTED_MASK: 3000  OE\r\n")
    terminal.type(b"\x03", b"^C\r\n")
    terminal.prompt()
    terminal.type(b"py print(77, flush=True) or sum(1 for _ in iter(int, 1))\r", b"77\r\n")
    terminal.type(b"\x03", b"^C\r\n")
    terminal.prompt()
    terminal.type(b"sym schedule\r", b"(T) schedule")
    terminal.prompt()
    assert terminal.leave() == 0
    assert "sym schedule" in (tmp_path / "kdumpy/crash_history").read_text()


@pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed")
def test_long_output_goes_through_a_pager_that_may_be_left(terminal: Terminal) -> None:
    terminal.type(b"set scroll on\r", b"scroll: on")
    terminal.prompt()
    terminal.type(b"sym -l\r", b":")
    time.sleep(0.5)
    terminal.type(b"q", b"crash>")
    terminal.prompt()
    terminal.type(b"sym schedule\r", b"(T) schedule")        # one screen: less leaves by itself
    terminal.prompt()
    assert terminal.leave() == 0


@pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed")
@pytest.mark.parametrize("line", [b"sym -l", b"log | less", b"!cat /proc/kallsyms | less"])
def test_ctrl_c_in_a_pager_leaves_it_the_terminal_until_it_is_left(terminal: Terminal, line: bytes) -> None:
    """A log fits into the pipe: the command is done, and the shell waits; of all symbols there are more to come."""
    terminal.type(b"set scroll on\r", b"scroll: on")
    terminal.prompt()
    terminal.type(line + b"\r", b":")
    time.sleep(1)
    terminal.seen = b""
    os.write(terminal.descriptor, b"\x03")
    time.sleep(1)
    while select.select([terminal.descriptor], [], [], 0.1)[0]:
        terminal.seen += os.read(terminal.descriptor, 65536)
    assert b"crash>" not in terminal.seen
    terminal.type(b"q", b"crash>")
    terminal.prompt()
    local = termios.tcgetattr(terminal.descriptor)[3]
    terminal.type(b"!stty -a\r", b"-tostop")
    assert b" icanon" in terminal.seen
    assert b" echo " in terminal.seen
    terminal.prompt()
    assert termios.tcgetattr(terminal.descriptor)[3] == local
    assert terminal.leave() == 0


@pytest.mark.parametrize("line", ["ps | (echo ready >&2 && exec sleep 50)", "!echo ready >&2 && exec sleep 50"])
def test_ctrl_c_that_ends_a_program_is_told_and_is_no_success(line: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdumpy", "crash", str(lab.dump("6.1", "null-workqueue").path), "--no-rc",
               "-e", line]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "^C\n"
    assert process.returncode == 1


def test_a_python_prompt_inside_the_session(terminal: Terminal) -> None:
    terminal.type(b"py\r", b">>> ")
    terminal.type(b"answer = 41\r", b">>> ")
    terminal.type(b"print(len(rows('mod')), 'mod', task.pid.value_() > 0)\r", b"mod True\r\n")
    terminal.type(b"1/0\r", b"ZeroDivisionError")
    terminal.until(b">>> ")      # keys that come before the prompt reads are the terminal's, not its
    terminal.type(b"kernel.sys\t", b"kernel.system")
    terminal.type(b".release\r", b"cloud-amd64'\r\n>>> ")
    terminal.type(b"\x04", b"crash>")
    terminal.prompt()
    terminal.type(b"py answer + 1\r", b"42\r\n")
    terminal.prompt()
    assert terminal.leave() == 0


def test_the_python_prompt_shows_what_an_object_holds(tmp_path: Path) -> None:
    terminal = Terminal(lab.dump("6.1", "null-workqueue").path, tmp_path, "shell")
    terminal.until(b">>> ")
    terminal.type(b"prog['init_task'].comm\r", b'(char [16])"swapper/0"\r\n>>> ')
    terminal.type(b"_.address_ == prog['init_task'].comm.address_\r", b"True\r\n>>> ")
    terminal.type(b"drgn.Object(prog, 'int', address=0)\r", b"Object(prog, 'int', address=0x0): ")
    terminal.until(b">>> ")
    os.write(terminal.descriptor, b"\x04")
    assert terminal.leave() == 0


_EXTENSION = '''
"""A command."""
from kdumpy.crash.command import Line, TextCommand


class Hello(TextCommand):
    """Say hello."""

    names = ("{name}",)
    example = "{name}"

    def rows(self, session, options):
        yield Line("hello from {name}")


COMMAND = Hello()
'''


def test_a_crashrc_says_nothing_in_front_of_an_answer(tmp_path: Path) -> None:
    (tmp_path / ".crashrc").write_text("set scroll off\nset radix 16\nhex\nalias kt ps -k\nset 1\nsys -t\n")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"),
                   "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    done = subprocess.run([sys.executable, "-m", "kdumpy", "crash", str(lab.dump("6.1", "null-workqueue").path), "-e",
                           "p 17 --json"], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert json.loads(done.stdout)[0]["text"] == "0x11"
    assert done.stderr.startswith("TAINTED_MASK: ")


def test_what_a_session_begins_with(tmp_path: Path) -> None:
    """crashrc, an extension in the folder and one of a package; then -i, and the lines of standard input."""
    config, packages = tmp_path / "config" / "kdumpy", tmp_path / "packages"
    (config / "extensions").mkdir(parents=True)
    (config / "extensions" / "one.py").write_text(_EXTENSION.format(name="fromfolder"))
    (config / "extensions" / "theirs.py").write_text(_EXTENSION.format(name="fromothers"))
    (config / "extensions" / "theirs.py").chmod(0o666)
    (config / "crashrc").write_text("alias hi fromfolder\nset timeout 7\n")
    information = packages / "hello-1.dist-info"
    information.mkdir(parents=True)
    (packages / "hello_command.py").write_text(_EXTENSION.format(name="frompackage"))
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hello\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[kdumpy.crash_commands]\nhello = hello_command\nbroken = hello_command:nothing\n")
    script = tmp_path / "script"
    script.write_text("hi\nfrompackage\n")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path),
                   "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(packages), *sys.path])}
    command = [sys.executable, "-m", "kdumpy", "crash", str(lab.dump("6.1", "null-workqueue").path), "-i", str(script)]
    done = subprocess.run(command, input="set timeout\nfromothers\n", capture_output=True, text=True, check=False,
                          env=environment, cwd=tmp_path)
    assert done.stdout.splitlines()[-3:] == ["hello from fromfolder", "hello from frompackage", "timeout: 7"]
    assert "theirs.py: not loaded: others can write to it" in done.stderr
    assert "the extension broken (hello_command:nothing) is not loaded" in done.stderr
    assert "no command or structure 'fromothers'" in done.stderr
    assert done.returncode == 1
    done = subprocess.run([*command, "--no-rc"], input="", capture_output=True, text=True, check=False, env=environment,
                          cwd=tmp_path)
    assert "no command or structure 'hi'" in done.stderr
    assert "no command or structure 'frompackage'" in done.stderr
    helped = subprocess.run([*command[:-2], "-e", "help"], capture_output=True, text=True, check=True, env=environment,
                            cwd=tmp_path)
    assert {"fromfolder", "frompackage"} < set(helped.stdout.split())
