"""The packages, built once, looked through, installed below a root, run from there, removed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools.packages.target import ROOT

import lab

EPOCH = 1_790_000_000
PYTHON = "3.11" if Path("/usr/bin/python3.11").exists() else f"3.{sys.version_info.minor}"
SITE = f"opt/kdumpy/lib/python{PYTHON}/site-packages"

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("dpkg-deb", "rpmbuild"))),
                                reason="needs dpkg-deb and rpmbuild (tools/system-packages packages)")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="installs below a root directory and mounts")


def run(*words: object, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@dataclass(frozen=True)
class Built:
    deb: Path
    rpm: Path
    tree: Path
    said: str

    def files(self) -> list[str]:
        return [str(path.relative_to(self.tree)) for path in sorted(self.tree.rglob("*"))
                if path.is_symlink() or path.is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("packages")
    said = subprocess.run([sys.executable, "-m", "tools.packages", "--fast", "--out", str(out), "--python", PYTHON],
                          cwd=ROOT, capture_output=True, text=True, check=True,
                          env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}).stdout
    (deb,), (rpm,) = out.glob("*.deb"), out.glob("*.rpm")
    run("dpkg-deb", "-x", deb, out / "tree")
    return Built(deb, rpm, out / "tree", said)


@pytest.fixture
def installed(built: Built, tmp_path: Path) -> Iterator[Path]:
    """A root directory in which the .deb is installed, by dpkg itself."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    dpkg(tmp_path, "-i", built.deb)
    yield tmp_path
    shutil.rmtree(tmp_path)


def dpkg(root: Path, *words: object) -> str:
    return run("dpkg", f"--root={root}", "--force-depends", "--force-script-chrootless", *words)


def run_inside(root: Path, *words: object, check: bool = True) -> str:
    """Run a program that sees the root's /opt/kdumpy as its own, and else this machine."""
    script = f"mount -t tmpfs none /opt && mkdir /opt/kdumpy && mount --bind {root}/opt/kdumpy /opt/kdumpy && " \
             'exec env -i PATH=/usr/sbin:/usr/bin "$@"'
    return run("unshare", "--mount", "sh", "-c", script, "sh", *words, check=check)


def test_the_sizes_are_printed_and_small(built: Built) -> None:
    sizes = re.findall(r"([\d.]+) MB", built.said)
    assert len(sizes) == 3
    assert float(sizes[0]) < 115, "installed"
    assert built.said.count(str(built.deb)) == 1
    assert built.said.count(str(built.rpm)) == 1


def test_all_of_kdumpy_is_in_it(built: Built) -> None:
    package = ROOT / "src/kdumpy"
    ours = {str(path.relative_to(package)) for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    inside = built.tree / SITE / "kdumpy"
    there = {str(path.relative_to(inside)) for path in inside.rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    assert ours - there == set()
    assert {"image/files/ladder", "capture/__main__.py", "report/html/assets"} - \
        set(there | {str(Path(name).parent) for name in there}) == set()


def test_nothing_is_in_it_that_a_server_does_not_need(built: Built) -> None:
    names = built.files()
    tops = {name.removeprefix(SITE + "/").split("/")[0] for name in names if name.startswith(SITE)}
    assert not tops & {"pip", "setuptools", "wheel", "pytest", "mypy", "bin", "rich", "pygments"}
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyi", ".a", "/RECORD"))]
    tag = f".cpython-{PYTHON.replace('.', '')}.pyc"
    bytecode = [name for name in names if name.endswith(".pyc")]
    assert all(name.endswith(tag) for name in bytecode)
    sources = [name for name in names if name.endswith(".py") and name.startswith(SITE)]
    if Path(f"/usr/bin/python{PYTHON}").exists():
        assert len(bytecode) == len(sources) > 500
    assert {Path(name).parts[0] for name in names} == {"opt", "usr"}, "nothing below /etc, no unit, no service"


def test_no_path_of_the_builder_is_in_it(built: Built) -> None:
    forbidden = [os.fsencode(path) for path in (ROOT, Path(sys.prefix), built.tree.parent) if len(path.parts) > 2]
    forbidden.append(b"kdumpy-packages-")
    for name in built.files():
        path = built.tree / name
        if not path.is_symlink():
            data = path.read_bytes()
            assert not [word for word in forbidden if word in data], name
    assert str((built.tree / f"opt/kdumpy/bin/python{PYTHON}").readlink()) == f"/usr/bin/python{PYTHON}"
    assert str((built.tree / "usr/bin/kdumpy").readlink()) == "/opt/kdumpy/bin/kdumpy"


def test_it_belongs_to_root_and_to_one_moment(built: Built) -> None:
    listing = run("dpkg-deb", "-c", built.deb).splitlines()
    assert {line.split()[1] for line in listing} == {"root/root"}
    assert {line[:10] for line in listing} <= {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}
    assert {(built.tree / name).lstat().st_mtime for name in built.files()} == {EPOCH}


def test_its_control_file_says_what_it_needs(built: Built) -> None:
    fields = run("dpkg-deb", "-f", built.deb)
    assert f"Depends: python{PYTHON}, " in fields
    assert "kmod" in fields
    assert "busybox | busybox-static" in fields
    scripts = run("dpkg-deb", "--ctrl-tarfile", built.deb, check=False)
    assert "postinst" not in scripts, "installing it starts nothing"


def test_the_rpm_holds_the_same_files(built: Built) -> None:
    of_rpm = set(run("rpm", "-qlp", built.rpm).split())
    missing = {f"/{name}" for name in built.files()} - of_rpm
    assert missing == set()
    assert f"/usr/bin/python{PYTHON}" in run("rpm", "-qp", "--requires", built.rpm).split()
    assert "postinstall" not in run("rpm", "-qp", "--scripts", built.rpm)
    assert "setup --undo" in run("rpm", "-qp", "--scripts", built.rpm)


@needs_root
def test_the_rpm_installs_and_is_whole(built: Built, tmp_path: Path) -> None:
    run("rpm", "--root", tmp_path, "--initdb")
    run("rpm", "--root", tmp_path, "-i", "--nodeps", "--noscripts", built.rpm)
    assert (tmp_path / "usr/bin/kdumpy").is_symlink()
    assert run("rpm", "--root", tmp_path, "-V", "--nodeps", "kdumpy") == ""


def test_the_libraries_are_those_that_kdumpy_asks_for() -> None:
    pinned = {line.split("==")[0].lower().replace("-", "_")
              for line in (ROOT / "tools/packages/libraries.txt").read_text().splitlines()
              if line and not line.startswith("#")}
    wanted, open_names = set[str](), ["numpy", "zstandard", *_names(
        (ROOT / "pyproject.toml").read_text().partition("analyze = [")[2].partition("]")[0])]
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += [_name(text) for text in importlib.metadata.requires(name) or () if ";" not in text]
    assert pinned == wanted


def _names(text: str) -> list[str]:
    return [_name(word) for word in re.findall(r'"([^"]+)"', text)]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("-", "_")


@needs_root
def test_it_installs_and_says_why_a_kernel_crashed(installed: Path) -> None:
    dump = lab.bundled()
    before = {path for path in installed.rglob("*") if "dpkg" not in path.parts}
    assert run_inside(installed, "/opt/kdumpy/bin/kdumpy", "--version").startswith("kdumpy ")
    of_package = json.loads(run_inside(installed, "/opt/kdumpy/bin/kdumpy", "report", dump, "--json"))
    of_checkout = json.loads(run(sys.executable, "-m", "kdumpy", "report", dump, "--json"))
    assert of_package["verdict"] == of_checkout["verdict"]
    page = installed / "page.html"
    run_inside(installed, "/opt/kdumpy/bin/kdumpy", "report", dump, "--html", page)
    assert "<html" in page.read_text()
    assert "bt" in run_inside(installed, "/opt/kdumpy/bin/kdumpy", "crash", dump, "-e", "help")
    after = {path for path in installed.rglob("*") if "dpkg" not in path.parts} - {page}
    assert after == before, "running it writes nothing beside itself"


@needs_root
def test_its_python_makes_the_capture_images_python(installed: Path) -> None:
    code = ("import pathlib, sys, tempfile\nfrom kdumpy.image import python, stdlib\n"
            "print(stdlib.interpreter())\n"
            "with tempfile.TemporaryDirectory() as place:\n"
            "    tree = python.build(pathlib.Path(place), network='none')\n"
            "    print(python.try_out(tree, ['-c', 'import kdumpy.capture.ladder, numpy; print(6 * 7)']))\n")
    said = run_inside(installed, f"/opt/kdumpy/bin/python{PYTHON}", "-I", "-c", code).split()
    assert said == [f"/usr/bin/python{PYTHON}", "42"]


@needs_root
def test_removing_it_takes_the_setup_back_and_purging_it_forgets_the_host(installed: Path) -> None:
    state, told, dumps = installed / "var/lib/kdumpy", installed / "told", installed / "var/crash/a/vmcore"
    for path in (state / "setup.json", dumps, installed / "etc/kdumpy.toml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    program = installed / "usr/bin/kdumpy"
    program.unlink()
    program.write_text(f'#!/bin/sh\necho "$@" >>{told}\nexit 3\n')     # an undo that fails does not hold the removal
    program.chmod(0o755)
    dpkg(installed, "-r", "kdumpy")
    assert told.read_text() == "setup --undo --yes\n"
    assert state.exists()
    assert not (installed / "opt").exists()
    dpkg(installed, "-P", "kdumpy")
    assert not state.exists()
    assert not (installed / "etc/kdumpy.toml").exists()
    assert dumps.exists(), "dumps are the administrator's"


@needs_root
def test_removing_it_from_a_host_that_was_not_set_up_undoes_nothing(installed: Path) -> None:
    program = installed / "usr/bin/kdumpy"
    program.unlink()
    program.write_text(f"#!/bin/sh\ntouch {installed}/called\n")
    program.chmod(0o755)
    dpkg(installed, "-r", "kdumpy")
    assert not (installed / "called").exists()


def test_man_pages_and_completion_know_every_command(built: Built) -> None:
    from kdumpy.cli.main import COMMANDS

    share = built.tree / "usr/share"
    for page in (share / "man/man1/kdumpy.1.gz", share / "man/man5/kdumpy.toml.5.gz"):
        done = subprocess.run(["man", "--warnings", "-l", str(page)], capture_output=True, text=True, check=True,
                              env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
        assert "warning" not in done.stderr, done.stderr
        text = re.sub(".\b", "", done.stdout)
        for word in COMMANDS if page.name.startswith("kdumpy.1") else ("crashkernel", "[retention]", "keep = 5"):
            assert word in text, (page.name, word)
    for name in ("bash-completion/completions/kdumpy", "zsh/site-functions/_kdumpy",
                 "fish/vendor_completions.d/kdumpy.fish"):
        script = (share / name).read_text()
        assert [word for word in COMMANDS if word not in script] == []
    run("bash", "-n", share / "bash-completion/completions/kdumpy")
