"""What the peers' configurations have in common: makedumpfile's options, servers, units."""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

from kdumpy.host.changes import Change, Command
from kdumpy.host.system import System

COMPRESSIONS = {"c": "zlib", "l": "lzo", "p": "snappy", "z": "zstd"}

KNOWN_HOSTS = "/root/.ssh/known_hosts"
"""Where root's ssh, which the peers run, keeps the hosts' keys."""

QUIET = re.compile(r"--message-level(=\d+)?|-D|--show-stats|--num-threads(=\d+)?|\d+|-F|-i")
"""Options that say nothing about the dump, and numbers that belong to them."""

REMOTE_ONLY = ("the dump goes to the server alone; with a second target, such as /var/crash, it has a place when the "
               "server cannot be reached")

TRUE, FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off", "")


def collector(command: str, where: str) -> tuple[dict[str, object], list[str]]:
    """Return keys of [capture] for a makedumpfile command or its options, and what cannot be carried over.

    Source: makedumpfile(8).
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return {}, [f"{where}: {command!r} cannot be read"]
    if words and not words[0].startswith("-"):
        program = words.pop(0).rpartition("/")[2]
        if program in ("cp", "scp", "dd", "cat"):
            return {"level": 0, "compress": "none", "format": "elf"}, []
        if program != "makedumpfile":
            return {}, [f"{where}: {program} is not run; kdumpy saves the dump itself"]
    values: dict[str, object] = {"compress": "none", "level": 0}
    notes = []
    while words:
        word = words.pop(0)
        if word.startswith("-d"):
            levels = word[2:] or (words.pop(0) if words else "")
            first, *others = levels.split(",")
            if first.isdigit() and int(first) <= 31:
                values["level"] = int(first)
            else:
                notes.append(f"{where}: the dump level {levels!r} is none")
            if others:
                notes.append(f"{where}: of the levels {levels} the first is taken; when it does not fit, kdumpy goes "
                             "to level 31 by itself")
        elif re.fullmatch(r"-[clpz]", word):
            values["compress"] = COMPRESSIONS[word[1]]
        elif word == "-E":
            values |= {"format": "elf", "compress": "none"}
        elif word.startswith(("--config", "--eppic")):
            notes.append(f"{where}: {word} erases data; `kdumpy capture --erase` does so after the reboot")
        elif not QUIET.fullmatch(word):
            notes.append(f"{where}: makedumpfile's {word} has no counterpart")
    return values, notes


def nfs_url(export: str) -> str | None:
    """Return the target for `server:/export` or `[2001:db8::1]:/export`; None: it is none."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(/\S*)", export.strip())
    return f"nfs://{match[1]}{quote(match[2])}" if match else None


def ssh_url(login: str, directory: str, default_user: str = "root") -> str | None:
    """Return the target for `user@host` and a directory there; None: it is none."""
    user, at, host = login.strip().rpartition("@")
    user = user if at else default_user
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    if not re.fullmatch(r"[\w.-]+", user) or not re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*", host):
        return None
    return f"ssh://{user}@{host}/{quote(directory.strip('/'))}" if directory.strip("/") else None


def switch(text: str, default: bool) -> bool:
    """Return what a yes or no of a configuration means."""
    return default if text.strip().lower() not in (*TRUE, *FALSE) else text.strip().lower() in TRUE


def number(text: str) -> int | None:
    """Return a number that is not negative, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def enabled(system: System, unit: str) -> bool:
    """Tell whether systemd starts a unit at boot: by the links that `systemctl enable` makes."""
    for folder in system.glob("/etc/systemd/system/*.wants") + system.glob("/etc/systemd/system/*.requires"):
        if (system.path(folder) / unit).is_symlink():
            return True
    return False


def disabled(system: System, units: tuple[str, ...], why: str) -> tuple[Change, ...]:
    """Return the commands that stop units and keep them from starting, for those that are enabled."""
    return tuple(Command(("systemctl", "disable", "--now", unit), why, ("systemctl", "enable", "--now", unit))
                 for unit in units if enabled(system, unit))
