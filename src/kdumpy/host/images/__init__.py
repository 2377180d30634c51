"""The capture image of this host: built by kdumpy itself or by the distribution's generator, and whether it is fresh.

One file a builder; each has NAME, `refuses(system, needs)` and `build(task)`. Adding one touches BUILDERS.
"""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from kdumpy.capture.config import render
from kdumpy.errors import HostError, KdumpyError
from kdumpy.host import distribution
from kdumpy.host.images import layers, luks, memory, networkscript, result
from kdumpy.host.images.base import Builder, Made, Say, Task
from kdumpy.host.images.needs import Needs, look
from kdumpy.host.images.result import STATE, BuiltImage, load, path_of, record_of, release_of
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.image import python
from kdumpy.image.initramfs import Compression
from kdumpy.image.modules import ModuleTree
from kdumpy.image.python import PythonTree
from kdumpy.image.stdlib import FILES

__all__ = ["STATE", "BuiltImage", "build", "load", "path_of", "release_of", "stale"]

BUILDERS = {"builtin": "builtin", "initramfs-tools": "initramfs_tools", "dracut": "dracut", "mkinitcpio": "mkinitcpio"}
"""Name in the configuration → the module of this package; `auto` takes the first that does not refuse."""


def stale(system: System, settings: Settings, release: str) -> str:
    """Return why the image of a kernel has to be built again, in words; empty: it is fresh.

    Reads files only; no name server is asked.
    """
    image = load(system, release)
    if image is None:
        return "there is none yet" if not system.exists(path_of(release)) else "it is not known what it was made of"
    before = image.ingredients
    try:
        known = {name: tuple(addresses) for name, addresses in before.get("hosts", ())}
        needs = look(system, settings, known)
        now = _ingredients(system, settings, release, needs, builder=image.builder)
    except KdumpyError as error:
        return f"a target is not as it was: {error}"
    return result.difference(before, now)


def build(system: System, settings: Settings, release: str, say: Say = lambda line: None,
          output: Path | None = None) -> BuiltImage:
    """Build the capture image of a kernel, in place of the one that is there only when all went well.

    Args:
        system: the host.
        settings: its settings.
        release: the capture kernel, whose modules lie in /lib/modules.
        say: is told what is done.
        output: where to write it, to look at it; nothing is written down then.

    Raises:
        HostError: a target cannot be reached from any image, or something is missing; the old image stays.
    """
    started = time.monotonic()
    tree = _modules(system, release)
    say("looking at the targets…")
    needs = look(system, settings)
    name, why = choose(system, settings, needs)
    say(f"builder: {name} ({why})")
    unlock = max((luks.prove(system, lock) for lock in needs.locks), default=0)
    for lock in needs.locks:
        say(f"the image carries the key of {lock.name} ({lock.key}): root alone may read it")
    state = system.path(STATE)
    state.mkdir(0o700, parents=True, exist_ok=True)
    with _locked(state), _workplace() as work:
        # Before anything of it is read: what changes while it is built makes it stale.
        ingredients = _ingredients(system, settings, release, needs, builder=name)
        say("making and trying the image's Python…")
        made_python = _python(work / "python", needs)
        (work / "builder").mkdir()
        task = Task(system, release, release == system.value("/proc/sys/kernel/osrelease"), tree, needs, made_python,
                    _compression(system, release), work / "builder", work / "image", say)
        say(f"making the image with {name}…")
        made: Made = builder(name).build(task)
        final = output or system.path(path_of(release))
        image = BuiltImage(
            path=str(output or path_of(release)), release=release, bytes=made.bytes, unpacked=made.unpacked,
            builder=name, why_builder=why, modules=made.modules, targets=needs.config.targets,
            seconds=round(time.monotonic() - started, 1), made_at=round(time.time(), 1),
            ingredients=ingredients, unlock=unlock)
        _put(task.output, final, result.render(image), system.path(record_of(release)) if output is None else None)
    return image


def choose(system: System, settings: Settings, needs: Needs) -> tuple[str, str]:
    """Return the builder and why it is this one.

    Raises:
        HostError: the one that is configured cannot, or none can; it says why each.
    """
    wanted = settings.image.builder
    if wanted != "auto":
        refused = builder(wanted).refuses(system, needs)
        if refused:
            raise HostError(f"the builder {wanted} cannot make the image", why=refused,
                            mend="set builder = \"auto\" in [image] of /etc/kdumpy.toml")
        return wanted, "as configured"
    refusals: list[str] = []
    own = distribution.of(system).generator
    # kdumpy's own image is the smallest; else the distribution's generator, before others that happen to be there.
    for name in sorted(BUILDERS, key=lambda name: (name != "builtin", name != own)):
        refused = builder(name).refuses(system, needs)
        if not refused:
            return name, "; ".join(refusals) or "it reaches the targets and is the smallest"
        refusals.append(f"not {name}: {refused}")
    raise HostError("nothing here can build a capture image for the targets", why="; ".join(refusals),
                    mend="install what is missing, or name a target on a plain disk or a server in /etc/kdumpy.toml")


def need(system: System, settings: Settings, release: str, needs: Needs) -> int:
    """Return the bytes of memory that a capture kernel with an image for these needs takes.

    As measured of the image that is there, if it is for the same targets; else by what such images unpack to.

    Raises:
        HostError: no builder can; a key does not open its device.
    """
    image = load(system, release)
    if image is not None and image.targets == needs.config.targets:
        return memory.needed(image.bytes, image.unpacked, image.unlock)
    unlock = max((luks.prove(system, lock) for lock in needs.locks), default=0)
    room = builder(choose(system, settings, needs)[0]).ROOM
    return memory.needed(room // 3, room, unlock)


def builder(name: str) -> Builder:
    """Return a builder by its name."""
    if name not in BUILDERS:
        raise HostError("no such builder of images", why=name, mend=f"one of {', '.join(BUILDERS)}")
    return cast(Builder, importlib.import_module(f"{__name__}.{BUILDERS[name]}"))


def _modules(system: System, release: str) -> ModuleTree:
    for folder in (f"/lib/modules/{release}", f"/usr/lib/modules/{release}"):
        if system.exists(f"{folder}/modules.dep"):
            return ModuleTree(system.path(folder))
    raise HostError("the kernel's modules are not installed", where=f"/lib/modules/{release}",
                    mend="reboot into the kernel that is installed, or name one with `kernel` in [image]")


def _ingredients(system: System, settings: Settings, release: str, needs: Needs, *,
                 builder: str) -> Mapping[str, object]:
    network = needs.network
    told = networkscript.script(network, wait=True) if network else ""
    hosts = [[name, list(addresses)] for name, addresses in network.hosts] if network else []
    stacked = [layers.PROGRAMS[kind] for kind in needs.layers if kind in layers.PROGRAMS]
    programs = [system.which(name) or name for name in ("busybox", *needs.programs, *stacked)]
    configuration = [path for kind in needs.layers for path in layers.FILES.get(kind, ())]
    files = [*programs, *needs.files.values(), *configuration, *_of_builder(builder, system)]
    storage = [*needs.config.targets, *needs.layers, *needs.drivers.modules, layers.script(needs, wait=True)]
    return {**result.ingredients(system, settings, release, files, storage, told), "hosts": hosts, "builder": builder}


def _of_builder(name: str, system: System) -> tuple[str, ...]:
    return builder(name).ingredients(system) if name in BUILDERS else ()


def _compression(system: System, release: str) -> Compression:
    """Return how the capture kernel can unpack an image: zstd since 5.9, where it was not left out."""
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config", f"/usr/lib/modules/{release}/config"):
        text = system.read(path)
        if text is not None:
            return "zstd" if "CONFIG_RD_ZSTD=y" in text.splitlines() else "gzip"
    return "zstd"


def _python(root: Path, needs: Needs) -> PythonTree:
    """Make the image's Python and try it; with numpy whole where the trimmed one does not work."""
    schemes = {url.partition(":")[0] for url in needs.config.targets}
    network = "https" if "https" in schemes else "http" if "http" in schemes else "none"
    config = root.with_name("config")
    config.write_text(render(needs.config))
    compress = needs.config.compress
    for trim in (True, False):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700)
        try:
            tree = python.build(root, compression=compress, network=network, trim=trim)
            python.try_out(tree, ["{}/selftest.py", compress, "{}/config"],
                           [("selftest.py", FILES / "selftest.py"), ("config", config)])
        except HostError:
            if not trim:
                raise
            continue
        return tree
    raise AssertionError


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Let one build at a time go on; the kernel frees the lock when its holder dies."""
    with (state / "image.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _workplace() -> Iterator[Path]:
    """Give an empty directory where programs may be run: the image's Python is tried there."""
    for folder in ("/var/tmp", "/tmp", "/run"):
        try:
            runs = not os.statvfs(folder).f_flag & os.ST_NOEXEC
        except OSError:
            continue
        if runs:
            break
    else:
        raise HostError("there is no place to try the image's Python", why="/var/tmp, /tmp and /run are noexec")
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="kdumpy-image-", dir=folder) as name:
        yield Path(name)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a service that is stopped and a terminal that is closed end a build as ^C does: copies of keys go with it."""
    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    ours = [number for number in (signal.SIGTERM, signal.SIGHUP)
            if threading.current_thread() is threading.main_thread() and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _put(source: Path, target: Path, text: str, record: Path | None) -> None:
    """Move an image to its place with its record, both whole or not at all: a full disk leaves those that were there.

    Args:
        source: the new image.
        target: its place.
        text: what the record says.
        record: its place; None: none is kept.
    """
    with source.open("rb") as data, _beside(target, data) as image:
        if record is None:
            image.replace(target)
            return
        with _beside(record, io.BytesIO(text.encode())) as written:
            # No record is better than one of another image.
            record.unlink(missing_ok=True)
            image.replace(target)
            written.replace(record)


@contextmanager
def _beside(target: Path, data: BinaryIO) -> Iterator[Path]:
    """Give a file beside its place, on the disk and for root's eyes only (keys may be in it); afterwards it is gone."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(data, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)
