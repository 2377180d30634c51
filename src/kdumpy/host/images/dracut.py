"""The builder by dracut (Fedora, RHEL, SUSE; Debian has it, too): our module, and only what it depends on.

Source: dracut(8), dracut.modules(7). A directory of links to dracut's own files with one more module in it stands for
/usr/lib/dracut: nothing is put among the host's modules. No configuration of the host is read but the distribution's.
"""

from __future__ import annotations

from pathlib import Path

from kdumpy.host.images import generated, stage
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.needs import Needs
from kdumpy.host.system import System

NAME = "dracut"

HOME = "/usr/lib/dracut"

MODULE = "99kdumpy"

ROOM = 72 << 20

HOOKS = tuple(f"lib/dracut/hooks/{name}" for name in ("cmdline/99-no-root.sh", "pre-mount/00-capture.sh",
                                                     "emergency/00-capture.sh"))

WITHOUT = "systemd systemd-initrd dracut-systemd"
"""dracut's own init is enough: systemd would be 20 MB of the capture kernel's memory."""


def refuses(system: System, needs: Needs) -> str:
    """Return why this builder cannot make the image; empty: it can."""
    if not system.exists(f"{HOME}/modules.d"):
        return "dracut is not installed"
    return generated.refuses(system, needs, "dracut", "dracut")


def ingredients(system: System) -> tuple[str, ...]:
    """Return the files of the generator that an image is made of."""
    return ("/usr/bin/dracut", *system.glob(f"{HOME}/*.sh"), *system.glob(f"{HOME}/dracut.conf.d/*"),
            *system.glob(f"{HOME}/modules.d/*base/*"), *system.glob(f"{HOME}/modules.d/*udev-rules/*"),
            *system.glob(f"{HOME}/modules.d/*kernel-modules/*"))


def build(task: Task) -> Made:
    """Write the image."""
    made = stage.make(task)
    base = task.work / "dracut"
    _stand_in(task.system.path(HOME), base)
    known = generated.values(task, made)
    for name, mode in (("module-setup.sh", 0o755), ("no-root.sh", 0o755), ("capture.sh", 0o755)):
        generated.write(base / "modules.d" / MODULE / name, f"dracut/{name}", known, mode)
    empty = task.work / "conf"
    (empty / "d").mkdir(parents=True)
    (empty / "dracut.conf").touch()
    generated.run(task, (
        "dracut", "--force", "--kver", task.release, "--conf", str(empty / "dracut.conf"),
        "--confdir", str(empty / "d"), "--tmpdir", str(task.work), "--modules", "kdumpy", "--omit", WITHOUT,
        "--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode", "--nostrip",
        "--drivers", " ".join(made.modules) or "none",
        "--compress", f"{task.compression} -{generated.LEVELS[task.compression]}", str(task.output), task.release,
    ), dracutbasedir=str(base))
    return generated.look_into(task, made, ("init", *HOOKS))


def _stand_in(home: Path, base: Path) -> None:
    """Make a directory that looks like dracut's, of links, where a module can be added."""
    (base / "modules.d").mkdir(parents=True)
    for entry in home.iterdir():
        if entry.name != "modules.d":
            (base / entry.name).symlink_to(entry.resolve())
    for entry in (home / "modules.d").iterdir():
        (base / "modules.d" / entry.name).symlink_to(entry.resolve())
