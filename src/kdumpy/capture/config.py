"""What the capture is to do: /etc/kdumpy-capture.toml, read in the capture kernel and checked when the image is built.

Standard library only, and little of it: the log is saved before anything large is imported.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdumpy.capture import declared
from kdumpy.capture.declared import key, wrong
from kdumpy.errors import HostError, KdumpyError, UsageError

DEFAULT_PATH = Path("/etc/kdumpy-capture.toml")
"""Where the image keeps it."""

COMPRESSIONS = ("zstd", "lzo", "zlib", "snappy", "none")
FORMATS = ("kdump", "elf")
FINAL_ACTIONS = ("reboot", "poweroff", "halt", "shell")

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_AGE = re.compile(r"age1[02-9a-z]{50,2000}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """The file's keys. Each is checked on its own, then against the others; `UsageError` names the key."""

    targets: tuple[str, ...] = key("where to save, in order of preference: a directory (`/var/crash`), "
                                    "`disk:UUID=…/dir`, `nfs://host/export`, `ssh://user@host/dir`, `raw:/dev/…`, "
                                    "`https://host/path`")
    level: int = key("which pages to leave out (the sum of 1 zero, 2 and 4 page cache, 8 user, 16 free)", 31,
                      least=0, most=31)
    compress: str = key("how pages are packed: zstd, lzo, zlib, snappy or none", "zstd", choices=COMPRESSIONS)
    format: str = key("kdump (compressed, page by page) or elf", "kdump", choices=FORMATS)
    workers: int = key("processes that pack pages; 0: one a CPU", 0, least=0, most=1024)
    sha256: bool = key("write the dump's SHA-256 beside it, as `sha256sum -c` reads it", False)
    encrypt: str = key("public key that dump and log are encrypted to: `age1…`, or `gpg:FILE` with a GnuPG "
                        "public key; empty: not encrypted", "")
    time_budget_s: int = key("seconds after which the capture ends with what it has; 0: no limit", 0, least=0)
    device_wait_s: int = key("seconds to wait for a disk or a server to appear", 60, least=0, most=86400)
    path_name: str = key("name of the machine in the directory's name; empty: the crashed kernel's own host name", "")
    final_action: str = key("what follows the capture: reboot, poweroff, halt or shell", "reboot",
                             choices=FINAL_ACTIONS)
    nfs_options: str = key("mount options for nfs targets, `vers=…` among them", "soft,timeo=150,retrans=4")
    raw_overwrite: bool = key("let raw targets overwrite a device that holds something else", False)
    ssh_key: str = key("private key for ssh targets (a file in the image)", "")
    ssh_known_hosts: str = key("known_hosts file for ssh targets; an unknown host is refused", "")
    http_token_file: str = key("file whose contents are sent to http targets as `Authorization: Bearer`", "")
    http_ca: str = key("certificates (PEM) that https servers are checked against; empty: the system's", "")

    def __post_init__(self) -> None:
        """Check all keys."""
        declared.check(self)
        if not self.targets:
            raise wrong("targets", "is empty", "name at least one, such as /var/crash")
        if self.path_name and not _HOST.fullmatch(self.path_name):
            raise wrong("path_name", f"is {self.path_name!r}",
                         "letters, digits, dots, dashes and underscores are right")
        self._check_encryption()
        self._check_targets()

    def _check_encryption(self) -> None:
        if not self.encrypt or (self.encrypt.startswith("gpg:") and len(self.encrypt) > 4):
            return
        if self.encrypt.upper().startswith("AGE-SECRET-KEY-"):
            raise wrong("encrypt", "is a private key", "it may not lie in the image; give the public one, age1…")
        if not _AGE.fullmatch(self.encrypt):
            raise wrong("encrypt", f"is {self.encrypt[:20]!r}",
                         "an age public key starts with age1; for GnuPG: gpg:FILE")

    def _check_targets(self) -> None:
        from kdumpy.capture.targets import check_url

        for url in self.targets:
            check_url(url, self)


def load(path: Path) -> CaptureConfig:
    """Read and check a file.

    Raises:
        HostError: it cannot be read.
        UsageError: it is not TOML, or a key is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError("cannot read the configuration", where=str(path), why=str(error)) from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str = "configuration") -> CaptureConfig:
    """Read and check a file's text; UsageError says what is wrong where."""
    try:
        return from_values(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the configuration is not TOML", where=where, why=str(error)) from error
    except KdumpyError as error:
        raise UsageError(error.what, where=where, why=error.why, mend=error.mend) from error


def from_values(values: Mapping[str, Any]) -> CaptureConfig:
    """Make a configuration of plain values, as TOML or JSON gives them."""
    return declared.from_values(CaptureConfig, values)


def render(config: CaptureConfig, *, documented: bool = False) -> str:
    """Return a configuration as TOML, which `parse` reads back; with each key's meaning above it if wanted."""
    return declared.render(config, documented=documented)
