"""The script that brings the network up in the capture image: etc/kdumpy/network, for busybox's shell.

Cards are found by their address, for names differ without udev. Nothing in it may wait for long: a disk may come
first among the targets.
"""

from __future__ import annotations

import shlex

from kdumpy.host.network import Interface, Network

SCRIPT = "etc/kdumpy/network"
LEASE = "etc/kdumpy/lease"
HOSTS = "etc/hosts"
RESOLVERS = "etc/resolv.conf"
SWITCH = "etc/nsswitch.conf"

_HEAD = """\
#!/bin/sh
# Written by kdumpy: the way to the targets' servers as this host had it when the image was built.
log() { echo "kdumpy: network: $*" | tee -a /run/kdumpy/steps; }

# The name of the card with this address; it may take a while to appear.
card() {
    tries=0
    while [ $tries -lt 40 ]; do
        for folder in /sys/class/net/*; do
            [ -e "$folder/device" ] || continue
            if [ "$(cat "$folder/address" 2>/dev/null)" = "$1" ]; then
                echo "${folder##*/}"
                return 0
            fi
        done
        tries=$((tries + 1))
        sleep 0.25
    done
    log "there is no card with the address $1; there are $(cat /sys/class/net/*/address | tr '\\n' ' ')" >&2
    return 1
}

up() {
    # An address of version 6 is to be used at once.
    echo 0 >"/proc/sys/net/ipv6/conf/$1/accept_dad" 2>/dev/null
    [ "$2" = 1500 ] || ip link set "$1" mtu "$2"
    ip link set "$1" up || log "$1 does not come up"
    tries=0
    while [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" != 1 ] && [ $tries -lt 40 ]; do
        tries=$((tries + 1))
        sleep 0.25
    done
    [ $tries -lt 40 ] || log "$1 has no link"
}

ip link set lo up
"""

LEASE_SCRIPT = """\
#!/bin/sh
# What udhcpc runs with a lease. Routes to servers are made by the network script.
case $1 in
    bound | renew)
        ip addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do
            ip route replace default via "$gateway" dev "$interface" && break
        done
        [ -z "$dns" ] || for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
        ;;
esac
exit 0
"""


def files(network: Network, *, wait: bool) -> dict[str, bytes]:
    """Return the image's files for a network.

    Args:
        network: what was found on the host.
        wait: the first target is a server; else the network comes up while the capture begins.
    """
    hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, addresses in network.hosts
                                             for address in addresses if address != name)
    resolvers = "".join(f"nameserver {server}\n" for server in network.resolvers)
    return {SCRIPT: script(network, wait=wait).encode(), LEASE: LEASE_SCRIPT.encode(), HOSTS: hosts.encode(),
            RESOLVERS: resolvers.encode(), SWITCH: b"passwd: files\ngroup: files\nhosts: files dns\n"}


def script(network: Network, *, wait: bool) -> str:
    """Return the script."""
    lines = ["bring_up() {"]
    for number, interface in enumerate(network.interfaces):
        lines += [f"    {line}" for line in _interface(interface, number)]
    lines += ["    log \"$(ip -o addr show scope global | awk '{ print $2, $4 }' | tr '\\n' ' ')\"", "}",
              "bring_up" if wait else "bring_up &"]
    return _HEAD + "\n".join(lines) + "\n"


def _interface(interface: Interface, number: int) -> list[str]:
    """Return the lines that make one interface and give it its address and routes."""
    mtu = str(interface.mtu)
    lines = [f"# {interface.name}: cards {' '.join(port.name for port in interface.ports)}"]
    if interface.bond:
        device = f"kdbond{number}"
        folder = f"/sys/class/net/{device}/bonding"
        lines.append(f"echo +{device} >/sys/class/net/bonding_masters")
        lines += [f"echo {shlex.quote(value)} >{folder}/{option}" for option, value in interface.bond.items()]
        for port in interface.ports:
            lines.append(f"if port=$(card {shlex.quote(port.mac)}); then ip link set \"$port\" down; "
                         f"echo \"+$port\" >{folder}/slaves; fi")
        lines.append(f"device={device}")
    else:
        lines.append(f"device=$(card {shlex.quote(interface.ports[0].mac)}) || return 1")
    if interface.vlan:
        lines += [f"up \"$device\" {mtu}",
                  "vconfig set_name_type DEV_PLUS_VID_NO_PAD >/dev/null",
                  f"vconfig add \"$device\" {interface.vlan} >/dev/null || log \"there is no VLAN on $device\"",
                  f"device=$device.{interface.vlan}"]
    lines.append(f"up \"$device\" {mtu}")
    fixed = [f"ip addr add {shlex.quote(address)} dev \"$device\"" for address in interface.addresses]
    if interface.dhcp:
        lines.append(f"if ! udhcpc -n -q -f -t 5 -T 2 -s /{LEASE} -i \"$device\" >/dev/null 2>&1; then")
        lines.append("    log \"no answer to DHCP on $device: taking the address that it had\"")
        lines += [f"    {line}" for line in fixed]
        lines += [f"    {line}" for line in _routes(interface, plain=True)]
        lines.append("fi")
        lines += _routes(interface, plain=False)
    else:
        lines += fixed + _routes(interface, plain=True) + _routes(interface, plain=False)
    return lines


def _routes(interface: Interface, *, plain: bool) -> list[str]:
    """Return the commands for the default route (`plain`), or for the servers' own ones."""
    lines = []
    for destination, gateway in interface.routes:
        if (destination == "default") != plain:
            continue
        family = "-6 " if ":" in (gateway or destination) else ""
        via = f"via {shlex.quote(gateway)} " if gateway else ""
        if plain:
            lines.append(f"ip {family}route replace default {via}dev \"$device\"")
        elif not gateway:
            lines.append(f"ip {family}route replace {shlex.quote(destination)} dev \"$device\"")
        elif not interface.dhcp or ("default", gateway) not in interface.routes:
            lines.append(f"ip {family}route replace {shlex.quote(destination)} {via}dev \"$device\"")
    return lines
