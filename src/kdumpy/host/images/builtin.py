"""The builder of kdumpy's own: busybox, the drivers that lead to the target, Python. For disks that need no more."""

from __future__ import annotations

from pathlib import Path

from kdumpy.capture.config import render
from kdumpy.errors import HostError
from kdumpy.host.images import networkscript
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.modules import wanted
from kdumpy.host.images.needs import Needs
from kdumpy.host.system import System
from kdumpy.image import capture
from kdumpy.image.capture import Contents

NAME = "builtin"

ROOM = 32 << 20
"""Bytes that such an image unpacks to, about, before one was made."""

RESOLVING = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""Opened by an older libc (before 2.34) to find a server by its name."""


def refuses(system: System, needs: Needs) -> str:
    """Return why this builder cannot make the image; empty: it can."""
    if system.which("busybox") is None:
        return "busybox is not installed"
    if needs.layers:
        return f"the target lies on {', '.join(needs.layers)}"
    if needs.only_udev_knows:
        return f"only udev knows {needs.only_udev_knows[0]}"
    return ""


def ingredients(system: System) -> tuple[str, ...]:
    """Return nothing: kdumpy's own files are counted in any case."""
    return ()


def missing(system: System, needs: Needs) -> tuple[str, ...]:
    """Return the programs that this builder lacks."""
    return tuple(name for name in ("busybox",) if system.which(name) is None)


def build(task: Task) -> Made:
    """Write the image."""
    names = wanted(task.tree, task.needs, running=task.running)
    files: dict[str, bytes | Path] = {name: task.system.path(path) for name, path in task.needs.files.items()}
    network = task.needs.network
    if network is not None:
        files.update(networkscript.files(network, wait=task.network_first))
    contents = Contents(render(task.needs.config), modules=names.required, optional_modules=names.optional,
                        programs=task.needs.programs, files=files, firmware=True)
    if task.compression == "none":
        raise HostError("the kernel takes no compressed image", where=task.release)
    built = capture.build(task.tree, task.python, contents, task.output, compression=task.compression,
                          root=task.system.root)
    return Made(built.bytes, built.unpacked, built.modules)
