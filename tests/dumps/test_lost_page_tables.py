"""A dump that was cut lacks its page tables, which lie high: what they map is read by its address alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kdumpy
import lab
from console import Console
from kdumpy.errors import KdumpyError
from kdumpy.kernel import Kernel
from kdumpy.kernel.directmap import mend_direct_map, mend_image


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Kernel]:
    whole = lab.dump("6.1", "null-workqueue").path
    part = tmp_path / "vmcore"
    part.write_bytes(whole.read_bytes()[:whole.stat().st_size * 9 // 10])
    with kdumpy.open(part) as kernel:
        yield kernel


def test_what_is_there_is_read_without_page_tables(cut: Kernel) -> None:
    assert "by its address alone" in cut.problems["page tables"]
    assert "symbols" not in cut.debuginfo.missing
    base = cut.prog["page_offset_base"].value_()
    held = [pfn for pfn in range(0, cut.dump.max_pfn, 997) if _is_held(cut, pfn)]
    assert len(held) > 5
    for pfn in held:
        physical = pfn * cut.dump.page_size
        assert cut.prog.read(base + physical, 64) == cut.dump.read_physical(physical, 64)
    console = Console(cut)
    start = base + held[0] * cut.dump.page_size
    assert console(f"rd {start:x}").startswith(f"{start:016x}:  ")
    assert "schedule" in console("sym schedule")
    assert "[kthreadd]" in console.attempt("ps")[1]


def _is_held(kernel: Kernel, pfn: int) -> bool:
    try:
        kernel.dump.read_physical(pfn * kernel.dump.page_size, 1)
    except KdumpyError:
        return False
    return True


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_a_whole_dump_is_read_by_the_engine(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        assert "page tables" not in opened.problems
        assert not mend_image(opened.prog, opened.dump)
        assert not mend_direct_map(opened.prog, opened.dump)
