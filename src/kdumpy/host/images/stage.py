"""What a generator's image holds of kdumpy: laid out as a tree that the generator's hook takes in.

    add/      Python, tools, programs and libraries: left out where the image has a file of that name already
    over/     the ladder, the configuration, keys, scripts: replace what is there
    modules   the kernel modules that stay, by name; all others that the generator took are thrown out
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from kdumpy.capture.config import render
from kdumpy.errors import HostError
from kdumpy.host.images import layers, networkscript
from kdumpy.host.images.base import Task
from kdumpy.host.images.modules import wanted
from kdumpy.host.images.takein import merge
from kdumpy.image import capture, firmware, libraries
from kdumpy.image.cpio import Archive
from kdumpy.image.initramfs import Initramfs
from kdumpy.image.modules import module_name
from kdumpy.image.python import PREFIX
from kdumpy.image.stdlib import FILES

OWN = Path(__file__).parent / "files"

TOOLS = f"{PREFIX}/tools"
"""First on the PATH of our scripts: a generator's image may have others of these names, which know less."""

BEGIN = f"{PREFIX}/begin"
"""What the generator's init hands over to."""

MODULES = "etc/kdumpy/modules"
"""In the image: modules to load, one a line."""

WITHOUT_BUSYBOX = ("awk", "basename", "blkid", "cat", "chmod", "cp", "date", "dd", "df", "dmesg", "echo", "env",
                   "findfs", "grep", "head", "kill", "ln", "ls", "mkdir", "mount", "mv", "od", "printf", "readlink",
                   "rm", "sed", "setsid", "sh", "sleep", "stat", "sync", "tail", "tee", "touch", "tr", "umount",
                   "uname", "wc")
"""What the scripts call, where busybox is not installed: the system's own programs."""

BUSYBOX = ("busybox", "/usr/lib/initcpio/busybox")
"""The second is Arch's, of mkinitcpio-busybox."""

RESOLVING = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")


@dataclass(frozen=True, slots=True)
class Stage:
    """A tree for a hook."""

    root: Path
    modules: tuple[str, ...]
    """Names of the kernel modules, in the order to load them."""


def make(task: Task) -> Stage:
    """Lay the tree out below the task's working directory.

    Raises:
        HostError: a program, a library or a module is missing.
    """
    root = task.work / "stage"
    names = wanted(task.tree, task.needs, running=task.running)
    closure = task.tree.closure(list(names.required),
                                [*names.optional, *layers.modules(task.system, task.tree, task.needs)])
    modules = tuple(module_name(file.name) for file in closure.files)
    image = Initramfs(task.system.root)
    image.archive = Archive()
    _tools(task, image)
    for program in programs(task):
        image.add_program(program)
    _opened_at_run_time(task, image)
    for name, file in firmware.files(closure.files, task.release, task.system.root):
        image.add_file(name, file)
    lay_out(image.archive, root / "add")
    merge(task.python.root, root / "add", replace=False)
    over = Archive()
    for name in ("ladder", "final-action"):
        over.add_file(f"{PREFIX}/{name}", FILES / name, 0o755)
    over.add_file(BEGIN, OWN / "begin", 0o755)
    over.add_file(MODULES, "".join(f"{name}\n" for name in modules).encode())
    config = render(task.needs.config)
    over.add_file(capture.CONFIG, config.encode(), 0o600)
    over.add_file(capture.SETTINGS, capture.settings(config).encode(), 0o600)
    for name, data in _files(task).items():
        over.add_file(name, data, 0o700 if name in (networkscript.SCRIPT, networkscript.LEASE, layers.SCRIPT)
                      else 0o600)
    lay_out(over, root / "over")
    (root / "modules").write_text("".join(f"{name}\n" for name in modules))
    return Stage(root, modules)


def programs(task: Task) -> tuple[str, ...]:
    """Return the programs of targets and layers."""
    stacked = [layers.PROGRAMS[kind] for kind in task.needs.layers if kind in layers.PROGRAMS]
    return tuple(dict.fromkeys((*task.needs.programs, *stacked)))


def _files(task: Task) -> dict[str, bytes | Path]:
    found: dict[str, bytes | Path] = {name: task.system.path(path) for name, path in task.needs.files.items()}
    for kind in task.needs.layers:
        for path in layers.FILES.get(kind, ()):
            if path in layers.CARRIED and task.system.exists(path):
                found[path.lstrip("/")] = task.system.path(path)
    network = task.needs.network
    if network is not None:
        found.update(networkscript.files(network, wait=task.network_first))
    told = layers.script(task.needs, wait=not task.network_first)
    if told:
        found[layers.SCRIPT] = told.encode()
    return found


def _tools(task: Task, image: Initramfs) -> None:
    """Add busybox with a name for each of its programs, or the system's own programs."""
    busybox = next((found for found in map(task.system.which, BUSYBOX) if found), None)
    if busybox is not None:
        image.add_program(busybox, at=f"{PREFIX}/bin/busybox")
        for applet in capture.APPLETS:
            image.archive.add_symlink(f"{TOOLS}/{applet}", "../bin/busybox")
        return
    for name in WITHOUT_BUSYBOX:
        found = task.system.which(name)
        if found is None:
            raise HostError("a program that the capture's shell needs is missing", where=name,
                            mend="install busybox, or the package that holds it")
        image.add_program(found, at=f"{TOOLS}/{name}")


def _opened_at_run_time(task: Task, image: Initramfs) -> None:
    """Add libraries that no program names and that are opened when they are needed."""
    root, which = task.system.root, task.system.which
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if "luks" in task.needs.layers:
        # pthread_cancel() opens it: without it cryptsetup aborts.
        wanted.append(("cryptsetup", ("libgcc_s.so.1",)))
    if task.needs.network is not None and task.needs.programs:
        wanted.append((task.needs.programs[0], RESOLVING))
    for program, names in wanted:
        place = which(program)
        for name in names if place else ():
            library = libraries.find(name, Path(str(place)), root)
            if library is not None:
                image.add_file(str(library), task.system.path(str(library)).resolve(), 0o755)
    if "multipath" in task.needs.layers:
        for folder in ("/lib/multipath", "/usr/lib64/multipath", "/lib64/multipath"):
            for path in task.system.glob(f"{folder}/*.so"):
                image.add_file(path, task.system.path(path).resolve(), 0o755)


def lay_out(archive: Archive, root: Path) -> None:
    """Write an archive's files below a directory."""
    root.mkdir(parents=True, exist_ok=True)
    for entry in archive.entries():
        path = root / entry.name
        if stat.S_ISDIR(entry.mode):
            path.mkdir(exist_ok=True)
            path.chmod(stat.S_IMODE(entry.mode))
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.contents().decode())
        else:
            path.touch(0o600)
            path.write_bytes(entry.contents())
            path.chmod(stat.S_IMODE(entry.mode))
