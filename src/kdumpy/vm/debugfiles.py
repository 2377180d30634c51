"""The debug files (DWARF) of the laboratory's kernels, for what is compared with them."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm import kernels
from kdumpy.vm.guest import MODULES, OPTIONAL_MODULES
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import unpack
from kdumpy.vm.paths import laboratory_home, locked


def debug_vmlinux(name: str) -> Path:
    """Return the vmlinux with DWARF of a kernel, fetched on demand (0.6 to 1 GB on disk).

    The debug files of the modules that the guest loads lie beside it: see `debug_modules`.
    """
    kernel = kernels.get(name)
    root = laboratory_home() / "debug" / kernel.release / kernel.version.replace(":", "_")
    vmlinux = _debug_file(kernel, root)
    with locked("debug"):
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            _fetch_debug(kernel, root)
    if not vmlinux.exists():
        raise LaboratoryError("the debug package lacks vmlinux", where=str(root))
    return vmlinux


def _debug_file(kernel: Kernel, root: Path) -> Path:
    return root / f"usr/lib/debug/boot/vmlinux-{kernel.release}"


def debug_modules(name: str) -> Path:
    """Return the directory that holds the debug files of a kernel's modules (those the guest loads)."""
    return debug_vmlinux(name).parents[1] / "lib" / "modules"


def _fetch_debug(kernel: Kernel, root: Path) -> None:
    files = kernel.modules.closure(list(MODULES), list(OPTIONAL_MODULES)).files
    stems = {path.name.split(".ko")[0] for path in files}
    suite = kernel.packages_of

    def wanted(path: str) -> bool:
        name = path.rsplit("/", 1)[-1]
        # One of the two is a link to the other; which one changed with 7.x.
        return path.endswith((f"/boot/vmlinux-{kernel.release}", f"/modules/{kernel.release}/vmlinux")) or (
            "/kernel/" in path and ".ko" in name and name.split(".ko")[0] in stems)

    with suite.busy():
        for package in suite.download([f"linux-image-{kernel.release}-dbg"]):
            unpack(package, root, wanted)
        suite.discard_downloads()
    if _debug_file(kernel, root).exists():
        (root / "complete").touch()
