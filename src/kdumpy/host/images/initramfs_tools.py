"""The builder by initramfs-tools (Debian, Ubuntu): mkinitramfs with a configuration directory of our own.

Source: mkinitramfs(8), initramfs.conf(5), initramfs-tools(7). The system's hooks run as always, for they know its
udev; /etc/initramfs-tools is not read. BOOT=kdumpy makes init call our boot script instead of looking for a root.
"""

from __future__ import annotations

from kdumpy.host.images import generated, stage
from kdumpy.host.images.base import Made, Task
from kdumpy.host.images.needs import Needs
from kdumpy.host.system import System

NAME = "initramfs-tools"

BOOT = "scripts/kdumpy"

ROOM = 64 << 20
"""Bytes that such an image unpacks to, about, before one was made."""


def refuses(system: System, needs: Needs) -> str:
    """Return why this builder cannot make the image; empty: it can."""
    return generated.refuses(system, needs, "mkinitramfs", "initramfs-tools")


def ingredients(system: System) -> tuple[str, ...]:
    """Return the files of the generator that an image is made of."""
    return ("/usr/sbin/mkinitramfs", "/usr/share/initramfs-tools/init", "/usr/share/initramfs-tools/hook-functions",
            *system.glob("/usr/share/initramfs-tools/hooks/*"), *system.glob("/usr/share/initramfs-tools/scripts/*"))


def build(task: Task) -> Made:
    """Write the image."""
    made = stage.make(task)
    home = task.work / "conf"
    known = generated.values(task, made)
    generated.write(home / "initramfs.conf", "initramfs-tools/initramfs.conf", known)
    # Packages may bring conf.d files of theirs: the last word is ours, when the image is made and in it.
    generated.write(home / "conf.d" / "zz-kdumpy", "initramfs-tools/initramfs.conf", known)
    generated.write(home / "hooks" / "kdumpy", "initramfs-tools/hook", known, 0o755)
    generated.write(home / "scripts" / "kdumpy", "initramfs-tools/boot", known)
    (home / "modules").write_text("".join(f"{name}\n" for name in made.modules))
    generated.run(task, ("mkinitramfs", "-d", str(home), "-o", str(task.output), task.release))
    return generated.look_into(task, made, ("init", BOOT, "conf/conf.d/zz-kdumpy"))
