"""What lies between the disks and a target's file system: the script that brings it up in the capture kernel.

The script (etc/kdumpy/layers, any POSIX shell) is the same whichever generator made the image: it names each array,
encrypted device and volume that is on the way, tries them until they are there, asks nobody, and gives up in time.
Nothing else of the host is touched: no other volume group is activated, no root is waited for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.images.luks import Lock
from kdumpy.host.images.needs import Needs
from kdumpy.host.storage import SPREAD, Layer
from kdumpy.host.system import System
from kdumpy.image.modules import ModuleTree, module_name
from kdumpy.units import printable

SCRIPT = "etc/kdumpy/layers"

PROGRAMS = {"lvm": "lvm", "luks": "cryptsetup", "raid": "mdadm", "multipath": "multipath", SPREAD: "btrfs"}
"""Kind of layer → the program that brings it up."""

PACKAGES = {"lvm": "lvm2", "cryptsetup": "cryptsetup-bin (cryptsetup)", "mdadm": "mdadm",
            "multipath": "multipath-tools (device-mapper-multipath)", "btrfs": "btrfs-progs"}

FILES = {"lvm": ("/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf"),
         "luks": ("/etc/crypttab",),
         "raid": ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"),
         "multipath": ("/etc/multipath.conf", "/etc/multipath/bindings", "/etc/multipath/wwids")}
"""Kind of layer → configuration of the host that the image is made by."""

CARRIED = ("/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf", "/etc/multipath.conf", "/etc/multipath/bindings",
           "/etc/multipath/wwids")
"""Those of FILES that the capture kernel reads. Arrays are named by their UUID, keys by the script."""

MODULES = {"lvm": ("dm_mod",), "luks": ("dm_mod", "dm_crypt"), "multipath": ("dm_mod", "dm_multipath"),
           "raid": ("md_mod",), SPREAD: ("btrfs",)}

_UNLOCKING = ("algif_skcipher", "algif_hash", "xts", "cbc", "ecb", "essiv", "crypto-aes", "crypto-sha256",
              "crypto-sha512")
"""What cryptsetup asks of the kernel for the usual ciphers, where it is not built in."""

_LEVELS = {"raid0": "raid0", "raid1": "raid1", "raid10": "raid10", "raid4": "raid456", "raid5": "raid456",
           "raid6": "raid456", "linear": "linear"}
"""Source: Documentation/admin-guide/md.rst, `level`."""

_HEAD = """\
#!/bin/sh
# Written by kdumpy: what the targets' file systems lie on, from the disks up. It asks nobody and waits for a time.
# Nodes below /dev are made without udev: whatever rules the image has, nothing waits for them.
export DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1
log() { echo "kdumpy: layers: $*" | tee -a /run/kdumpy/steps; }
since() { read -r up _ </proc/uptime; echo $((${up%%.*} - began)); }
read -r began _ </proc/uptime
began=${began%%.*}

# The device with this UUID, if it is there.
device_of() {
    if [ -b "/dev/disk/by-uuid/$1" ]; then
        readlink -f "/dev/disk/by-uuid/$1"
    else
        findfs "UUID=$1" 2>/dev/null
    fi
}

# What is started although a part is missing waits so long for it, in seconds.
grace=10

# Each step_N: 0 it is there, 1 not yet, 2 it never will be.
"""

_LOOP = """\
bring_up() {
    why=
    while :; do
        waiting=
        for step in $left; do
            "step_$step"
            case $? in
                0) log "$(name_of "$step") is there" ;;
                2) log "$(name_of "$step") stays away" ;;
                *) waiting="$waiting $step" ;;
            esac
        done
        left=$waiting
        [ -n "$left" ] || return 0
        [ "$(since)" -lt "$wait_s" ] || break
        sleep 0.5
    done
    for step in $left; do
        log "$(name_of "$step") did not appear in $wait_s s${why:+ ($why)}; there are" \\
            "$(ls /sys/class/block | tr '\\n' ' ')"
    done
}
"""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    """For people: `/dev/mapper/vg-crash`."""
    body: str


def missing(system: System, needs: Needs) -> str:
    """Return why the layers cannot be brought up by what is installed; empty: they can."""
    programs = [PROGRAMS[kind] for kind in needs.layers if kind in PROGRAMS]
    lacking = [program for program in programs if system.which(program) is None]
    return "".join(f"{program} is not installed ({PACKAGES[program]})" for program in lacking[:1])


def modules(system: System, tree: ModuleTree, needs: Needs) -> tuple[str, ...]:
    """Return the modules of the layers, by name; those that the kernel lacks are built in, or not used.

    Volumes of many kinds (thin, cached, mirrored) and ciphers have drivers of their own: those that the running
    system has loaded for its own are taken, and no others.
    """
    wanted = [name for kind in needs.layers for name in MODULES.get(kind, ())]
    wanted += [_LEVELS[layer.detail] for layer in _layers(needs) if layer.kind == "raid" and layer.detail in _LEVELS]
    if "luks" in needs.layers:
        wanted += _UNLOCKING
    loaded = [module_name(line.split(" ", 1)[0]) for line in (system.value("/proc/modules") or "").splitlines()]
    for name in loaded:
        path = str(tree.path(name) or "")
        # What dm-raid stacks on are the array drivers, which a plain volume does not need though all are loaded.
        if any(folder in path for folder in ("/crypto/", "/device_handler/")):
            wanted += [name] if {"luks", "multipath"} & set(needs.layers) else []
        elif "/drivers/md/" in path and (name.startswith("dm_") or ("dm_raid" in loaded and name.startswith("raid"))):
            wanted += [name] if name != "dm_crypt" else []
    return tuple(dict.fromkeys(wanted))


def script(needs: Needs, *, wait: bool) -> str:
    """Return the script; empty where nothing is stacked.

    Args:
        needs: of the targets.
        wait: a target on these layers comes first; else they are brought up while the capture begins.
    """
    steps = list(_steps(needs))
    if not steps:
        return ""
    lines = [_HEAD, f"wait_s={needs.config.device_wait_s}\n"]
    names = ["name_of() {", "    case $1 in"]
    for number, step in enumerate(steps):
        name = printable(step.name).replace("\n", "\\n")        # of one line: it is a comment, too
        lines.append(f"\n# {name}\nstep_{number}() {{\n{step.body}}}\n")
        names.append(f"        {number}) echo {shlex.quote(name)} ;;")
    lines += ["\n", "\n".join([*names, "    esac", "}"]), "\n\n",
              f"left='{' '.join(str(number) for number in range(len(steps)))}'\n", _LOOP,
              "bring_up\n" if wait else "bring_up &\n"]
    return "".join(lines)


def _layers(needs: Needs) -> list[Layer]:
    """Return all layers, those nearest to the disks first."""
    found = {layer.name: layer for device in needs.devices for layer in reversed(device.layers)}
    return list(found.values())


def _steps(needs: Needs) -> Iterator[_Step]:
    keys = {lock.name: lock for lock in needs.locks}
    for layer in _layers(needs):
        if layer.kind == "raid":
            yield _raid(layer)
        elif layer.kind == "multipath":
            yield _multipath(layer)
        elif layer.kind == "luks":
            yield _luks(keys[layer.detail])
        elif layer.kind == "lvm" and _is_volume(layer):
            yield _lvm(layer)
    for uuid in {place.content.uuid for place in needs.places if place.device and SPREAD in place.device.kinds()}:
        yield _btrfs(uuid)


def _raid(layer: Layer) -> _Step:
    if layer.detail == "container":
        raise HostError("a capture image cannot bring this array up", where=layer.name,
                        why="the firmware's own format (IMSM, DDF) takes a program that runs all the time",
                        mend="name a target on another disk, or a server: ssh://, nfs://, https://")
    node, there = shlex.quote(f"/dev/{layer.name}"), shlex.quote(f"/sys/block/{layer.name}")
    uuid = shlex.quote(_md_uuid(layer.uuid))
    # A resync would take the disks' time and memory from the dump; it goes on after the reboot.
    return _Step(f"the array /dev/{layer.name}", f"""\
    whole=--no-degraded
    [ "$(since)" -lt $grace ] || whole=--run
    if [ "$(cat {there}/size 2>/dev/null || echo 0)" = 0 ]; then
        mdadm --assemble $whole --config=partitions --uuid={uuid} {node} >/run/kdumpy/mdadm 2>&1 || return 1
    fi
    [ "$(cat {there}/size 2>/dev/null || echo 0)" != 0 ] || return 1
    echo frozen >{there}/md/sync_action 2>/dev/null
    return 0
""")


def _md_uuid(text: str) -> str:
    """Return a UUID as mdadm takes it: four groups of eight digits. /sys has it with the dashes of other UUIDs."""
    digits = text.replace("-", "").replace(":", "")
    return ":".join(digits[at:at + 8] for at in range(0, 32, 8))


def _multipath(layer: Layer) -> _Step:
    # With one path alone the file system is found as well.
    return _Step(f"the multipath device {layer.detail}", f"""\
    [ -b /dev/mapper/{shlex.quote(layer.detail)} ] && return 0
    multipath -v0 >/run/kdumpy/multipath 2>&1
    [ -b /dev/mapper/{shlex.quote(layer.detail)} ] && return 0
    [ "$(since)" -lt $grace ] && return 1
    log "$(tail -n 1 /run/kdumpy/multipath): going on with a single path"
    return 2
""")


def _luks(lock: Lock) -> _Step:
    name = shlex.quote(lock.name)
    command = " ".join(shlex.quote(word) for word in lock.command(f"/{lock.inside}", "")[:-1])
    # Source: cryptsetup(8), RETURN CODES: 4, a device that is not there (its header cannot be read yet), and 5, one
    # that is busy, may be over in a moment; 1, 2 and 3 (usage, key, memory) are as they are.
    return _Step(f"the encrypted device {lock.name}", f"""\
    [ -b /dev/mapper/{name} ] && return 0
    device=$(device_of {lock.uuid})
    [ -n "$device" ] || return 1
    {command} "$device" {name} >/run/kdumpy/cryptsetup 2>&1
    code=$?
    [ $code != 0 ] || return 0
    why="cryptsetup ended with $code: $(tail -n 1 /run/kdumpy/cryptsetup)"
    case $code in 4 | 5) return 1 ;; esac
    log "$why"
    return 2
""")


def _is_volume(layer: Layer) -> bool:
    """Tell whether it is a volume by itself, and no hidden part of one. Source: lib/uuid of LVM2: 64 letters."""
    return len(layer.uuid.removeprefix("LVM-")) == 64


def _lvm(layer: Layer) -> _Step:
    group, volume = names_of(layer.detail)
    # --sysinit: no lvmpolld and no monitoring; a volume that is marked to be skipped is wanted here.
    return _Step(f"the volume {group}/{volume}", f"""\
    lvm lvchange --activate y --sysinit --ignoreactivationskip {shlex.quote(f"{group}/{volume}")} \\
        >/run/kdumpy/lvm 2>&1 || return 1
    [ -b /dev/mapper/{shlex.quote(layer.detail)} ] || lvm vgmknodes {shlex.quote(group)} >>/run/kdumpy/lvm 2>&1
    [ -b /dev/mapper/{shlex.quote(layer.detail)} ]
""")


def names_of(text: str) -> tuple[str, str]:
    """Return group and volume of a device-mapper name: a hyphen in a name is doubled, one between them is not.

    Source: libdm/libdm-string.c, dm_build_dm_name().
    """
    group, _, volume = text.replace("--", "\0").partition("-")
    return group.replace("\0", "-"), volume.replace("\0", "-")


def _btrfs(uuid: str) -> _Step:
    return _Step(f"all devices of the file system {uuid}", f"""\
    device=$(device_of {uuid})
    [ -n "$device" ] || return 1
    btrfs device scan >/run/kdumpy/btrfs 2>&1
    btrfs device ready "$device" >>/run/kdumpy/btrfs 2>&1
""")
