from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.image import elfimage, libraries, stdlib

LIBC = next(path for path in libraries.closure([stdlib.interpreter()]) if path.name.startswith("libc.so"))


def test_the_loaded_part_of_a_program_runs_and_is_no_longer(tmp_path: Path) -> None:
    program = stdlib.interpreter()
    data = program.read_bytes()
    short = elfimage.loaded_part(data)
    assert len(short) <= len(data)
    assert elfimage.loaded_part(short) == short
    copy = tmp_path / "python"
    copy.write_bytes(short)
    copy.chmod(0o755)
    done = subprocess.run([copy, "-I", "-S", "-c", "print(6 * 7)"], capture_output=True, text=True, check=True,
                          env={"PYTHONHOME": sys.base_prefix})
    assert done.stdout == "42\n"


def test_sections_are_cut_off_and_segments_are_not(tmp_path: Path) -> None:
    data = LIBC.read_bytes()
    short = elfimage.loaded_part(data)
    assert len(short) < len(data)
    assert elfimage.symbols(short) == elfimage.symbols(data)
    (tmp_path / "libc.so.6").write_bytes(short)
    assert libraries.read_dynamic(tmp_path / "libc.so.6") == libraries.read_dynamic(LIBC)


def test_what_is_no_elf_file_stays_as_it_is() -> None:
    assert elfimage.loaded_part(b"#!/bin/sh\n") == b"#!/bin/sh\n"
    with pytest.raises(HostError, match="dynamic symbols"):
        elfimage.symbols(b"\x7fELF\x02\x01\x01" + bytes(100))


def test_symbols_of_the_c_library() -> None:
    found = elfimage.symbols(LIBC.read_bytes())
    assert {"printf", "malloc", "open"} <= found.defined
    assert not found.defined & found.undefined


@pytest.mark.parametrize("functions", [[], ["f"], [f"cblas_{number}" for number in range(40)]])
def test_a_stub_defines_what_was_asked(tmp_path: Path, functions: list[str]) -> None:
    data = elfimage.stub_library("libblas.so.3", functions, elfimage.EM_X86_64)
    assert data is not None
    assert elfimage.symbols(data).defined == set(functions)
    path = tmp_path / "libblas.so.3"
    path.write_bytes(data)
    assert libraries.read_dynamic(path).needed == ()
    library = ctypes.CDLL(str(path))
    for name in functions:
        assert getattr(library, name)
    with pytest.raises(AttributeError):
        library.cblas_absent  # noqa: B018


def test_a_stub_says_what_is_missing_when_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "libblas.so.3"
    path.write_bytes(elfimage.stub_library("libblas.so.3", ["cblas_sgemm", "cblas_sdot"], elfimage.EM_X86_64) or b"")
    code = f"import ctypes; ctypes.CDLL({str(path)!r}).cblas_sdot()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == elfimage.STUB_EXIT
    assert done.stderr == elfimage.MESSAGE


def test_the_instructions_for_arm64() -> None:
    capstone = pytest.importorskip("capstone")
    data = elfimage.stub_library("libblas.so.3", ["f"], elfimage.EM_AARCH64)
    assert data is not None
    text = data.index(elfimage.MESSAGE)
    code = data[text - 32:text]
    found = list(capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN).disasm(code, 0))
    assert [line.mnemonic for line in found] == ["mov", "adr", "mov", "mov", "svc", "mov", "mov", "svc"]
    assert found[1].op_str == "x1, #0x20"      # the message stands behind the eight instructions
    assert found[2].op_str == f"x2, #{len(elfimage.MESSAGE):#x}"


def test_other_machines_have_no_stub() -> None:
    assert elfimage.stub_library("libblas.so.3", ["f"], 22) is None
