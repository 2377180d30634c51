"""The tree of files that a package holds: a virtual environment below /opt/kdumpy, links, man pages, completion."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.packages import pages
from tools.packages.elf import compacted
from tools.packages.target import ROOT, Target

HOME = "opt/kdumpy"

LIBRARIES = Path(__file__).with_name("libraries.txt")

LAUNCHER = """\
#!/{home}/bin/python{python} -IB
from kdumpy.cli.main import program

program()
"""
"""-I: nothing of the environment or of a user's site-packages gets into a program that runs as root; -B: no file
appears that the package manager does not know of."""

UNWANTED = ("tests", "distutils", "testing", "f2py", "include", "__pycache__", "bin", "_pyinstaller")
"""Directories of libraries that no program needs. What kdumpy itself has is not touched."""

UNWANTED_FILES = ("*.pyi", "*.pyx", "*.pxd", "*.h", "*.c", "*.a", "*.lib", "py.typed", "_cffi.*.so", "backend_cffi.py")
"""zstandard has a second backend that needs the cffi package."""

UNWANTED_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "WHEEL")
"""Of *.dist-info; METADATA, the entry points and the licences stay."""


def build(root: Path, target: Target) -> None:
    """Write the tree below `root`, an empty directory."""
    site = root / target.site
    site.mkdir(parents=True)
    _install(site, target)
    _slim(site)
    _environment(root, target)
    _compile(root, target)
    pages.write(root / "usr/share", target.epoch)
    _documents(root)
    _settle(root, target.epoch)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"packages: {' '.join(command)}\n{done.stderr[-2000:]}")


def _install(site: Path, target: Target) -> None:
    """Install the libraries' wheels for the target's Python and machine, and kdumpy's own."""
    words = ["install", "--no-deps", "--no-compile", "--target", str(site), "--only-binary", ":all:",
             "--implementation", "cp", "--python-version", target.python]
    for platform in target.platforms:
        words += ["--platform", platform]
    with tempfile.TemporaryDirectory(prefix="kdumpy-packages-") as place:
        _pip("wheel", "--no-deps", "--wheel-dir", place, str(ROOT))
        (wheel,) = Path(place).glob("kdumpy-*.whl")
        _pip(*words, "--requirement", str(LIBRARIES), str(wheel))


def _slim(site: Path) -> None:
    """Remove what is not needed to run, and the holes of shared objects."""
    for package in sorted(site.iterdir()):
        if package.name == "kdumpy":
            continue
        if package.name in UNWANTED:
            shutil.rmtree(package)
            continue
        if package.is_file():
            if package.suffix == ".pyi":
                package.unlink()
            continue
        if package.name.endswith(".dist-info"):
            for name in UNWANTED_RECORDS:
                (package / name).unlink(missing_ok=True)
            continue
        for directory in sorted(package.rglob("*")):
            if directory.is_dir() and directory.name in UNWANTED:
                shutil.rmtree(directory)
        for pattern in UNWANTED_FILES:
            for file in sorted(package.rglob(pattern)):
                file.unlink()
    for file in sorted(site.rglob("*.so*")):
        small = compacted(file.read_bytes())
        file.write_bytes(small)


def _environment(root: Path, target: Target) -> None:
    """Make the directory a virtual environment, whose interpreter is a link to the distribution's."""
    home = root / HOME
    (home / "bin").mkdir()
    # Python finds its prefix by this file; `home` says whose standard library it is.
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n"
                                     f"version = {target.python}\n")
    (home / "bin" / f"python{target.python}").symlink_to(target.interpreter)
    launcher = home / "bin" / "kdumpy"
    launcher.write_text(LAUNCHER.format(home=HOME, python=target.python))
    launcher.chmod(0o755)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/kdumpy").symlink_to(f"/{HOME}/bin/kdumpy")


def _compile(root: Path, target: Target) -> None:
    """Compile all modules by the target's own Python, so that nothing is compiled or written where it is installed.

    The bytecode is marked to be taken without a look at the source's time (PEP 552): a package manager's times
    would make it stale.
    """
    if not target.interpreter.exists():
        print(f"packages: no {target.interpreter} here: the modules stay uncompiled, each start takes longer")
        return
    # One process: with several, the bytecode's references to shared values would differ from build to build.
    command = [str(target.interpreter), "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s",
               str(root), "-p", "/", str(root / target.site)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"packages: cannot compile: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def _documents(root: Path) -> None:
    place = root / "usr/share/doc/kdumpy"
    place.mkdir(parents=True)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        shutil.copyfile(file, place / file.name)
    packed = gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0)
    (place / "changelog.gz").write_bytes(packed)
    licences = sorted(str(file.relative_to(root)) for file in (root / HOME).rglob("*")
                      if file.is_file() and ".dist-info" in str(file)
                      and re.match(r"(licen[sc]e|copying|notice|authors)", file.name, re.IGNORECASE))
    text = (ROOT / "LICENSE").read_text()
    (place / "copyright").write_text(
        "kdumpy: Apache License 2.0, below.\n\nThe libraries beside it below /opt/kdumpy come from PyPI as built there "
        "(shared objects without\ntheir sections and holes) and stay under their own licences:\n"
        + "".join(f"  /{name}\n" for name in licences) + "\n" + text)


def _settle(root: Path, epoch: int) -> None:
    """Give every file the same time and plain modes: neither umask nor clock of the builder get into the package."""
    for path in (root, *sorted(root.rglob("*"))):
        if not path.is_symlink():
            executable = path.is_dir() or (path.parent.name == "bin" and path.is_file())
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def size(root: Path) -> int:
    """Return the bytes of all files."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
