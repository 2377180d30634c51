"""numpy for the capture kernel: its core without linear algebra, documentation, tests; OpenBLAS is a stub.

PyPI's numpy is 70 MB, of which a capture runs the core. What is replaced is small and in image/files:
the front (every name is looked up when it is asked for), and hollow modules in the place of numpy.linalg,
numpy.matrixlib, numpy.ma and numpy.typing. The C libraries for linear algebra are linked and never called.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.image import elfimage, libraries
from kdumpy.image.stdlib import FILES

REPLACED = {
    "__init__": "numpy_front.py", "linalg/__init__": "hollow.py", "matrixlib/__init__": "hollow_matrixlib.py",
    "ma/__init__": "hollow_ma.py", "typing/__init__": "hollow_typing.py", "lib/__init__": "",
    "_core/_add_newdocs": "", "_core/_add_newdocs_scalars": "",
}
"""Module (path without suffix) → file of image/files that takes its place; an empty name: an empty module."""

DROPPED = re.compile(r"(^|/)(tests|f2py|fft|random|polynomial|distutils|testing|_pyinstaller|typing|_typing|ma|linalg"
                     r"|matrixlib|doc|char|rec|compat|array_api|ctypeslib|conftest|include|strings)(/|\.|$)"
                     r"|_tests\.|_simd\.|\.(pyi|pxd|typed|h|a|ini|c)$")
"""Paths that are left out where nothing takes their place."""

LINEAR_ALGEBRA = re.compile(r"blas|lapack|atlas|mkl_|flexiblas|blis", re.IGNORECASE)
"""Libraries that numpy is linked with and a capture never calls."""

HOMES = """
import json, sys, types
import numpy

def rank(name):
    return (not name.startswith(("numpy._core", "numpy.core")), name.count("."), name)

modules = sorted((name for name in sys.modules if name.startswith("numpy.")), key=rank)
homes = {}
for name, value in vars(numpy).items():
    if name.startswith("__") or isinstance(value, types.ModuleType):
        continue
    for module in modules:
        if vars(sys.modules[module]).get(name, homes) is value:
            homes[name] = module
            break
print(json.dumps(homes, sort_keys=True))
"""
"""Prints where numpy defines each of its names, by looking for the same object."""


@dataclass(frozen=True)
class Trimmed:
    """The parts of a trimmed numpy."""

    sources: dict[str, bytes]
    """Path below site-packages, such as numpy/_core/numeric.py → source."""
    extensions: dict[str, Path]
    """The same for shared objects."""
    stubs: dict[str, bytes]
    """Library name → stub, for the directory that LD_LIBRARY_PATH names."""


def trimmed(package: Path) -> Trimmed:
    """Return the parts of the numpy in a directory that a capture needs.

    Raises:
        HostError: numpy cannot be imported or is laid out otherwise than it has been so far.
    """
    sources: dict[str, bytes] = {}
    extensions: dict[str, Path] = {}
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package)
        name = relative.with_suffix("").as_posix()
        if name in REPLACED or not path.is_file() or DROPPED.search(relative.as_posix()):
            continue
        if path.suffix == ".py":
            sources[f"numpy/{relative.as_posix()}"] = path.read_bytes()
        elif path.suffix == ".so":
            extensions[f"numpy/{relative.as_posix()}"] = path
    for module, file in REPLACED.items():
        if (package / f"{module}.py").exists():
            sources[f"numpy/{module}.py"] = (FILES / file).read_bytes() if file else b""
    sources["numpy/_homes.py"] = b"HOMES = " + _homes(package.parent).encode()
    stubs: dict[str, bytes] = {}
    wanted = {name for path in extensions.values() for name in libraries.read_dynamic(path).needed
              if LINEAR_ALGEBRA.search(name)}
    for name in sorted(wanted):
        stub = _stub(name, list(extensions.values()))
        if stub is not None:
            stubs[name] = stub
    return Trimmed(sources, extensions, stubs)


def names_used(program: Path) -> set[str]:
    """Return the names of numpy that the sources below a directory use as `np.NAME`."""
    trees = (ast.parse(path.read_bytes()) for path in program.rglob("*.py"))
    return {node.attr for tree in trees for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"}


def drop_unloaded(package: Path, loaded: Collection[Path]) -> None:
    """Delete the parts of a trimmed numpy beside its core that nothing has imported."""
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if path not in loaded and relative.parts[0] not in ("_core", "_utils", "exceptions.py") \
                and relative.with_suffix("").as_posix() not in REPLACED:
            path.unlink()


def _homes(site: Path) -> str:
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{HOMES}"
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError("numpy cannot be imported", where=str(site), why=done.stderr.strip()[-300:])
    return done.stdout.strip()


def _stub(name: str, extensions: list[Path]) -> bytes | None:
    """Return a library that defines what the extensions take from one of the name, or None for other machines."""
    functions: set[str] = set()
    machine = elfimage.EM_X86_64
    for path in extensions:
        if name not in libraries.read_dynamic(path).needed:
            continue
        found = libraries.find(name, path)
        if found is None:
            raise HostError("shared library not found", where=str(path), why=name,
                            mend="install the package that holds it")
        machine = libraries.read_dynamic(path).machine[1]
        functions |= elfimage.symbols(path.read_bytes()).undefined & elfimage.symbols(found.read_bytes()).defined
    return elfimage.stub_library(name, functions, machine)
