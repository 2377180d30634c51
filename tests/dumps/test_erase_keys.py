"""Keys that the kernel uses (dm-crypt, IPsec, TLS, WireGuard) are found in a real guest and erased."""

from __future__ import annotations

from pathlib import Path

import pytest
from drgn.helpers.linux.mm import phys_to_virt
from drgn.helpers.linux.slab import slab_object_info

import kdumpy
import key_guest
import secret_guest
from kdumpy.cli.erasing import all_judged, erase
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.kernel.erasure import Reach
from kdumpy.kernel.keys import find


def clamped(key: bytes) -> bytes:
    """Return a WireGuard key as curve25519 wants it, which is how the kernel keeps it."""
    return bytes([key[0] & 248, *key[1:31], key[31] & 127 | 64])


def places(dump: Dump) -> dict[str, set[int]]:
    """Return the physical addresses at which each key stands."""
    sought = {name: key_guest.key(name) for name in key_guest.NAMES}
    sought["clamped"] = clamped(key_guest.key("wireguard"))
    found: dict[str, set[int]] = {name: set() for name in sought}
    for run in dump.present():
        for start in range(run.start, run.stop, 2048):
            data = dump.read_pages(range(start, min(start + 2048, run.stop))).tobytes()
            for name, secret in sought.items():
                at = data.find(secret)
                while at >= 0:
                    found[name].add(start * dump.page_size + at)
                    at = data.find(secret, at + 1)
    return found


@pytest.fixture(params=key_guest.KERNELS)
def path(request: pytest.FixtureRequest) -> Path:
    return secret_guest.dump(request.param).path


def test_each_place_of_keys_is_found(path: Path) -> None:
    with kdumpy.open(path) as kernel:
        found = {each.what: each for each in find(Reach(kernel))}
    assert not [each for each in found.values() if each.not_judged or each.unread]
    assert found["dm-crypt keys"].count == 1
    assert found["dm-crypt keys"].size == 32
    assert found["IPsec keys"].count == 2
    assert found["TLS keys of sockets"].count == 2         # to send, and (unset) to receive
    assert found["WireGuard keys"].size == 32


def test_they_are_gone_afterwards(path: Path) -> None:
    with open_dump(path) as dump:
        before = places(dump)
        assert all(before[name] for name in ("dmcrypt", "ipsec", "tls", "clamped")), before
        erased = erase(dump, path, ["keys", "user"])
        assert all_judged(erased)
        after = places(erased)
    assert {name: left for name, left in after.items() if left and name != "ipsec"} == {}
    # The message by which `ip` gave it: freed, and not cleared by the kernel. The documentation says so.
    with kdumpy.open(path) as kernel:
        for place in after["ipsec"]:
            held = slab_object_info(kernel.prog, phys_to_virt(kernel.prog, place))
            assert held is not None
            assert not held.allocated
