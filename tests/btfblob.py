"""BTF made by hand, for tests."""

from __future__ import annotations

import struct

from kdumpy.debuginfo.btf import Btf


class Blob:
    """Writes BTF, record by record."""

    def __init__(self, base: Btf | None = None) -> None:
        self.types = b""
        self.strings = b"" if base else b"\0"
        self.strings_base = base.strings_size if base else 0
        self.next_id = base.end_id if base else 1
        self.layout: dict[int, tuple[int, int]] = {}
        """(info_sz, elem_sz) by kind; the blob has a layout section when there is any."""

    def name(self, text: str) -> int:
        encoded = text.encode() + b"\0"
        if encoded not in self.strings:
            self.strings += encoded
        return self.strings_base + self.strings.index(encoded) if text else 0

    def add(self, name: str, kind: int, size_or_type: int, *tail: int, vlen: int = 0, flag: bool = False) -> int:
        info = int(flag) << 31 | kind << 24 | vlen
        self.types += struct.pack(f"<III{len(tail)}I", self.name(name), info, size_or_type, *tail)
        self.next_id += 1
        return self.next_id - 1

    def bytes(self) -> bytes:
        layout = b"".join(struct.pack("<BBH", *self.layout.get(kind, (0, 0)), 0)
                          for kind in range(max(self.layout, default=-1) + 1))
        sections = [0, len(self.types), len(self.types) + len(layout), len(self.strings)]
        if layout:
            sections += [len(self.types), len(layout)]
        header = struct.pack(f"<HBBI{len(sections)}I", 0xEB9F, 1, 0, 8 + 4 * len(sections), *sections)
        return header + self.types + layout + self.strings
