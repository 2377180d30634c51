"""The program that loads a capture kernel in a rehearsal's guest: one system call, kexec_file_load, and no libraries.

usage in the guest: load-capture KERNEL INITRD CMDLINE      exit code: 0, or the errno (255 for one above)

A guest's root holds no more than a shell: with this it needs neither kexec-tools of the host nor a Python, and the
call is the one that `kdumpy load` makes. Source: kexec_file_load(2), elf(5), the kernel's x86-64 calling convention
(number in rax; arguments in rdi, rsi, rdx, r10, r8; rcx and r11 are lost; an error comes as -errno in rax).
"""

from __future__ import annotations

import struct

BASE = 0x400000
"""Where the program's one segment lies in memory."""

_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")

CODE = bytes.fromhex(
    # At the start rsp points to argc, then argv[0], argv[1], …
    "488b7c2410"        # mov  rdi, [rsp+16]        argv[1]: the kernel
    "31f6"              # xor  esi, esi             O_RDONLY
    "b802000000"        # mov  eax, 2               open
    "0f05"              # syscall
    "4989c4"            # mov  r12, rax
    "488b7c2418"        # mov  rdi, [rsp+24]        argv[2]: the initrd
    "31f6"              # xor  esi, esi
    "b802000000"        # mov  eax, 2               open
    "0f05"              # syscall
    "4889c6"            # mov  rsi, rax             initrd_fd
    "4c89e7"            # mov  rdi, r12             kernel_fd
    "4c8b542420"        # mov  r10, [rsp+32]        argv[3]: the command line
    "31d2"              # xor  edx, edx
    "41803c1200"        # cmp  byte [r10+rdx], 0    its length, with the NUL that ends it
    "488d5201"          # lea  rdx, [rdx+1]         (leaves the flags alone)
    "75f5"              # jne  back to cmp
    "41b802000000"      # mov  r8d, 2               KEXEC_FILE_ON_CRASH
    "b840010000"        # mov  eax, 320             kexec_file_load
    "0f05"              # syscall
    "f7d8"              # neg  eax
    "89c7"              # mov  edi, eax
    "b83c000000"        # mov  eax, 60              exit
    "0f05")             # syscall
"""A file that cannot be opened gives a negative descriptor, which the call answers with EBADF."""


def program() -> bytes:
    """Return the program as an ELF file for x86-64."""
    start = _ELF.size + _SEGMENT.size
    size = start + len(CODE)
    # ELFCLASS64, little endian, version 1; ET_EXEC, EM_X86_64.
    head = _ELF.pack(b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE + start, _ELF.size, 0, 0, _ELF.size, _SEGMENT.size, 1,
                     0, 0, 0)
    # PT_LOAD, readable and executable, the whole file.
    segment = _SEGMENT.pack(1, 5, 0, BASE, BASE, size, size, 0x1000)
    return head + segment + CODE
