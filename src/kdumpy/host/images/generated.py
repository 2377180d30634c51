"""What the builders by a distribution's generator have in common: running it, and looking into what it made."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.host.images import layers, stage
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.needs import Needs
from kdumpy.host.images.stage import Stage
from kdumpy.host.system import System
from kdumpy.image import unpacking
from kdumpy.image.cpio import Entry
from kdumpy.image.modules import module_name
from kdumpy.image.python import PREFIX, RELEASE, START

SECONDS = 1800
"""A generator takes 5 s on a server; under emulation on a busy machine, many minutes."""

LEVELS = {"zstd": 3, "gzip": 6, "none": 0}
"""How hard an image is compressed: generators take minutes to make a disk's file a tenth smaller."""

ALWAYS = (stage.BEGIN, f"{PREFIX}/ladder", f"{PREFIX}/final-action", f"{PREFIX}/bin/python3",
          f"{PREFIX}/lib/{RELEASE}/{START}c", "etc/kdumpy-capture.toml", "etc/kdumpy-capture.sh", stage.MODULES)
"""Files of every image: a hook that did not run shows here and not in the capture kernel."""


def refuses(system: System, needs: Needs, program: str, package: str) -> str:
    """Return why a generator cannot make the image; empty: it can."""
    if system.which(program) is None:
        return f"{package} is not installed"
    if needs.network is not None and not any(map(system.which, stage.BUSYBOX)):
        return "busybox is not installed, and the network needs it"
    return layers.missing(system, needs)


def write(path: Path, name: str, values: Mapping[str, str], mode: int = 0o644) -> None:
    """Write one of the generator's files from its template in files/, with @NAME@ replaced."""
    text = (stage.OWN / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def values(task: Task, made: Stage) -> dict[str, str]:
    """Return what the templates hold of this image."""
    return {"PYTHON": shlex.quote(sys.executable), "STAGE": shlex.quote(str(made.root)),
            "COMPRESSION": task.compression, "LEVEL": str(LEVELS[task.compression]), "MODULES": " ".join(made.modules)}


def run(task: Task, words: Sequence[str], **environment: str) -> None:
    """Run a generator with the task's directory for its temporary files: keys are among them, and others may not look.

    Raises:
        HostError: it failed, or it made nothing.
    """
    pairs = [f"{name}={value}" for name, value in {"TMPDIR": str(task.work), **environment}.items()]
    try:
        done = task.system.run(("env", *pairs, *words), seconds=SECONDS, check=False)
    except HostError as error:
        raise HostError(f"{Path(words[0]).name} could not make the image", why=f"{error.what}: {error.why}",
                        mend=error.mend) from error
    for line in (done.err or done.out).splitlines()[-20:]:
        task.say(f"{Path(words[0]).name}: {line}")
    if done.code or not task.output.is_file():
        raise HostError(f"{Path(words[0]).name} could not make the image", why=done.told,
                        mend="mend what it says, or set another builder in [image] of /etc/kdumpy.toml")


def look_into(task: Task, made: Stage, init: Sequence[str]) -> Made:
    """Return what is in the image that a generator wrote.

    Args:
        task: the image is at its `output`.
        made: what the hook was to take in.
        init: files that make the generator's init call ours.

    Raises:
        HostError: something is not in it; the kernel cannot read it.
    """
    there: dict[str, Entry] = {}
    unpacked, names = 0, []
    for entry in unpacking.entries(task.output.read_bytes()):
        there[entry.name] = entry
        unpacked += -(-entry.size() // 4096) * 4096
        if ".ko" in entry.name and entry.size():
            names.append(module_name(entry.name))
    wanted = [*ALWAYS, *init, *(str(path.relative_to(made.root / "over"))
                                for path in (made.root / "over").rglob("*") if path.is_file())]
    lacking = [name for name in wanted if not _has(there, name)]
    lacking += [f"the module {name}" for name in made.modules if name not in names]
    if lacking:
        raise HostError("the generator left something out of the image", where=lacking[0],
                        why=f"{len(lacking)} of {len(wanted) + len(made.modules)} things are missing",
                        mend="see what it says above; builder in [image] of /etc/kdumpy.toml takes another one")
    open_to_all = [name for name in wanted if name.startswith("etc/kdumpy/keys/") and there[name].mode & 0o077]
    if open_to_all:
        raise HostError("a key in the image may be read by others", where=open_to_all[0])
    return Made(task.output.stat().st_size, unpacked, tuple(names))


def _has(there: Mapping[str, Entry], name: str) -> bool:
    # /bin, /lib and /sbin may be links into /usr there; a newer dracut has its hooks below /var.
    return any(prefix + name in there for prefix in ("", "usr/", "var/"))
