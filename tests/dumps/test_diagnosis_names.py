"""Names in a dump are the kernel's, and need not be C's: modules such as 9p and 8021q, and what damage made of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kdumpy
import lab
from kdumpy.diagnosis import diagnose
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.paging import KernelMemory


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A dump that may be written to, and where in the file the faulty module's name is."""
    target = tmp_path_factory.mktemp("names") / "vmcore"
    shutil.copyfile(lab.bundled(), target)
    with kdumpy.open(target) as kernel:
        made = kernel.prog.type("struct module")
        name = kernel.prog["modules"].next.value_() - made.member("list").offset + made.member("name").offset
        assert kernel.prog.read_c_string(name) == b"flaky"
        assert isinstance(kernel.dump, KdumpDump)
        pfn, offset = divmod(KernelMemory(kernel.dump).translate(name), kernel.dump.page_size)
        page = kernel.dump.descriptor(kernel.dump.bitmap.rank(pfn))
        assert page.flags == 0      # not compressed
        return target, page.offset + offset


@pytest.mark.parametrize("name", ["9pnet", "8021q", "union", "fla+y", "a b", ""])
def test_a_module_may_be_called_anything(renamed: tuple[Path, int], name: str) -> None:
    path, at = renamed
    with path.open("r+b") as file:
        file.seek(at)
        file.write(name.encode().ljust(8, b"\0"))
    with kdumpy.open(path) as kernel:
        found = diagnose(kernel)
    assert found.verdict.cause == "null-dereference"
    assert found.panic is not None
    assert found.panic.reading is not None
    assert found.panic.reading.pointer is not None
    assert not {"panic", "the faulting instruction"} & set(found.dump.missing)
    if name:
        assert found.verdict.culprit is not None
        assert (found.verdict.culprit.module, found.verdict.confidence) == (name, "certain")
