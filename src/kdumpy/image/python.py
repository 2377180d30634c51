"""The running Python for an image: interpreter, the standard library that is needed, numpy's core, zstandard, kdumpy.

An image's files are memory of the capture kernel: everything is compiled (without docstrings and asserts, no
sources), stripped of what the loader never reads, and only there when a capture may import it. What was made is
tried before it is shipped: `try_out` runs it with the tree as its root file system.

Layout, below PREFIX: bin/python3; lib/ for libraries that nothing else brings; lib/pythonX.Y/ with all modules
in one directory, so that the import system looks in one place.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.image import elfimage, libraries, numpytrim, stdlib

PREFIX = "usr/lib/kdumpy"
"""Where it lies in the image."""

PARTS = ("dumpfile", "capture")
"""The parts of kdumpy that run in the capture kernel, beside the modules of SINGLE."""

SINGLE = ("__init__", "errors", "units")

COMPRESSORS = {"zstd": ("zstandard",), "lzo": ("zstandard", "lzallright"), "snappy": ("zstandard", "cramjam"),
               "zlib": ("zstandard", "isal", "zlib_ng", "deflate"), "none": ("zstandard",)}
"""Packages that a page compression uses: those that are installed are carried."""

START = "kdumpy_start.py"
"""The program that the ladder runs, beside the modules."""

LIBLZO = "liblzo2.so.2"
"""Opened at run time by kdumpy.dumpfile.liblzo, where the system has it."""

UNUSED = frozenset({"_cffi", "backend_cffi", "backend_rust", "igzip", "igzip_threaded", "gzip_ng",
                    "gzip_ng_threaded"})
"""Modules of these packages that a capture does not use."""

RELEASE = f"python{sys.version_info.major}.{sys.version_info.minor}"

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "1",
               "LD_LIBRARY_PATH": f"/{PREFIX}/lib", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""What the image's Python runs with. (OpenBLAS is there only where no stub could be made.)"""

FLAGS = ("-I", "-S", "-B")
"""Isolated, without `site`, no bytecode written: a shorter start."""


@dataclass(frozen=True)
class PythonTree:
    """A directory that holds Python as it shall lie in an image."""

    root: Path
    """The image's root: PREFIX is below it, and the libraries lie where the loader looks for them."""
    bytes: int
    """Sum of the files' sizes."""
    pages: int
    """Memory that they take when unpacked, in pages of 4096 bytes."""

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs it inside of the image."""
        return [f"/{PREFIX}/bin/python3", *FLAGS, *arguments]


NETWORK = {
    "none": frozenset({"ssl", "http", "http.client", "urllib.request", "encodings.idna",
                       "kdumpy.capture.targets.http"}),
    "http": frozenset({"ssl"}),
    "https": frozenset[str](),
}
"""What a target wants of the network → modules that are left out. ssl brings 5.5 MB of libraries, http 2 MB.

ssh and nfs are programs of the system and need nothing here.
"""


def build(root: Path, compression: str = "zstd", network: str = "https", trim: bool = True) -> PythonTree:
    """Write the Python of a capture below `root`, which should be empty.

    Args:
        root: the directory.
        compression: the page compression that must be possible.
        network: a key of NETWORK.
        trim: carry numpy's core (True), or numpy whole (False), should the trimmed one not pass `try_out`.

    Raises:
        HostError: something that is needed is not installed or cannot be imported.
    """
    home = root / PREFIX / "lib" / RELEASE
    # getpath looks for these two to know its prefix; without the second it complains.
    for directory in (home / "lib-dynload", root / PREFIX / "bin"):
        directory.mkdir(parents=True, exist_ok=True)
    stubs = _add_numpy(home, root / PREFIX / "lib", trim=trim)
    for package in COMPRESSORS[compression]:
        _add_package(home, package, required=package == "zstandard")
    _add_kdumpy(home)
    without = NETWORK[network] | (frozenset() if compression == "lzo" else {"kdumpy.dumpfile.liblzo", "ctypes"})
    for path in (home / "kdumpy").rglob("*.py"):
        if _module_name(path.relative_to(home)) in without:
            path.unlink()
    ours = sorted(_module_name(path.relative_to(home)) for path in (home / "kdumpy").rglob("*.py"))
    optional = [package for package in COMPRESSORS[compression] if (home / package).is_dir()]
    used = [f"numpy:{name}" for name in sorted(numpytrim.names_used(home / "kdumpy"))]
    used += [f"?numpy:{name}" for name in sorted(numpytrim.names_used(home / "numpy" / "_core"))]
    loaded = stdlib.modules_of(home, [*ours, *used, *optional], root / PREFIX / "lib",
                               without=without)
    for path in loaded.values():
        if not path.is_relative_to(home):
            _add_module(home, path)
    if trim:
        numpytrim.drop_unloaded(home / "numpy", set(loaded.values()))
    shutil.copyfile(stdlib.FILES / "start.py", home / START)
    _compile(home, root)
    _add_libraries(root, home, stubs)
    if compression == "lzo":
        _add_liblzo(root)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    sizes = [path.stat().st_size for path in files]
    return PythonTree(root, sum(sizes), sum(-(-size // 4096) for size in sizes))


def try_out(tree: PythonTree, arguments: Iterable[str], extra: Iterable[tuple[str, Path]] = ()) -> str:
    """Run the tree's Python with the tree as its root file system, and return what it printed.

    Args:
        tree: what `build` made.
        arguments: the program's, after FLAGS.
        extra: (name, file of this machine): copied into the tree for the run.

    Raises:
        HostError: it failed, or this machine does not let us change the root.
    """
    with tempfile.TemporaryDirectory(dir=tree.root, prefix="tryout-") as place:
        for name, file in extra:
            shutil.copyfile(file, Path(place, name))
        inside = "/" + Path(place).name
        command = [*_change_root(), str(tree.root), *tree.command(*(text.replace("{}", inside) for text in arguments))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd="/")
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HostError("the image's Python does not work", where=str(tree.root),
                        why=" / ".join(lines[-3:]) if lines else f"exit code {done.returncode}")
    return done.stdout


def _change_root() -> list[str]:
    """Return the words in front of a root directory and a command that run it there."""
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
    return [chroot] if os.geteuid() == 0 else ["unshare", "--map-root-user", chroot]


def _add_kdumpy(home: Path) -> None:
    package = Path(__file__).parents[1]
    files = [package / f"{name}.py" for name in SINGLE]
    files += [path for part in PARTS for path in sorted((package / part).rglob("*.py"))]
    for path in files:
        target = home / "kdumpy" / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _add_numpy(home: Path, own: Path, trim: bool) -> frozenset[str]:
    """Add numpy, and to `own` the libraries that stand in for others; return the names of these."""
    package = _package("numpy")
    if not trim:
        shutil.copytree(package, home / "numpy", ignore=shutil.ignore_patterns("__pycache__", "tests", "*.pyi"))
        if (package.parent / "numpy.libs").is_dir():
            shutil.copytree(package.parent / "numpy.libs", home / "numpy.libs")
        return frozenset()
    parts = numpytrim.trimmed(package)
    for name, source in parts.sources.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(source)
    for name, path in parts.extensions.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, home / name)
    for name, data in parts.stubs.items():
        (own / name).write_bytes(data)
    return frozenset(parts.stubs)


def _add_package(home: Path, name: str, required: bool) -> None:
    try:
        package = _package(name)
    except HostError:
        if required:
            raise
        return
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".so") and path.name.split(".")[0] not in UNUSED and "tests" not in path.parts:
            target = home / name / path.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise HostError("a library for the capture kernel is missing", why=name, mend=f"pip install {name}")
    return Path(next(iter(spec.submodule_search_locations)))


def _add_module(home: Path, path: Path) -> None:
    """Copy a module of the standard library to where it lies in it; shared objects beside all others."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    real = path.resolve()
    parts = [part for part in real.relative_to(library).parts if part != "lib-dynload"]
    target = home.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(real, target)


def _module_name(path: Path) -> str:
    name = ".".join(path.with_suffix("").parts)
    return name.removesuffix(".__init__")


def _compile(home: Path, root: Path) -> None:
    """Replace each source by its bytecode, in a Python that leaves out what only a traceback's columns need."""
    command = [str(stdlib.interpreter()), "-I", "-S", "-B", "-X", "no_debug_ranges", str(stdlib.FILES / "bytecode.py"),
               str(home), f"/{home.relative_to(root)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError("cannot compile the image's Python", where=str(home), why=done.stderr.strip()[-300:])


def _add_libraries(root: Path, home: Path, stubs: frozenset[str]) -> None:
    """Add the interpreter and all shared objects that it and the extensions need, cut to what is loaded."""
    program = stdlib.interpreter()
    extensions = sorted(path for path in home.rglob("*.so*") if path.is_file())
    copied: dict[Path, Path] = {}
    for library in libraries.closure([program, *extensions], without=stubs):
        if library.is_relative_to(root):
            continue
        target = root / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The loader is wanted under two names.
        same = copied.setdefault(library.resolve(), library)
        if same != library:
            target.symlink_to(same)
        else:
            _copy_loaded(library.resolve(), target)
    for extension in extensions:
        _copy_loaded(extension, extension)
    _copy_loaded(program, root / PREFIX / "bin" / "python3")


def _add_liblzo(root: Path) -> None:
    found = libraries.find(LIBLZO, stdlib.interpreter())
    if found is not None:
        _copy_loaded(found.resolve(), root / PREFIX / "lib" / LIBLZO)


def _copy_loaded(source: Path, target: Path) -> None:
    target.write_bytes(elfimage.loaded_part(source.read_bytes()))
    target.chmod(0o755)
