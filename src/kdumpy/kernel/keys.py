"""Where the kernel keeps key material: keyrings, dm-crypt, WireGuard, TLS in the kernel, IPsec.

What the crypto layer makes of a key (expanded keys in transforms' contexts) is found by `transforms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import drgn
from drgn.helpers.linux.idr import idr_for_each_entry
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.net import for_each_net, for_each_netdev
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry
from drgn.helpers.linux.slab import slab_object_info

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.erasure import Erasure, Reach

_MOST = 1 << 20
"""Keys, devices or states in one list; more are not believed."""
_PAYLOADS = 4
"""Words of union key_payload. Source: include/linux/key.h."""
_NOT_SECRET = ("keyring", "asymmetric", "blacklist")
"""Types of keys that hold names of keys, public keys and hashes; security/keys, crypto/asymmetric_keys, certs."""


def find(reach: Reach) -> Iterator[Erasure]:
    """Yield what is known of each place that holds keys."""
    yield _guarded(Erasure("key.payload", "payloads of keys in keyrings"), _keyrings, reach)
    for module, erasure, finder in (
            ("dm_crypt", Erasure("crypt_config.key", "dm-crypt keys"), _dm_crypt),
            ("wireguard", Erasure("wg_device.static_identity", "WireGuard keys"), _wireguard),
            ("tls", Erasure("tls_context.crypto_send", "TLS keys of sockets"), _tls)):
        yield _guarded(erasure, partial(_of_module, module, finder), reach)
    yield _guarded(Erasure("xfrm_state.key", "IPsec keys"), _ipsec, reach)


def _of_module(name: str, finder: Callable[[Reach, Erasure], None], reach: Reach, erasure: Erasure) -> None:
    if reach.has_module(name) or reach.prog.symbols(_BUILT_IN[name]):
        finder(reach, erasure)      # else there are none


_BUILT_IN = {"dm_crypt": "crypt_ctr", "wireguard": "wg_newlink", "tls": "tls_init"}
"""A function of each module, which is in the kernel's symbol table where the module is built in."""


def _guarded(erasure: Erasure, finder: Callable[[Reach, Erasure], None], reach: Reach) -> Erasure:
    try:
        finder(reach, erasure)
    except READ_ERRORS as error:
        if erasure.count:
            erasure.failed(f"the list cannot be followed to its end: {error}")
        else:
            erasure.not_judged = str(error) or type(error).__name__
    return erasure


def _text(characters: drgn.Object) -> str:
    raw: bytes = characters.string_()
    return raw.decode("utf-8", "replace")


def _keyrings(reach: Reach, erasure: Erasure) -> None:
    prog = reach.prog
    root = drgn.Object(prog, "struct rb_root", address=prog.symbol("key_serial_tree").address)
    for number, key in enumerate(rbtree_inorder_for_each_entry("struct key", root.address_of_(), "serial_node")):
        if number >= _MOST:
            raise ValueError("the tree of keys has no end")
        try:
            kind = _text(key.type.name)
            if kind not in _NOT_SECRET:
                _payload(reach, erasure, key, kind)
        except READ_ERRORS as error:
            erasure.failed(error)


def _payload(reach: Reach, erasure: Erasure, key: drgn.Object, kind: str) -> None:
    """Erase a key's payload: the text where its type is known to hold one, else each object that it points to."""
    prog = reach.prog
    if kind in ("user", "logon"):
        payload = drgn.Object(prog, "struct user_key_payload *", value=key.payload.data[0].value_())
        if payload:
            reach.add(erasure, payload.data.address_of_().value_(), payload.datalen.value_())
        return
    for number in range(_PAYLOADS):
        pointer = key.payload.data[number].value_() & ~3      # the low bits may hold flags
        if not pointer:
            continue
        held = slab_object_info(prog, pointer)
        if held is not None:
            reach.add(erasure, held.address, held.slab_cache.size.value_())
        else:           # kvmalloc() beyond the slab's sizes; the key's quota tells how long it is
            reach.add(erasure, pointer, key.datalen.value_())


def _dm_crypt(reach: Reach, erasure: Erasure) -> None:
    prog = reach.prog
    minors = drgn.Object(prog, "struct idr", address=prog.symbol("_minor_idr").address)
    for _minor, entry in idr_for_each_entry(minors.address_of_(), "struct mapped_device"):
        table = drgn.Object(prog, "struct dm_table *", value=entry.map.value_())
        if not table:
            continue
        for number in range(min(table.num_targets.value_(), _MOST)):
            target = table.targets[number]
            if _text(target.type.name) != "crypt":
                continue
            config = drgn.Object(prog, "struct crypt_config *", value=target.private.value_())
            size = config.key_size.value_()
            reach.add(erasure, config.key.address_of_().value_(), size)
            if config.authenc_key:
                # The keys again, with a header, as crypt_setkey() hands them to the cipher; it clears them after.
                reach.add(erasure, config.authenc_key.value_(), size + 16)


def _wireguard(reach: Reach, erasure: Erasure) -> None:
    prog = reach.prog
    for net in for_each_net(prog):
        for device in for_each_netdev(net):
            operations = device.rtnl_link_ops
            if not operations or not operations.kind or _text(operations.kind) != "wireguard":
                continue
            # netdev_priv() before 6.8 is an address behind the struct, aligned to NETDEV_ALIGN (32).
            if device.type_.type.has_member("priv"):
                private = device.priv.address_of_().value_()
            else:
                private = (device + 1).value_() + 31 & ~31
            wireguard = drgn.Object(prog, "struct wg_device *", value=private)
            identity = wireguard.static_identity
            reach.add(erasure, identity.static_private.address_of_().value_(), drgn.sizeof(identity.static_private))
            for number, peer in enumerate(list_for_each_entry("struct wg_peer", wireguard.peer_list.address_of_(),
                                                              "peer_list")):
                if number >= _MOST:
                    raise ValueError("the list of peers has no end")
                _peer(reach, erasure, peer)


def _peer(reach: Reach, erasure: Erasure, peer: drgn.Object) -> None:
    handshake = peer.handshake
    for name in ("ephemeral_private", "chaining_key", "preshared_key", "precomputed_static_static", "hash"):
        if handshake.type_.has_member(name):
            member = handshake.member_(name)
            reach.add(erasure, member.address_of_().value_(), drgn.sizeof(member))
    for name in ("current_keypair", "previous_keypair", "next_keypair"):
        pair = peer.keypairs.member_(name)
        if pair:
            for side in (pair.sending, pair.receiving):
                reach.add(erasure, side.key.address_of_().value_(), drgn.sizeof(side.key))


def _tls(reach: Reach, erasure: Erasure) -> None:
    for socket in _tcp_sockets(reach.prog):
        operations = socket.icsk_ulp_ops
        if not operations or _text(operations.name) != "tls" or not socket.icsk_ulp_data:
            continue
        context = drgn.Object(reach.prog, "struct tls_context *", value=socket.icsk_ulp_data.value_())
        for side in (context.crypto_send, context.crypto_recv):
            reach.add(erasure, side.address_of_().value_(), drgn.sizeof(side))


def _tcp_sockets(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield each established TCP socket as `struct inet_connection_sock *`, of all namespaces."""
    from drgn.helpers.linux.list_nulls import hlist_nulls_for_each_entry
    common = drgn.Object(prog, "struct inet_hashinfo", address=prog.symbol("tcp_hashinfo").address)
    tables = {common.ehash.value_(): common}
    for net in for_each_net(prog):          # since 6.1 a namespace may have a table of its own
        if net.ipv4.type_.has_member("tcp_death_row") and net.ipv4.tcp_death_row.type_.has_member("hashinfo"):
            own = net.ipv4.tcp_death_row.hashinfo
            if own:
                tables[own.ehash.value_()] = own[0]
    for table in tables.values():
        for number in range(table.ehash_mask.value_() + 1):
            for sock in hlist_nulls_for_each_entry("struct sock", table.ehash[number].chain.address_of_(),
                                                   "__sk_common.skc_nulls_node"):
                if sock.__sk_common.skc_state.value_() not in (6, 12):      # TIME_WAIT, NEW_SYN_RECV are smaller
                    yield drgn.cast("struct inet_connection_sock *", sock)


def _ipsec(reach: Reach, erasure: Erasure) -> None:
    for net in for_each_net(reach.prog):
        for number, state in enumerate(list_for_each_entry(
                "struct xfrm_state", net.xfrm.state_all.address_of_(), "km.all")):
            if number >= _MOST:
                raise ValueError("the list of IPsec states has no end")
            for name in ("aalg", "ealg", "aead"):
                algorithm = state.member_(name)
                if algorithm:
                    size = (algorithm.alg_key_len.value_() + 7) // 8
                    reach.add(erasure, algorithm.alg_key.address_of_().value_(), size)
