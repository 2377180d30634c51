"""A dump small enough to live in a repository: made, packed as one .xz, and unpacked again.

Pages are stored uncompressed in the kdump format and the whole file is packed, which
takes a third of what pages packed one by one take.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
from dataclasses import replace
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import Progress, Recipe
from kdumpy.vm.paths import laboratory_home, locked

KERNEL, FAULT = "6.1", "null-workqueue"

VMCORE, CONSOLE = "vmcore.xz", "console.log"
"""The files of a bundle."""

MEMORY_MIB, CRASHKERNEL = 320, "128M"
"""The smallest guest that kdump works in: of 256 MiB the kernel reserves nothing."""

FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4}]
"""The x86 filter makes the kernel's text 4 % smaller."""


def make(directory: Path, progress: Progress) -> Path:
    """Make the minimal dump and write vmcore.xz and console.log; return the packed file (a minute)."""
    def smallest(recipe: Recipe) -> Recipe:
        return replace(recipe, memory_mib=MEMORY_MIB, crashkernel=CRASHKERNEL, compress="none")

    dump = laboratory.dump(KERNEL, FAULT, progress=progress, recipe=smallest)
    directory.mkdir(parents=True, exist_ok=True)
    packed = directory / VMCORE
    progress("packing…")
    with dump.path.open("rb") as source, lzma.open(packed, "wb", filters=FILTERS) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    shutil.copyfile(dump.console, directory / CONSOLE)
    return packed


def unpack(directory: Path) -> Path:
    """Return the vmcore of a bundle, unpacked below the laboratory's home once (a second).

    Raises:
        LaboratoryError: there is no bundle, or it is damaged.
    """
    packed = directory / VMCORE
    try:
        with packed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except FileNotFoundError:
        raise LaboratoryError("no bundled dump", where=str(packed),
                              mend="python -m kdumpy.vm bundle DIRECTORY makes it") from None
    target = laboratory_home() / "bundled" / digest / "vmcore"
    with locked("bundled"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            try:
                with lzma.open(packed) as source, partial.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            except (lzma.LZMAError, EOFError) as error:
                raise LaboratoryError("bundled dump is damaged", where=str(packed), why=str(error),
                                      mend="restore it with git checkout") from error
            shutil.copyfile(directory / CONSOLE, target.with_name(CONSOLE))
            partial.replace(target)
    return target
