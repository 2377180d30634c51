"""The addresses of Debian's archive, as the system's own apt sources name them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
"""Debian's package debian-archive-keyring: the keys of all releases in use."""

DEFAULT_MAIN = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"


@dataclass(frozen=True)
class Source:
    """One line or stanza of apt's sources, as far as it matters here."""

    address: str
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class DebianArchive:
    """Where Debian is fetched from."""

    main: str = DEFAULT_MAIN
    security: str = DEFAULT_SECURITY

    def lines(self, suite: str, architecture: str = "amd64") -> list[str]:
        """Return the one-line sources of a suite (with its security suite, which sid lacks)."""
        keyring = next((path for path in KEYRINGS if Path(path).exists()), None)
        options = f"[arch={architecture}" + (f" signed-by={keyring}]" if keyring else "]")
        found = [f"deb {options} {self.main} {suite} main"]
        if suite not in ("sid", "unstable", "experimental"):
            found.append(f"deb {options} {self.security} {suite}-security main")
        return found


def debian_archive(etc_apt: Path = Path("/etc/apt")) -> DebianArchive:
    """Return the archive that this system uses, or deb.debian.org on a system that is not Debian."""
    main = security = None
    for source in system_sources(etc_apt):
        # Vendors have addresses that end in /debian, too, but no component "main" in them.
        if not re.search(r"/debian(-security)?$", source.address) or "main" not in source.components:
            continue
        if any(suite.endswith("-security") or "/updates" in suite for suite in source.suites):
            security = security or source.address
        else:
            main = main or source.address
    return DebianArchive(main or DEFAULT_MAIN, security or DEFAULT_SECURITY)


def system_sources(etc_apt: Path) -> list[Source]:
    """Read sources.list, sources.list.d/*.list (one-line) and *.sources (deb822)."""
    found: list[Source] = []
    parts = etc_apt / "sources.list.d"
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            found += one_line(path.read_text())
    for path in sorted(parts.glob("*.sources")):
        found += deb822(path.read_text())
    return found


def one_line(text: str) -> list[Source]:
    """Parse `deb [options] address suite component…` lines. Source: sources.list(5)."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.split("#")[0])
        if match:
            found.append(Source(match[1].rstrip("/"), (match[2],), tuple(match[3].split())))
    return found


def deb822(text: str) -> list[Source]:
    """Parse stanzas of `Key: value` with continued lines. Source: sources.list(5)."""
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, list[str]] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields.setdefault(key, []).extend(line.split())
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.split()
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        suites, components = (tuple(fields.get(key, [])) for key in ("suites", "components"))
        found += [Source(address.rstrip("/"), suites, components) for address in fields.get("uris", [])]
    return found
