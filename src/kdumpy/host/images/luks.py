"""Encrypted devices below a target: the key that the capture kernel opens them with, for nobody types there.

A key file that the image carries: /etc/kdumpy/luks/NAME.key, else what /etc/crypttab names, else where systemd looks.

Source: crypttab(5) of cryptsetup and of systemd; the LUKS2 on-disk format specification, sections 2 and 3.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdumpy.errors import HostError
from kdumpy.host.storage import Device, Layer, node_of
from kdumpy.host.system import System

CRYPTTAB = "/etc/crypttab"

OWN_KEYS = "/etc/kdumpy/luks"
"""Keys for the capture alone: NAME.key, NAME being the mapping's; they win."""

SYSTEMD_KEYS = "/etc/cryptsetup-keys.d"
"""Where systemd looks for NAME.key when crypttab names no file (systemd-cryptsetup@.service(8))."""

INSIDE = "etc/kdumpy/keys"
"""Where the image keeps them."""

LARGEST_KEY = 8 << 20
"""Bytes; cryptsetup takes no larger one (--keyfile-size)."""

_FLAGS = {"keyfile-size": "--keyfile-size", "keyfile-offset": "--keyfile-offset", "key-slot": "--key-slot",
          "keyslot": "--key-slot"}
"""Options of crypttab that say how the file is read → cryptsetup's."""

_TOKENS = {"keyscript": "a script gives the key", "tpm2-device": "the TPM gives the key",
           "fido2-device": "a FIDO2 token gives the key", "pkcs11-uri": "a smart card gives the key",
           "header": "its header lies elsewhere"}
"""Options of crypttab that take more than a file."""

_UUID = re.compile(r"CRYPT-LUKS[12]-([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})-")
"""What device-mapper has of cryptsetup. Source: lib/libdevmapper.c of cryptsetup, dm_prepare_uuid()."""

# LUKS2 on-disk format, section 2.1, binary header: magic, version, size of header and JSON area.
_HEADER = struct.Struct(">6sHQ")
_MAGIC = b"LUKS\xba\xbe"
_JSON_AT = 4096
_LARGEST_HEADER = 4 << 20


@dataclass(frozen=True, slots=True)
class Lock:
    """One LUKS device and the key that opens it."""

    name: str
    """Of the mapping, the same as on the host."""
    uuid: str
    """Of the LUKS header."""
    node: str
    """The device that is opened, by today's name."""
    key: str
    """The key file on the host."""
    flags: tuple[str, ...] = ()
    """cryptsetup's, how the file is read."""

    @property
    def inside(self) -> str:
        """Where the image keeps the key."""
        return f"{INSIDE}/{self.name}"

    def command(self, key: str, device: str, *more: str) -> tuple[str, ...]:
        """Return the command that opens it: never asks, tries once."""
        return ("cryptsetup", "open", "--type", "luks", "--batch-mode", "--tries", "1", *self.flags,
                "--key-file", key, *more, device)


def locks(system: System, devices: Iterable[Device]) -> tuple[Lock, ...]:
    """Return the LUKS devices among those that targets lie on, each with its key.

    Raises:
        HostError: a device has no key that a machine alone can use; it says why, and what to do.
    """
    found = {layer.name: _lock(system, layer) for device in devices for layer in device.layers
             if layer.kind == "luks"}
    return tuple(found.values())


def _lock(system: System, layer: Layer) -> Lock:
    below = system.glob(f"/sys/class/block/{layer.name}/slaves/*")
    node = node_of(below[0].rsplit("/", 1)[-1]) if below else "the device below"
    where = f"{layer.detail}, on {node}"
    match = _UUID.match(layer.uuid)
    if match is None:
        raise HostError("a capture kernel cannot open this encrypted device", where=where,
                        why=f"it is no LUKS device ({layer.uuid.split('-')[1] if '-' in layer.uuid else 'unknown'})",
                        mend=_mend(layer.detail, node))
    uuid = "-".join(match.groups())
    key, flags = _key(system, layer.detail, uuid, where, node)
    try:
        size = system.path(key).stat().st_size
    except OSError as error:
        raise HostError("the key file of an encrypted target cannot be read", where=key,
                        why=error.strerror or str(error), mend=_mend(layer.detail, node)) from error
    if not system.path(key).is_file() or not 0 < size <= LARGEST_KEY:
        raise HostError("this is no key file", where=key, why=f"{size} bytes" if system.path(key).is_file()
                        else "it is no plain file", mend=_mend(layer.detail, node))
    return Lock(layer.detail, uuid, node, key, flags)


def _key(system: System, name: str, uuid: str, where: str, node: str) -> tuple[str, tuple[str, ...]]:
    """Return the key file and cryptsetup's flags."""
    own = f"{OWN_KEYS}/{name}.key"
    if system.exists(own):
        return own, ()
    line = next((words for words in _crypttab(system) if words[0] == name), None) or \
        next((words for words in _crypttab(system) if words[1].lower() == f"uuid={uuid}"), None)
    key, options = (line[2], _options(line[3])) if line else ("none", {})
    refused = next((why for option, why in _TOKENS.items() if option in options), "")
    if refused:
        raise _nobody(where, f"{CRYPTTAB} says that {refused}", name, node)
    if key in ("none", "-"):
        key = f"{SYSTEMD_KEYS}/{name}.key"
        if not system.exists(key):
            said = "names no key file for it" if line else "does not name it"
            raise _nobody(where, f"{CRYPTTAB} {said}: its passphrase is typed", name, node)
    if ":" in key or key.startswith("/dev/"):
        raise _nobody(where, f"its key is {key}, which is no file of this system", name, node)
    flags = tuple(word for option, flag in _FLAGS.items() if options.get(option) for word in (flag, options[option]))
    return key, flags


def _nobody(where: str, why: str, name: str, node: str) -> HostError:
    return HostError("nobody is there to type the passphrase of an encrypted target", where=where, why=why,
                     mend=_mend(name, node))


def _mend(name: str, node: str) -> str:
    own = f"{OWN_KEYS}/{name}.key"
    return (f"give it a key for the capture alone: install -d -m 700 {OWN_KEYS}; (umask 077; head -c 64 /dev/urandom "
            f">{own}); cryptsetup luksAddKey --pbkdf pbkdf2 {node} {own}; or name a target that is not encrypted on "
            f"this host: a partition, ssh://, https:// (`encrypt` protects the dump there)")


def _crypttab(system: System) -> Iterator[tuple[str, str, str, str]]:
    for line in (system.read(CRYPTTAB) or "").splitlines():
        words = line.split()
        if len(words) >= 2 and not line.lstrip().startswith("#"):
            yield words[0], words[1], words[2] if len(words) > 2 else "none", words[3] if len(words) > 3 else ""


def _options(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in text.split(","))}


def prove(system: System, lock: Lock) -> int:
    """Try the key, and return the bytes of memory that opening takes in the capture kernel: Argon2's.

    Raises:
        HostError: the key does not open the device.
    """
    done = system.run(lock.command(lock.key, lock.node, "--test-passphrase", "--verbose"), seconds=120, check=False)
    if done.code and os.geteuid() != 0:
        raise HostError("whether the key opens the encrypted target is for root to see", where=lock.key, why=done.told,
                        mend="run it as root")
    if done.code:
        raise HostError("the key does not open the encrypted target", where=f"{lock.key}, {lock.node}", why=done.told,
                        mend=_mend(lock.name, lock.node))
    slot = re.search(r"\b[Ss]lot (\d+)", done.out + done.err)
    return memory_of(header(system.path(lock.node)), slot[1] if slot else "")


def header(device: Path) -> dict[str, Any]:
    """Return the JSON area of a LUKS2 device; empty for LUKS1, which knows no Argon2.

    Raises:
        HostError: it is no LUKS device, or damaged.
    """
    with device.open("rb") as file:
        magic, version, size = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
        if magic != _MAGIC:
            raise HostError("not a LUKS device", where=str(device), why=f"it begins with {magic!r}")
        if version == 1:
            return {}
        if not _JSON_AT < size <= _LARGEST_HEADER:
            raise HostError("the LUKS header is damaged", where=str(device), why=f"its size is {size}")
        file.seek(_JSON_AT)
        text = file.read(size - _JSON_AT).split(b"\0", 1)[0]
    try:
        values = json.loads(text)
    except ValueError as error:
        raise HostError("the LUKS header is damaged", where=str(device), why=str(error)) from error
    return values if isinstance(values, dict) else {}


def memory_of(values: dict[str, Any], slot: str = "") -> int:
    """Return the bytes that opening a key slot takes; without its number, the most of all slots.

    Source: LUKS2 on-disk format, section 3.2.3: `kdf.memory` is in KiB, and is there for argon2i and argon2id.
    """
    slots = values.get("keyslots")
    if not isinstance(slots, dict):
        return 0
    chosen = [slots[slot]] if slot in slots else list(slots.values())
    sizes = [one["kdf"].get("memory", 0) for one in chosen if isinstance(one, dict) and isinstance(one.get("kdf"),
                                                                                                 dict)]
    return max((size << 10 for size in sizes if isinstance(size, int)), default=0)
