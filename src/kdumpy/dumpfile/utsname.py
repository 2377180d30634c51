"""The crashed kernel's own name: struct new_utsname, include/uapi/linux/utsname.h."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Utsname:
    """struct new_utsname: what `uname -a` said on the crashed machine."""

    sysname: str
    nodename: str
    release: str
    version: str
    machine: str
    domainname: str

    @classmethod
    def parse(cls, raw: bytes) -> Utsname:
        """Read the six NUL-ended fields of 65 bytes each (390 bytes in all)."""
        parts = (raw[start:start + 65].split(b"\0", 1)[0] for start in range(0, 390, 65))
        return cls(*(part.decode("utf-8", "replace") for part in parts))

    def pack(self) -> bytes:
        """Return the 390 bytes that `parse` reads."""
        parts = (self.sysname, self.nodename, self.release, self.version, self.machine, self.domainname)
        return b"".join(part.encode()[:64].ljust(65, b"\0") for part in parts)
