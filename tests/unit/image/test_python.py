"""The Python of the capture image: how small it is, and that it works with nothing else below its root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.image import numpytrim, python, stdlib
from kdumpy.image.python import PREFIX, RELEASE, PythonTree
from kdumpy.image.stdlib import FILES

HOME = Path(PREFIX, "lib", RELEASE)


def may_change_root() -> bool:
    return subprocess.run([*python._change_root(), "/", "true"], capture_output=True, check=False).returncode == 0


needs_root = pytest.mark.skipif(not may_change_root(), reason="neither root nor user namespaces")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> PythonTree:
    return python.build(tmp_path_factory.mktemp("image"), network="none")


def try_self_test(tree: PythonTree, compression: str) -> str:
    return python.try_out(tree, ["{}/selftest.py", compression], [("selftest.py", FILES / "selftest.py")])


@needs_root
def test_it_captures_a_small_dump_with_nothing_but_itself(tree: PythonTree) -> None:
    assert "48 pages kept, 48 compared" in try_self_test(tree, "zstd")


@needs_root
@pytest.mark.parametrize(("compression", "network"), [("lzo", "none"), ("zlib", "https"), ("none", "http")])
def test_other_compressors_and_networks(tmp_path: Path, compression: str, network: str) -> None:
    made = python.build(tmp_path, compression=compression, network=network)
    assert "48 pages kept" in try_self_test(made, compression)
    code = {"https": "import ssl; ssl.create_default_context()", "http": "import kdumpy.capture.targets.http",
            "none": "import zlib"}[network]
    python.try_out(made, ["-c", code])


def test_it_is_small(tree: PythonTree) -> None:
    assert tree.bytes < 34 << 20, f"{tree.bytes >> 20} MiB"
    names = [path.name for path in tree.root.rglob("*")]
    assert not [name for name in names if "gfortran" in name or name.endswith((".py", ".h", ".pyi"))]
    assert not [path for path in tree.root.rglob("*openblas*") if path.stat().st_size > 10_000]
    for absent in ("ssl", "ctypes", "unittest", "email", "_hashlib", "unicodedata"):
        assert not list((tree.root / HOME).glob(f"{absent}*")), absent


def test_it_holds_what_kdumpy_names(tree: PythonTree) -> None:
    kdumpy = {path.relative_to(tree.root / HOME).with_suffix("").as_posix()
              for path in (tree.root / HOME / "kdumpy").rglob("*.pyc")}
    assert {"kdumpy/errors", "kdumpy/capture/__main__", "kdumpy/dumpfile/kdumpwriter"} <= kdumpy
    assert not {name for name in kdumpy if name.startswith(("kdumpy/cli", "kdumpy/kernel", "kdumpy/image"))}


@needs_root
def test_what_is_missing_is_told_when_the_image_is_built(tree: PythonTree, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No module named 'ssl'"):
        python.try_out(tree, ["-c", "import ssl"])
    with pytest.raises(HostError, match="linear algebra is not in the capture image"):
        python.try_out(tree, ["-c", "import numpy as np; np.dot(np.ones(9), np.ones(9))"])
    with pytest.raises(HostError, match=r"linalg\.inv is not in the capture image"):
        python.try_out(tree, ["-c", "from numpy.linalg import inv; inv([[1]])"])


@needs_root
def test_numpy_answers_as_it_always_does(tree: PythonTree) -> None:
    code = ("import numpy as np; a = np.array([3, 1, 3, 2], np.uint64)\n"
            "print(np.unique(a).tolist(), np.packbits(a > 1).tolist(), np.diff(a).tolist(), a.mean(), repr(a),\n"
            "      np.add.reduceat(a, [0, 2]).tolist(), np.searchsorted([1, 5, 9], 6), np.bincount([0, 2]).tolist())\n")
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert python.try_out(tree, ["-c", code]) == here


@needs_root
def test_numpy_whole_is_the_way_out_when_trimming_fails(tmp_path: Path) -> None:
    whole = python.build(tmp_path, network="none", trim=False)
    assert "48 pages kept" in try_self_test(whole, "zstd")
    assert whole.bytes > 60 << 20


def test_a_name_that_numpy_does_not_have_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpytrim, "names_used", lambda program: {"there_is_no_such_name"})
    with pytest.raises(HostError, match="there_is_no_such_name"):
        python.build(tmp_path)


def test_imports_of_type_checking_do_not_count(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlite3\nelse:\n    import csv\n"
                      "def f():\n    from json import loads\n")
    assert set(stdlib.imports(source)) == {"typing", "csv", "json"}


@needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_the_try_out_leaves_nothing_behind(tree: PythonTree) -> None:
    before = {path.as_posix() for path in tree.root.rglob("*")}
    try_self_test(tree, "zstd")
    assert {path.as_posix() for path in tree.root.rglob("*")} == before
