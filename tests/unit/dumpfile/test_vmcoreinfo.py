"""VMCOREINFO: each kind of line, and lines that are wrong."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import DamagedDump, KdumpyError, NotInDump

# Lines of Debian's 6.1.0-56 and of an arm64 kernel.
TEXT = b"""OSRELEASE=6.1.0-56-cloud-amd64
BUILD-ID=3b43fad5034874490492495d552c0af6a5fab235
PAGESIZE=4096
SYMBOL(prb)=ffffffffb3e622c0
OFFSET(uts_namespace.name)=0
SIZE(page)=64
LENGTH(mem_section)=131072
NUMBER(phys_base)=-738197504
NUMBER(kimage_voffset)=0xffff800040000000
CONFIG_PGTABLE_LEVELS=5
CONFIG_SMP=y
KERNELOFFSET=31400000
CRASHTIME=1795455176
"""


def test_each_kind_of_line() -> None:
    info = VmcoreInfo(TEXT + b"\0garbage=1", where="here")
    assert info.osrelease == "6.1.0-56-cloud-amd64"
    assert info.build_id == "3b43fad5034874490492495d552c0af6a5fab235"
    assert info.page_size == 4096
    assert info.symbol("prb") == 0xffffffffb3e622c0
    assert info.offset("uts_namespace.name") == 0
    assert info.size_of("page") == 64
    assert info.length("mem_section") == 131072
    assert info.number("phys_base") == -738197504
    assert info.number("kimage_voffset") == 0xffff800040000000
    assert info.config("SMP")
    assert not info.config("KASAN")
    assert info.kernel_offset == 0x31400000
    assert info.crash_time == 1795455176
    assert "garbage" not in info


def test_an_absent_line_says_which() -> None:
    info = VmcoreInfo(TEXT)
    assert info.number("nothing", 7) == 7
    with pytest.raises(NotInDump, match=r"SYMBOL\(nothing\).*6\.1\.0-56"):
        info.symbol("nothing")


def test_an_empty_one_is_false_and_says_the_mend() -> None:
    info = VmcoreInfo(b"")
    assert not info
    assert info.crash_time is None
    with pytest.raises(NotInDump, match="-device vmcoreinfo"):
        info.page_size  # noqa: B018


def test_a_line_that_is_no_number() -> None:
    with pytest.raises(DamagedDump, match="PAGESIZE"):
        VmcoreInfo(b"PAGESIZE=40\xff6\n").page_size  # noqa: B018


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    info = VmcoreInfo(raw)
    for ask in (lambda: info.page_size, lambda: info.symbol("x"), lambda: info.crash_time, lambda: info.osrelease):
        with contextlib.suppress(KdumpyError):
            ask()
