"""Which drivers a device of this host hangs on, from the device up to the bus, as /sys shows it.

Source: Documentation/driver-api/driver-model and Documentation/ABI/testing/sysfs-devices-* of the kernel: each device
is a directory, its parent the one above, `driver/module` the module that drives it, `modalias` what depmod's aliases
are matched with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdumpy.host.system import System

_LONGEST_CHAIN = 40


@dataclass(frozen=True, slots=True)
class Drivers:
    """What has to be there for devices to appear."""

    modules: tuple[str, ...] = ()
    """Modules that drive them now, those nearest to the bus first."""
    aliases: tuple[str, ...] = ()
    """The devices' own names, for a kernel whose modules are called otherwise."""
    builtin: tuple[str, ...] = ()
    """Drivers that are part of the running kernel."""

    def plus(self, other: Drivers) -> Drivers:
        """Return both, each once."""
        return Drivers(*(tuple(dict.fromkeys((*mine, *theirs))) for mine, theirs in (
            (self.modules, other.modules), (self.aliases, other.aliases), (self.builtin, other.builtin))))


def drivers_of(system: System, name: str) -> Drivers:
    """Return the drivers of a device, given by a path in /sys, and of all that it hangs on."""
    chain: dict[Path, None] = {}
    queue = [system.path(name).resolve()]
    while queue and len(chain) < 8 * _LONGEST_CHAIN:
        folder = queue.pop(0)
        for device in _up(system, folder):
            if device in chain:
                break
            chain[device] = None
            # Clocks, regulators, PHYs: on boards without ACPI a disk needs them as much as its own driver.
            queue += [link.resolve() for link in sorted(device.glob("supplier:*/supplier")) if link.exists()]
            queue += _controllers(device)
    found = Drivers()
    for device in reversed(chain):
        found = found.plus(_driver(device))
    return found


def _up(system: System, folder: Path) -> list[Path]:
    """Return a device and its parents, the bus last."""
    top = system.path("/sys/devices").resolve()
    return [path for path in (folder, *folder.parents) if path.is_relative_to(top) and path != top][:_LONGEST_CHAIN]


def _controllers(device: Path) -> list[Path]:
    """Return the controllers below an nvme subsystem: with native multipathing its disks have no parent but it."""
    if device.parent.name != "nvme-subsystem":
        return []
    return [entry.resolve() for entry in sorted(device.glob("nvme[0-9]*")) if entry.is_symlink() and entry.exists()]


def _driver(device: Path) -> Drivers:
    driver, alias = device / "driver", _line(device / "modalias")
    if not driver.exists():
        # Some devices have an alias and no driver: bridges, root hubs. Nothing needs them.
        return Drivers()
    aliases = (alias,) if alias else ()
    module = driver / "module"
    if module.exists():
        return Drivers((module.resolve().name,), aliases)
    return Drivers((), aliases, (driver.resolve().name,))


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
