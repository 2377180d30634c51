"""The capture image that kdumpy builds itself: busybox, the target's modules, Python, the ladder, the configuration.

For virtual machines and hosts whose disks need no LVM, RAID or encryption; for others the distribution's own
generator makes the image, and takes the same Python tree, ladder and configuration in.
"""

from __future__ import annotations

import shlex
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdumpy.errors import HostError, UsageError
from kdumpy.image import firmware
from kdumpy.image.initramfs import Compression, Initramfs, compressed
from kdumpy.image.modules import ModuleTree, module_name
from kdumpy.image.python import PREFIX, PythonTree
from kdumpy.image.stdlib import FILES

CONFIG = "etc/kdumpy-capture.toml"
SETTINGS = "etc/kdumpy-capture.sh"

APPLETS = ("awk", "basename", "blkid", "cat", "chmod", "cp", "date", "dd", "df", "dmesg", "echo", "env", "findfs",
           "grep", "halt", "head", "hostname", "ifconfig", "insmod", "ip", "kill", "ln", "ls", "lsmod", "mkdir",
           "mount", "mv", "od", "poweroff", "printf", "ps", "readlink", "reboot", "rm", "route", "sed", "setsid", "sh",
           "sleep", "stat", "sync", "tail", "tee", "touch", "tr", "udhcpc", "umount", "uname", "vconfig",
           "wc")
"""busybox's programs that get a name in the image; a rescue shell has all."""

FINAL_ACTIONS = ("reboot", "poweroff", "halt", "shell")


@dataclass(frozen=True)
class Contents:
    """What goes into an image beside Python."""

    config: str
    """The text of /etc/kdumpy-capture.toml."""
    modules: tuple[str, ...] = ()
    """Kernel modules that the targets need."""
    optional_modules: tuple[str, ...] = ()
    """Modules that are taken where the kernel has them."""
    programs: tuple[str, ...] = ()
    """Programs that the targets need, such as ssh; busybox has mount and umount."""
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    """Further files by their path in the image: keys, certificates, hooks (etc/kdumpy/pre.d/…, executable)."""
    firmware: bool = False
    """Take in the firmware that the modules ask for, where it is installed."""


@dataclass(frozen=True)
class Built:
    """An image that was written."""

    path: Path
    bytes: int
    """Compressed, as it lies in the reserved memory until it is unpacked."""
    unpacked: int
    """Bytes of memory that its files take; the capture kernel unpacks into at most half of its memory."""
    modules: tuple[str, ...] = ()
    """Names of the kernel modules in it."""


def settings(config: str) -> str:
    """Return /etc/kdumpy-capture.sh: what the shell has to know of the configuration.

    Raises:
        UsageError: the configuration is not TOML, or its final action is unknown.
    """
    try:
        values: dict[str, Any] = tomllib.loads(config)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the configuration is not TOML", why=str(error)) from error
    action = str(values.get("final_action", "reboot"))
    if action not in FINAL_ACTIONS:
        raise UsageError("no such final action", why=action, mend="one of " + ", ".join(FINAL_ACTIONS))
    # A copy of all memory by the shell is in the clear and takes its time: neither was agreed to.
    raw_copy = not values.get("encrypt") and not values.get("time_budget_s")
    targets = " ".join(str(target) for target in values.get("targets", ()))
    lines = (f"targets={shlex.quote(targets)}", f"name={shlex.quote(str(values.get('path_name', '')))}",
             f"final_action={action}", f"raw_copy={'yes' if raw_copy else 'no'}")
    return "# Written by kdumpy out of kdumpy-capture.toml.\n" + "\n".join(lines) + "\n"


def build(tree: ModuleTree, python: PythonTree | None, contents: Contents, path: Path,
          compression: Compression = "zstd", packed_python: bytes | None = None, root: Path = Path("/")) -> Built:
    """Write an image for the kernel whose modules `tree` holds.

    Args:
        tree: the capture kernel's modules.
        python: what python.build made; None: without, the shell copies memory as it is.
        contents: what else goes in.
        path: where to write it.
        compression: of the image.
        packed_python: what `packed` made of `python` with the same compression, to be quick.
        root: of the file system that programs and firmware come from.

    Raises:
        HostError: a program or a module is missing.
        UsageError: the configuration is not TOML.
    """
    image = Initramfs(root)
    image.add_program("busybox", at="bin/busybox")
    for applet in APPLETS:
        image.archive.add_symlink(f"bin/{applet}", "busybox")
    for program in contents.programs:
        if program not in APPLETS:
            image.add_program(program)
    closure = image.add_modules(tree, list(contents.modules), list(contents.optional_modules))
    if contents.firmware:
        for name, path in firmware.files(closure.files, tree.directory.name, root):
            image.add_file(name, path)
    image.add_file("init", FILES / "init", 0o755)
    for name in ("ladder", "final-action"):
        image.add_file(f"{PREFIX}/{name}", FILES / name, 0o755)
    image.add_file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    image.add_file("etc/group", "root:x:0:\n")
    image.add_file(CONFIG, contents.config, 0o600)
    image.add_file(SETTINGS, settings(contents.config), 0o600)
    for name, data in contents.files.items():
        runs = name.startswith(("etc/kdumpy/", "bin/"))
        image.add_file(name, data, 0o700 if runs else 0o600)
    data = image.pack(compression)
    unpacked = image.unpacked()
    if python is not None:
        # Two archives in one file: the kernel takes them one after the other, each on a boundary of 4 bytes.
        data += bytes(-len(data) % 4) + (packed_python or packed(python, compression))
        unpacked += python.pages * 4096
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
    return Built(path, len(data), unpacked, tuple(module_name(file.name) for file in closure.files))


def packed(python: PythonTree, compression: Compression = "zstd") -> bytes:
    """Return a Python tree as a compressed archive, which does not depend on the kernel."""
    image = Initramfs.empty()
    for file in sorted(python.root.rglob("*")):
        name = file.relative_to(python.root).as_posix()
        if file.is_symlink():
            image.archive.add_symlink(name, str(file.readlink()))
        elif file.is_file():
            image.archive.add_file(name, file, stat.S_IMODE(file.stat().st_mode) & 0o755)
        elif file.is_dir():
            image.archive.add_directory(name)
        else:
            raise HostError("neither file nor directory", where=str(file))
    return compressed(image.archive, compression)
