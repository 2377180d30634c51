"""The builder by mkinitcpio (Arch): a configuration and a directory of hooks of our own.

Source: mkinitcpio(8). Its base and udev hooks are linked into that directory, for -D replaces the system's; the
host's post hooks (signing, unified kernels) are not for this image.
"""

from __future__ import annotations

from kdumpy.host.images import generated, stage
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.needs import Needs
from kdumpy.host.system import System

NAME = "mkinitcpio"

HOME = "/usr/lib/initcpio"

HOOKS = ("base", "udev")

ROOM = 72 << 20


def refuses(system: System, needs: Needs) -> str:
    """Return why this builder cannot make the image; empty: it can."""
    if not all(system.exists(f"{HOME}/install/{name}") for name in HOOKS):
        return "mkinitcpio is not installed"
    return generated.refuses(system, needs, "mkinitcpio", "mkinitcpio")


def ingredients(system: System) -> tuple[str, ...]:
    """Return the files of the generator that an image is made of."""
    return ("/usr/bin/mkinitcpio", *system.glob(f"{HOME}/init*"), f"{HOME}/functions",
            *(f"{HOME}/{folder}/{name}" for folder in ("install", "hooks") for name in HOOKS))


def build(task: Task) -> Made:
    """Write the image."""
    made = stage.make(task)
    home = task.work / "hooks"
    known = generated.values(task, made)
    generated.write(home / "mkinitcpio.conf", "mkinitcpio/mkinitcpio.conf", known)
    generated.write(home / "install" / "kdumpy", "mkinitcpio/install", known, 0o755)
    generated.write(home / "hooks" / "kdumpy", "mkinitcpio/hook", known, 0o755)
    (home / "post").mkdir()
    for name in HOOKS:
        for folder in ("install", "hooks"):
            source = task.system.path(f"{HOME}/{folder}/{name}")
            if source.exists():
                (home / folder / name).symlink_to(source)
    generated.run(task, ("mkinitcpio", "-c", str(home / "mkinitcpio.conf"), "-D", str(home), "-k", task.release,
                         "-g", str(task.output), "-n"))
    return generated.look_into(task, made, ("init", "hooks/kdumpy", "hooks/udev"))
