"""VMCOREINFO: the few hundred lines in which a kernel tells where its own tables lie.

Source: kernel/vmcore_info.c (kernel/crash_core.c before 6.9) and each architecture's
arch_crash_save_vmcoreinfo(); Documentation/admin-guide/kdump/vmcoreinfo.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdumpy.errors import DamagedDump, NotInDump

PAGE_SIZES = (4096, 16384, 65536)
"""Bytes; what x86-64 and arm64 kernels can be built with."""

LARGEST = 1 << 20
"""Bytes; the kernel's own limit is one page (VMCOREINFO_BYTES), 64 KiB at most."""

_WORD = 1 << 64


class VmcoreInfo(Mapping[str, str]):
    """The lines as a mapping of text, and typed access to each kind of line.

    A line that is absent raises NotInDump from the typed methods, or gives `default` where one is passed.
    An empty VmcoreInfo (the dump has none) is false.
    """

    def __init__(self, raw: bytes, *, where: str = "") -> None:
        self.raw = raw
        """The text as found, without what follows the first NUL."""
        self.where = where
        """Where it was found, for errors."""
        self._lines: dict[str, str] = {}
        end = raw.find(b"\0")
        if end >= 0:
            self.raw = raw = raw[:end]
        for line in raw.decode("ascii", "replace").split("\n"):
            key, equals, value = line.partition("=")
            if equals:
                self._lines[key] = value

    def __getitem__(self, key: str) -> str:
        return self._lines[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def _int(self, key: str, base: int, default: int | None) -> int:
        text = self._lines.get(key)
        if text is None:
            if default is not None:
                return default
            raise self._missing(key)
        try:
            return int(text, base)
        except ValueError:
            raise DamagedDump(f"VMCOREINFO line {key} is not a number", where=self.where,
                              why=f"it says {text[:40]!r}") from None

    def _missing(self, key: str) -> NotInDump:
        if not self._lines:
            return NotInDump("the dump has no VMCOREINFO", where=self.where,
                             why=f"{key} was wanted from it",
                             mend="with QEMU's dump-guest-memory, start the guest with -device vmcoreinfo")
        return NotInDump(f"VMCOREINFO has no line {key}", where=self.where,
                         why=f"kernel {self.osrelease or 'of unknown release'} does not export it")

    def symbol(self, name: str, default: int | None = None) -> int:
        """Return the virtual address of a global: SYMBOL(name), relocated as in the running kernel."""
        return self._int(f"SYMBOL({name})", 16, default) % _WORD

    def size_of(self, name: str, default: int | None = None) -> int:
        """Return the bytes of a struct: SIZE(name)."""
        return self._int(f"SIZE({name})", 10, default)

    def offset(self, member: str, default: int | None = None) -> int:
        """Return the byte offset of a member: OFFSET(struct.member)."""
        return self._int(f"OFFSET({member})", 10, default)

    def length(self, name: str, default: int | None = None) -> int:
        """Return the number of elements of an array: LENGTH(name)."""
        return self._int(f"LENGTH({name})", 10, default)

    def number(self, name: str, default: int | None = None) -> int:
        """Return a constant: NUMBER(name), decimal (may be negative) or 0x hexadecimal."""
        return self._int(f"NUMBER({name})", 0, default)

    def config(self, name: str) -> bool:
        """Tell whether the kernel says it was built with an option: CONFIG_name=y."""
        return self._lines.get(f"CONFIG_{name}") == "y"

    @property
    def osrelease(self) -> str:
        """The kernel's release, as `uname -r` says it, or empty."""
        return self._lines.get("OSRELEASE", "")

    @property
    def build_id(self) -> str:
        """The vmlinux's build-id in hexadecimal (5.9 and later), or empty."""
        return self._lines.get("BUILD-ID", "")

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self._int("PAGESIZE", 10, None)

    @property
    def kernel_offset(self) -> int:
        """Bytes by which KASLR moved the kernel's image; 0 where it did not."""
        return self._int("KERNELOFFSET", 16, 0)

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch at the crash, or None (a live dump, or an old kernel)."""
        if "CRASHTIME" not in self._lines:
            return None
        return self._int("CRASHTIME", 10, None)
