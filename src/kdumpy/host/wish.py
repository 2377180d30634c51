"""What is wished of a setup, and the settings that come of it: the file's, a peer's, and the wishes on top."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from kdumpy.capture import declared
from kdumpy.errors import HostError, UsageError
from kdumpy.host import peers, settings
from kdumpy.host.settings import Settings
from kdumpy.host.system import System

SSH_KEYS = ("/root/.ssh/kdumpy_ed25519", "/root/.ssh/kdump_id_rsa", "/root/.ssh/id_ed25519", "/root/.ssh/id_ecdsa",
            "/root/.ssh/id_rsa")
"""Keys of root's that are taken for ssh targets where none is named, the most fitting first."""

KNOWN_HOSTS = ("/root/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for on the command line; empty: as configured."""

    crashkernel: str = ""
    targets: tuple[str, ...] = ()
    replace: bool = False
    """Take over from the distribution's kdump service: its settings where there are none of ours, and its place."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of /etc/kdumpy.toml, tables within (`parse_keys`)."""


def parse_keys(given: Iterable[str]) -> dict[str, Any]:
    """Read `capture.level=31` and the like; a value that is not TOML is a text.

    Raises:
        UsageError: there is no `=`.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"not a key and its value: {text!r}",
                             mend="write TABLE.KEY=VALUE, as in panic.on_hung_task=true")
        try:
            plain = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            plain = value
        *tables, last = name.strip().split(".")
        place = found
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise UsageError(f"{table} is a key and a table at once", why=text)
        place[last] = plain
    return found


def settings_for(system: System, wishes: Wishes, active: Iterable[peers.Peer]) -> tuple[Settings, list[str]]:
    """Return the settings that are wanted, and what is to be said of them.

    Args:
        system: the host.
        wishes: of the command line.
        active: kdump services that are replaced; their settings count where there is no file of ours.

    Raises:
        UsageError: the file, or a wish, is wrong.
        HostError: an ssh target needs a key, and there is none.
    """
    notes: list[str] = []
    wanted = settings.load(system)
    if not system.exists(settings.PATH):
        for peer in active:
            values, told = peer.imported()
            wanted = merged(wanted, values)
            notes += [f"{peer.name}: {note}" for note in told]
    asked = {**wishes.keys}
    if wishes.crashkernel:
        asked["crashkernel"] = wishes.crashkernel
    if wishes.targets:
        asked["capture"] = {**asked.get("capture", {}), "targets": list(wishes.targets)}
    if any(url.startswith("ssh:") for url in wishes.targets):
        asked["capture"], said = _with_ssh(system, wanted, asked["capture"])
        notes += said
    return merged(wanted, asked) if asked else wanted, notes


def _with_ssh(system: System, wanted: Settings, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return keys of [capture] with root's own ssh files where none are named."""
    found, notes = dict(asked), []
    for name, places, mend in (
            ("ssh_key", SSH_KEYS, f"make one that the server lets in, and no other: ssh-keygen -t ed25519 -N '' -f "
                                  f"{SSH_KEYS[0]}; then: ssh-copy-id -i {SSH_KEYS[0]} USER@HOST"),
            ("ssh_known_hosts", KNOWN_HOSTS, "ssh-keyscan HOST >>/root/.ssh/known_hosts, and compare the key with the "
                                             "server's own")):
        if found.get(name) or getattr(wanted.capture, name):
            continue
        there = next((path for path in places if system.exists(path)), None)
        if there is None:
            raise HostError(f"an ssh target needs {name}", where=next(url for url in asked["targets"] if "ssh:" in url),
                            why=f"none of {', '.join(places)} is there",
                            mend=f"{mend}; or name a file with --set capture.{name}=FILE")
        found[name] = there
        notes.append(f"{name} is {there}, which is root's own; --set capture.{name}=FILE takes another one")
    return found, notes


def merged(base: Settings, values: Mapping[str, Any]) -> Settings:
    """Return settings with plain values, as a file would give them, in place of some.

    Raises:
        UsageError: a value is wrong.
    """
    plain = _plain(base)
    for name, value in values.items():
        there = plain.get(name)
        plain[name] = {**there, **value} if isinstance(value, Mapping) and isinstance(there, dict) else value
    return declared.from_values(Settings, plain)


def _plain(values: Any) -> dict[str, Any]:
    return {one.name: _plain(value) if is_dataclass(value := getattr(values, one.name)) else value
            for one in fields(values)}
