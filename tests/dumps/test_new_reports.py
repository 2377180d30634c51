"""`kdumpy report --new`: what a boot after a crash does, on a folder with real dumps, a log alone and rubbish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import lab
from armedhost import BEFORE, BOOT, MIB, Host
from kdumpy.cli.main import main
from kdumpy.errors import HostError
from kdumpy.host import seen, telling
from kdumpy.host.system import System


@pytest.fixture
def crashes(tmp_path: Path) -> Path:
    made = lab.dump("6.1", "null-workqueue")
    home = tmp_path / "crash"
    for name in ("web-3-2026-11-24-02:03:31", "web-3-damaged", "web-3-log-only", "web-3-journal-only", "web-3-nothing"):
        (home / name).mkdir(parents=True)
    shutil.copyfile(made.path, home / "web-3-2026-11-24-02:03:31" / "vmcore")
    (home / "web-3-damaged" / "vmcore-incomplete").write_bytes(b"no dump at all")
    (home / "web-3-damaged" / "vmcore-dmesg.txt").write_text("[    1.0] BUG: kernel NULL pointer dereference\n")
    (home / "web-3-log-only" / "vmcore-dmesg.txt").write_text(
        "[   12.345678] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n")
    for name in ("web-3-log-only", "web-3-journal-only"):
        (home / name / "kexec-dmesg.log").write_text(
            "[    2.1] kdumpy: target /var/crash failed: no space left on the device\n[    2.2] kdumpy: reboot\n")
    return home


def test_each_new_crash_gets_its_report_once(crashes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--new", "--json", str(crashes)]) == 0
    news = {Path(one["folder"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert set(news) == {"web-3-2026-11-24-02:03:31", "web-3-damaged", "web-3-log-only",
                         "web-3-journal-only"}
    assert news["web-3-2026-11-24-02:03:31"]["cause"] == "null-dereference"
    assert "kill init" in news["web-3-log-only"]["title"]
    assert "only the kernel's log was saved" in news["web-3-log-only"]["title"]
    assert "no space left" in news["web-3-journal-only"]["title"]
    assert not any(one["test"] for one in news.values())
    folder = crashes / "web-3-2026-11-24-02:03:31"
    assert json.loads((folder / "report.json").read_text())["verdict"]["cause"] == "null-dereference"
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert {path.stat().st_mode & 0o777 for path in folder.glob("report.*")} == {0o600}
    assert "no report of the dump" in (crashes / "web-3-damaged" / "report.txt").read_text()
    assert main(["report", "--new", "--json", str(crashes)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["report", "--new", str(crashes)]) == 0
    assert capsys.readouterr().err == f"nothing new: every dump in {crashes} has its report\n"


def test_what_is_of_one_dump_is_refused_for_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, why in ((["--new", str(tmp_path), "--html", str(tmp_path / "page.html")], "--html is for one dump"),
                       (["one", "other"], "one VMCORE at a time, 2 were named")):
        with pytest.raises(SystemExit) as ended:
            main(["report", *words])
        assert ended.value.code == 2
        assert why in capsys.readouterr().err


def test_what_ends_one_report_does_not_end_the_others(crashes: Path, capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    from kdumpy.cli import newreports

    read, whole = newreports._diagnosed, crashes / "web-3-2026-11-24-02:03:31"
    for name in ("web-3-killed", "web-3-failed"):
        shutil.copytree(whole, crashes / name)
        (crashes / name / "vmcore-dmesg.txt").write_text("[    1.0] Kernel panic - not syncing: the last words\n")

    def diagnosed(dump: Path, *, html: bool) -> object:
        if "killed" in str(dump):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(dump, html=html) if "failed" not in str(dump) else compile("9p", "", "eval")

    monkeypatch.setattr(newreports, "_diagnosed", diagnosed)
    assert main(["report", "--new", "--json", str(crashes)]) == 0
    news = {Path(one["folder"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert len(news) == 6
    assert news[whole.name]["cause"] == "null-dereference"
    for name, why in (("web-3-killed", "was ended by SIGKILL"), ("web-3-failed", "failed")):
        assert "the last words" in news[name]["title"]
        assert f"no report of the dump: the program that read it {why}" in (crashes / name / "report.txt").read_text()
    assert main(["report", "--new", "--json", str(crashes)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_folders_may_be_named_from_here_and_be_a_dump_s_own(crashes: Path, capsys: pytest.CaptureFixture[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(crashes.parent)
    own = Path("crash") / "web-3-2026-11-24-02:03:31"
    assert main(["report", "--new", "--json", str(own)]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["folder"], one["cause"]) == (str(own.absolute()), "null-dereference")
    assert main(["report", "--new", "--json", "crash"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["report", "--new", "nowhere"]) == 3
    assert "nowhere: not a folder" in capsys.readouterr().err


def test_a_line_each_goes_to_the_journal(crashes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--new", str(crashes)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert any("NULL pointer dereference in" in line and "(null-dereference, certain)" in line for line in lines)


def test_the_list_shows_crashes_without_a_dump_and_why(crashes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", str(crashes)]) == 0
    rows = {Path(row["path"]).parent.name: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "web-3-2026-11-24-02:03:31": "complete", "web-3-damaged": "unreadable", "web-3-log-only": "log",
        "web-3-journal-only": "nothing"}
    assert "kill init" in rows["web-3-log-only"]["cause"]
    assert "no space left" in rows["web-3-log-only"]["problem"]
    assert main(["list", str(crashes)]) == 0
    assert "[nothing] nothing but the capture's own log was saved" in capsys.readouterr().out


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose last boot was armed and ended in a `kdumpy test`, without a shutdown and without a dump here."""
    host = Host(tmp_path / "host")
    host.wtmp((BEFORE, "boot"), (BOOT + 3, "boot"))
    host.history(("before", BEFORE + 20, "loaded", "", "", 90 * MIB, []), ("boot-now", BOOT + 20, "loaded"))
    host.write("/var/lib/kdumpy/test.json", json.dumps({"time": BOOT - 90, "release": "x", "boot_id": "before"}))
    monkeypatch.setattr("kdumpy.host.system.System", lambda: host.system)
    return host


def test_a_crash_that_left_nothing_is_told_once_a_boot(cut_off: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--new"]) == 0
    told = capsys.readouterr().out
    assert "`kdumpy test` crashed it, and left no dump: 90.0 MiB were reserved in that boot" in told
    assert "left no dump" in cut_off.system.path(telling.MOTD).read_text()
    assert main(["report", "--new"]) == 0
    assert capsys.readouterr().out == ""


def test_what_could_not_be_seen_is_looked_at_again(cut_off: Host, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off.remove("/var/log/wtmp")
    (cut_off.root / "var/log/wtmp").mkdir()
    assert main(["report", "--new"]) == 0
    assert "cannot be seen" in capsys.readouterr().err
    (cut_off.root / "var/log/wtmp").rmdir()
    cut_off.wtmp((BEFORE, "boot"), (BOOT + 3, "boot"))
    assert main(["report", "--new"]) == 0
    assert "left no dump" in capsys.readouterr().out


def test_what_was_there_at_boot_is_written_down_even_without_a_report(cut_off: Host) -> None:
    cut_off.write("/etc/kdumpy.toml", "[report]\nat_boot = false\n")
    cut_off.crash("web-1", BOOT - 40, vmcore="x", vmcore_dmesg__txt="")
    assert main(["report", "--new"]) == 0
    (one,) = seen.all_of(cut_off.system)
    assert (one.path, one.state, one.dump) == ("/var/crash/web-1", "complete", "/var/crash/web-1/vmcore")
    assert cut_off.system.path(seen.PATH).stat().st_mode & 0o777 == 0o600


def test_a_crash_whose_dump_went_to_a_server_is_told(cut_off: Host, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off.write("/etc/kdumpy.toml", "[capture]\ntargets = ['nfs://store/crashes']\n")
    assert main(["report", "--new"]) == 0
    assert "`kdumpy test` crashed it: dumps went to nfs://store/crashes" in capsys.readouterr().out


def test_without_new_one_dump_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report"])
    assert ended.value.code == 2
    assert "one VMCORE is wanted" in capsys.readouterr().err


def test_a_server_gets_the_news_as_json(tmp_path: Path) -> None:
    got: list[object] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    telling.notify(System(tmp_path), f"http://127.0.0.1:{server.server_port}/hook", "t", "x", {"cause": "sysrq"})
    thread.join()
    assert got == [{"cause": "sysrq"}]
    server.server_close()
    with pytest.raises(HostError, match="did not take it"):
        telling.notify(System(tmp_path), f"http://127.0.0.1:{server.server_port}/hook", "t", "x", {})


@pytest.mark.parametrize("address", ["mailto:", "mailto:-oQ/tmp", "mailto:a b"])
def test_an_address_cannot_be_an_option_of_sendmail(tmp_path: Path, address: str) -> None:
    with pytest.raises(HostError, match="not an address"):
        telling.notify(System(tmp_path), address, "t", "x", {})


def test_the_message_of_the_day_cannot_command_a_terminal(tmp_path: Path) -> None:
    telling.write_motd(System(tmp_path), ["web-3 crashed:", "  \033]0;owned\007title"])
    text = (tmp_path / telling.MOTD.lstrip("/")).read_text()
    assert "\033" not in text
    assert "web-3 crashed:" in text
