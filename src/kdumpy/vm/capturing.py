"""The laboratory's capture images: kdumpy's own, with one disk as the target; Python is packed once and kept."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image import capture, python, stdlib
from kdumpy.image.capture import Built, Contents
from kdumpy.image.python import PythonTree
from kdumpy.image.stdlib import FILES
from kdumpy.vm.guest import HOST
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.paths import laboratory_home, locked
from kdumpy.vm.userland import root_of

MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""What the capture kernel needs to reach a disk of the guest."""

OUT = "out"
"""Serial number and label of the disk that takes the dump."""

CMDLINE = ("console=ttyS0 irqpoll nr_cpus=1 reset_devices mce=off numa=off cgroup_disable=memory "
           "transparent_hugepage=never novmcoredd panic=10 no_timer_check")
"""The capture kernel's parameters, as distributions have them; and `guest.CMDLINE` says why the last."""

KEPT = 4
"""Packed Pythons that are kept: each is 8 MB packed and 27 MB unpacked."""


@dataclass(frozen=True)
class Packed:
    """A Python that was built, tried and packed."""

    tree: PythonTree
    data: bytes


def config(targets: Iterable[str] = (f"disk:LABEL={OUT}",), final_action: str = "poweroff", **values: object) -> str:
    """Return the text of a kdumpy-capture.toml."""
    said: dict[str, object] = {"targets": list(targets), "path_name": HOST, "final_action": final_action,
                               "device_wait_s": 20, **values}
    return "".join(f"{key} = {_toml(value)}\n" for key, value in said.items())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, int) else '"' + str(value).replace('"', '\\"') + '"'


def build_image(kernel: Kernel, text: str, path: Path, *, compression: str = "zstd", carried: bool = True,
                files: dict[str, bytes | Path] | None = None, programs: tuple[str, ...] = ()) -> Built:
    """Write a capture image for a kernel of the laboratory.

    Args:
        kernel: the capture kernel.
        text: the configuration.
        path: the image.
        compression: of the dump's pages.
        carried: with Python; without it, only the shell's part of the ladder works.
        files: further files of the image.
        programs: further programs.
    """
    contents = Contents(text, modules=MODULES, files=files or {}, programs=programs)
    if not carried:
        return capture.build(kernel.modules, None, contents, path, root=root_of(kernel.architecture))
    made = packed_python(compression)
    return capture.build(kernel.modules, made.tree, contents, path, packed_python=made.data)


def packed_python(compression: str = "zstd") -> Packed:
    """Return the capture's Python for a page compression: built, tried out and packed once for each state of kdumpy.

    Raises:
        HostError: it cannot be built, or does not work.
    """
    home = laboratory_home() / "capture"
    place = home / f"{compression}-{_state()}"
    with locked("capture-python"):
        if not (place / "packed").exists():
            _build(place, compression)
            _forget_old(home)
        root = place / "root"
        facts = (place / "facts").read_text().split()
    tree = PythonTree(root, int(facts[0]), int(facts[1]))
    return Packed(tree, (place / "packed").read_bytes())


def _build(place: Path, compression: str) -> None:
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    (partial / "root").mkdir(parents=True)
    tree = python.build(partial / "root", compression=compression, network="none")
    said = python.try_out(tree, ["{}/selftest.py", compression, "{}/config"],
                          [("selftest.py", FILES / "selftest.py"), ("config", _sample(partial, compression))])
    if "pages kept" not in said:
        raise LaboratoryError("the capture's Python was not tried", where=str(partial), why=said)
    (partial / "facts").write_text(f"{tree.bytes} {tree.pages}\n")
    (partial / "packed").write_bytes(capture.packed(tree))
    partial.replace(place)


def _sample(directory: Path, compression: str) -> Path:
    path = directory / "config"
    path.write_text(config(compress=compression))
    return path


def _forget_old(home: Path) -> None:
    made = sorted((path for path in home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in made[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _state() -> str:
    """Return a hash of all that a packed Python is made of: 12 hex digits."""
    digest = hashlib.sha256(f"{sys.version}\0{stdlib.interpreter()}\0".encode())
    package = Path(python.__file__).parents[1]
    parts = [package / f"{name}.py" for name in python.SINGLE]
    parts += [path for part in (*python.PARTS, "image") for path in sorted((package / part).rglob("*.py"))]
    for path in parts:
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    for name in sorted({"numpy", *(package for group in python.COMPRESSORS.values() for package in group)}):
        try:
            digest.update(f"{name} {version(name)}\0".encode())
        except PackageNotFoundError:
            digest.update(f"{name} absent\0".encode())
    return digest.hexdigest()[:12]
