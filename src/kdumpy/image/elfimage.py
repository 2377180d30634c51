"""ELF files made small for an image: what the loader never reads is cut off, what is never called is stubbed.

Source: the System V ABI (ELF header, program headers, symbol and hash tables); its supplements for
x86-64 and AArch64 for the few machine instructions of a stub.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from kdumpy.errors import HostError

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 4, 5, 6, 10, 11, 14
DT_GNU_HASH = 0x6FFFFEF5
EM_X86_64, EM_AARCH64 = 62, 183

PAGE = 0x10000
"""Segments of a stub start on 64 KiB: the largest page of AArch64."""

MESSAGE = b"kdumpy: linear algebra is not in the capture image\n"
"""What a stub prints before it ends the process with STUB_EXIT."""

STUB_EXIT = 70
"""EX_SOFTWARE of sysexits.h."""


def loaded_part(data: bytes) -> bytes:
    """Return an ELF program or library without what no segment holds: sections, symbols, debug information.

    What strip(1) does and a little more, for 64-bit files of either byte order; others come back as they are.
    """
    if data[:4] != b"\x7fELF" or data[4] != 2:
        return data
    order = "<" if data[5] == 1 else ">"
    table = struct.unpack_from(order + "Q", data, 32)[0]
    entry_bytes, count = struct.unpack_from(order + "HH", data, 54)
    end = table + entry_bytes * count
    for index in range(count):
        offset = struct.unpack_from(order + "Q", data, table + index * entry_bytes + 8)[0]
        size = struct.unpack_from(order + "Q", data, table + index * entry_bytes + 32)[0]
        end = max(end, offset + size)
    short = bytearray(data[:end])
    struct.pack_into(order + "Q", short, 40, 0)           # e_shoff
    struct.pack_into(order + "HHH", short, 58, 0, 0, 0)   # e_shentsize, e_shnum, e_shstrndx
    return bytes(short)


@dataclass(frozen=True)
class Symbols:
    """The names of a library's dynamic symbol table."""

    defined: frozenset[str]
    undefined: frozenset[str]


def symbols(data: bytes) -> Symbols:
    """Return the dynamic symbols of a 64-bit ELF file.

    Raises:
        HostError: it has no dynamic symbol table that could be read.
    """
    order = "<" if data[5] == 1 else ">"
    try:
        return _symbols(data, order)
    except (struct.error, IndexError, ValueError, KeyError, StopIteration) as error:
        raise HostError("dynamic symbols cannot be read", why=repr(error)) from error


def _symbols(data: bytes, order: str) -> Symbols:
    table = struct.unpack_from(order + "Q", data, 32)[0]
    entry_bytes, count = struct.unpack_from(order + "HH", data, 54)
    headers = [struct.unpack_from(order + "IIQQQQQQ", data, table + index * entry_bytes) for index in range(count)]
    loads = [(address, offset, size) for kind, _, offset, address, _, size, _, _ in headers if kind == PT_LOAD]
    start, length = next((fields[2], fields[5]) for fields in headers if fields[0] == PT_DYNAMIC)
    tags = dict(struct.unpack_from(order + "qQ", data, start + at) for at in range(0, length, 16))

    def place(address: int) -> int:
        return next(int(address - base + offset) for base, offset, size in loads if base <= address < base + size)

    total: int
    strings, names = place(tags[DT_STRTAB]), place(tags[DT_SYMTAB])
    if DT_HASH in tags:
        total = struct.unpack_from(order + "I", data, place(tags[DT_HASH]) + 4)[0]
    else:
        total = _gnu_hash_total(data, order, place(tags[DT_GNU_HASH]))
    defined: set[str] = set()
    undefined: set[str] = set()
    for index in range(1, total):
        name, _, _, section = struct.unpack_from(order + "IBBH", data, names + index * 24)
        text = data[strings + name:data.index(b"\0", strings + name)].decode()
        (defined if section else undefined).add(text)
    return Symbols(frozenset(defined), frozenset(undefined))


def _gnu_hash_total(data: bytes, order: str, at: int) -> int:
    """Return how many symbols there are: the end of the last chain of a GNU hash table."""
    buckets, first, bloom = struct.unpack_from(order + "III", data, at)
    lists = at + 16 + bloom * 8
    last = max(struct.unpack_from(f"{order}{buckets}I", data, lists), default=0)
    if last < first:
        return int(first)
    chain = lists + buckets * 4
    while not struct.unpack_from(order + "I", data, chain + (last - first) * 4)[0] & 1:
        last += 1
    return last + 1


def stub_library(name: str, functions: Iterable[str], machine: int) -> bytes | None:
    """Return a shared object that defines functions which print a line and end the process.

    It stands in for a large library that is linked and never called (a BLAS).

    Args:
        name: its DT_SONAME.
        functions: the names it has to define.
        machine: e_machine; None is returned for machines other than EM_X86_64 and EM_AARCH64.
    """
    code = _code(machine)
    if code is None:
        return None
    wanted = sorted(functions)
    strings = bytearray(b"\0" + name.encode() + b"\0")
    headers_end = 64 + 4 * 56
    table_at = headers_end
    hash_at = table_at + 24 * (len(wanted) + 1)
    # One bucket: twenty names need no more. nbucket, nchain, the bucket, then the chain 1 → 2 → … → 0.
    chain = [0, *range(2, len(wanted) + 1), 0][:len(wanted) + 1]
    hashes = struct.pack(f"<3I{len(chain)}I", 1, len(chain), 1 if wanted else 0, *chain)
    code_at = -(-(hash_at + len(hashes)) // 16) * 16
    table = bytearray(24)
    for function in wanted:
        table += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, code_at, len(code))     # GLOBAL FUNC
        strings += function.encode() + b"\0"
    strings_at = code_at + len(code)
    text_end = strings_at + len(strings)
    # The loader writes into the dynamic section: it has a writable page of its own.
    dynamic_at = -(-text_end // 16) * 16
    address = dynamic_at + PAGE
    entries = ((DT_SONAME, 1), (DT_HASH, hash_at), (DT_STRTAB, strings_at), (DT_SYMTAB, table_at),
               (DT_STRSZ, len(strings)), (DT_SYMENT, 24), (DT_NULL, 0))
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    segments = (struct.pack("<IIQQQQQQ", PT_LOAD, 5, 0, 0, 0, text_end, text_end, PAGE)
                + struct.pack("<IIQQQQQQ", PT_LOAD, 6, dynamic_at, address, address, len(dynamic), len(dynamic), PAGE)
                + struct.pack("<IIQQQQQQ", PT_DYNAMIC, 6, dynamic_at, address, address, len(dynamic), len(dynamic), 8)
                + struct.pack("<IIQQQQQQ", PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16))
    body = (header + segments + table + hashes).ljust(code_at, b"\0") + code + strings
    return body.ljust(dynamic_at, b"\0") + dynamic


def _code(machine: int) -> bytes | None:
    """Return position-independent code: write(2, MESSAGE), exit_group(STUB_EXIT), and the message behind it."""
    if machine == EM_X86_64:
        code = b"\xbf\x02\x00\x00\x00"                                     # mov edi, 2
        code += b"\x48\x8d\x35" + struct.pack("<i", 5 + 5 + 2 + 5 + 5 + 2)  # lea rsi, [rip + …]
        code += b"\xba" + struct.pack("<I", len(MESSAGE))                  # mov edx, len
        code += b"\xb8\x01\x00\x00\x00\x0f\x05"                            # mov eax, SYS_write; syscall
        code += b"\xbf" + struct.pack("<I", STUB_EXIT)                     # mov edi, status
        code += b"\xb8\xe7\x00\x00\x00\x0f\x05"                            # mov eax, SYS_exit_group; syscall
        return code + MESSAGE
    if machine == EM_AARCH64:
        def mov(register: int, value: int) -> int:
            return 0xD2800000 | value << 5 | register

        adr = 0x10000000 | (7 << 5) | 1                                    # adr x1, 7 instructions on
        svc = 0xD4000001
        words = (mov(0, 2), adr, mov(2, len(MESSAGE)), mov(8, 64), svc, mov(0, STUB_EXIT), mov(8, 94), svc)
        return struct.pack(f"<{len(words)}I", *words) + MESSAGE
    return None
