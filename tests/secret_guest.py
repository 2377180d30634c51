"""A guest that holds secrets in the clear: a key in a keyring, one in an environment, one among arguments.

None of them stands in any file of the guest: each is reckoned there, as the MD5 sum of its name. On two kernels the
kernel itself uses keys, too (`key_guest`). The dumps are of level 1: other tests take them where a level matters.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import key_guest
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import LabDump, Recipe

DESCRIPTION = "laboratory"
"""Of the key."""

# read(0, sp, 64); add_key("user", "laboratory", sp, what was read, KEY_SPEC_USER_KEYRING); exit(result < 0)
_ADD_KEY = bytes.fromhex(
    "4881ec80000000 31c0 31ff 4889e6 ba40000000 0f05 4889e2 4989c2 488d3d21000000 488d351f000000 49c7c0fcffffff"
    "b8f8000000 0f05 89c7 c1ef1f b83c000000 0f05") + b"user\0" + DESCRIPTION.encode() + b"\0"
_AT = 0x400000


def secret(name: str) -> bytes:
    """Return a secret of the guest: `key`, `environment` or `argument`."""
    return hashlib.md5(f"{name}\n".encode()).hexdigest().encode()


def program() -> bytes:
    """Return an x86-64 program that adds what it reads to root's keyring."""
    size = 120 + len(_ADD_KEY)
    header = b"\x7fELF\2\1\1" + bytes(9) + b"".join(
        value.to_bytes(width, "little") for value, width in
        ((2, 2), (62, 2), (1, 4), (_AT + 120, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2), (0, 2), (0, 2),
         (0, 2), (1, 4), (5, 4), (0, 8), (_AT, 8), (_AT, 8), (size, 8), (size, 8), (4096, 8)))
    return header + _ADD_KEY


def _trigger(more: str) -> str:
    octal = "".join(f"\\{byte:03o}" for byte in program())
    sums = "; ".join(f"{name}=$(echo {name} | md5sum | cut -c1-32)" for name in ("key", "environment", "argument"))
    return (f"{more}{sums}; printf '{octal}' >/tmp/addkey; chmod 755 /tmp/addkey; "
            "echo -n $key | /tmp/addkey || echo LAB failed: the key; "
            "SECRET=$environment sleep 400000 & "
            "sh -c 'sleep 500000; true' worker --password=$argument & "
            "sleep 1; unset key environment argument; echo c >/proc/sysrq-trigger")


@cache
def dump(kernel: str) -> LabDump:
    """Return the guest's dump, with its user pages (level 1)."""
    has_keys = kernel in key_guest.KERNELS
    trigger = _trigger(f"{key_guest.commands()}\n" if has_keys else "")

    def recipe(plain: Recipe) -> Recipe:
        return replace(plain, level=1, fault=replace(plain.fault, trigger=trigger))

    with key_guest.equipped() if has_keys else nullcontext():
        return laboratory.dump(kernel, "sysrq", recipe=recipe, progress=lambda line: print(line, flush=True))
