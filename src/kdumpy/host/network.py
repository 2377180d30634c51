"""How this host reaches a server, told so that the capture kernel can do the same: interface, address, routes.

Source: ip-route(8), ip-link(8) with `-j -d`; Documentation/ABI/testing/sysfs-class-net and networking/bonding.rst of
the kernel.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kdumpy.errors import HostError
from kdumpy.host.drivers import Drivers, drivers_of
from kdumpy.host.system import System

ANOTHER = "name a target that is reached through a plain Ethernet interface, a VLAN, a bond or a bridge"


@dataclass(frozen=True, slots=True)
class Port:
    """A network card."""

    name: str
    """On this host; the capture kernel may call it otherwise."""
    mac: str
    """Its own address, by which it is found."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with an address, and what it is made of."""

    name: str
    ports: tuple[Port, ...]
    """The cards; several are a bond's."""
    bond: Mapping[str, str]
    """Options of the bond, for /sys/class/net/…/bonding/; empty: there is none."""
    vlan: int
    """Number of the VLAN; 0: none."""
    mtu: int
    dhcp: bool
    """The address comes from a server; `addresses` is what it was when this was looked up."""
    addresses: tuple[str, ...]
    """Address and prefix: `192.0.2.5/24`."""
    routes: tuple[tuple[str, str], ...]
    """(destination or `default`, gateway or empty): those that the servers need."""


@dataclass(frozen=True, slots=True)
class Network:
    """What the servers among the targets take."""

    hosts: tuple[tuple[str, tuple[str, ...]], ...]
    """Server's name → its addresses: the capture kernel asks no name server for them."""
    interfaces: tuple[Interface, ...]
    drivers: Drivers
    resolvers: tuple[str, ...]
    """Name servers that are not this machine itself."""


def network_for(system: System, servers: Iterable[str], known: Mapping[str, tuple[str, ...]] | None = None) -> Network:
    """Return how servers are reached now.

    Args:
        system: the host.
        servers: names and addresses.
        known: their addresses, where these were looked up before; no name server is asked then.

    Raises:
        HostError: a name is unknown, there is no way to a server, or one that the image cannot go.
    """
    hosts = []
    wanted: dict[str, list[dict[str, Any]]] = {}
    for server in dict.fromkeys(servers):
        addresses = (known or {}).get(server) or _addresses(server)
        hosts.append((server, addresses))
        route = _route(system, server, addresses)
        wanted.setdefault(str(route["dev"]), []).append(route)
    drivers = Drivers()
    interfaces = []
    for name, routes in wanted.items():
        interface = _interface(system, name, routes)
        interfaces.append(interface)
        for port in interface.ports:
            drivers = drivers.plus(drivers_of(system, f"/sys/class/net/{port.name}/device"))
            if system.exists(f"/sys/class/net/{port.name}/phydev"):
                drivers = drivers.plus(drivers_of(system, f"/sys/class/net/{port.name}/phydev"))
    return Network(tuple(hosts), tuple(interfaces), drivers, _resolvers(system))


def _addresses(server: str) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_address(server)),)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostError("cannot find a server by its name", where=server, why=error.strerror or str(error),
                        mend="check the target's name, or give an address in its place") from error
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _ip(system: System, *words: str) -> list[dict[str, Any]]:
    answer = json.loads(system.run(["ip", "-j", *words]).out or "[]")
    return [entry for entry in answer if entry]


def _route(system: System, server: str, addresses: tuple[str, ...]) -> dict[str, Any]:
    """Return the way to the first address that there is one to."""
    why = ""
    for address in addresses:
        try:
            route = _ip(system, "route", "get", address)[0]
        except (HostError, IndexError) as error:
            why = error.why if isinstance(error, HostError) else "ip says nothing"
            continue
        if route.get("type") == "local" or route.get("dev") == "lo":
            raise HostError("the target's server is this machine itself", where=server, why=address,
                            mend="name a directory of this machine, or another server")
        return {**route, "address": address}
    raise HostError("there is no way to the target's server", where=server, why=why,
                    mend="bring the network up and try again")


def _interface(system: System, name: str, routes: list[dict[str, Any]]) -> Interface:
    ports, bond, vlan = _made_of(system, name)
    link = _ip(system, "-d", "link", "show", "dev", name)[0]
    entries = [entry for entry in _ip(system, "addr", "show", "dev", name)[0].get("addr_info", ())
               if entry.get("scope") == "global" and not entry.get("temporary")]
    lasting = [entry for entry in entries if not entry.get("dynamic")]
    four = [entry for entry in entries if entry.get("family") == "inet"]
    needs_four = any(":" not in str(route["address"]) for route in routes)
    dhcp = needs_four and bool(four) and not any(entry in lasting for entry in four)
    # What routers announced comes again by itself; DHCP's address is kept for when its server does not answer.
    kept = four if dhcp else lasting
    addresses = tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in kept)
    ways = [(str(route["address"]), str(route.get("gateway", ""))) for route in routes]
    ways += [("default", str(entry["gateway"])) for entry in _ip(system, "route", "show", "default", "dev", name)
             if entry.get("gateway")][:1]
    return Interface(name, ports, bond, vlan, int(link.get("mtu", 1500)), dhcp, addresses, tuple(ways))


def _made_of(system: System, name: str) -> tuple[tuple[Port, ...], Mapping[str, str], int]:
    """Return the cards of an interface, its bond's options, its VLAN."""
    folder = f"/sys/class/net/{name}"
    link = _ip(system, "-d", "link", "show", "dev", name)[0]
    info = link.get("linkinfo", {})
    kind = str(info.get("info_kind", ""))
    if kind == "vlan":
        ports, bond, inner = _made_of(system, str(link["link"]))
        if inner:
            raise HostError("a VLAN within a VLAN cannot be made in the capture image", where=name, mend=ANOTHER)
        return ports, bond, int(info["info_data"]["id"])
    if kind == "bond":
        slaves = (system.value(f"{folder}/bonding/slaves") or "").split()
        found = (_made_of(system, slave) for slave in slaves)
        ports = tuple(port for made, _bond, _vlan in found for port in made)
        return ports, _bond(system, folder), 0
    if kind == "bridge":
        below = [path.rsplit("/", 1)[-1] for path in system.glob(f"{folder}/brif/*")]
        real = [port for port in below if _is_card(system, port) or system.exists(f"/sys/class/net/{port}/bonding")
                or "." in port]
        for port in real:
            return _made_of(system, port)
        raise HostError("the bridge to the target has no network card", where=name, why=", ".join(below) or "no port",
                        mend=ANOTHER)
    if not _is_card(system, name) or system.exists(f"{folder}/wireless") or system.exists(f"{folder}/phy80211"):
        raise HostError("the capture image cannot bring this interface up", where=name,
                        why=kind or "it is no Ethernet card", mend=ANOTHER)
    # A bond gives all its cards one address; their own is what the capture kernel will see.
    own = info.get("info_slave_data", {}).get("perm_hwaddr") if info.get("info_slave_kind") == "bond" else ""
    mac = own or link.get("permaddr") or link.get("address") or system.value(f"{folder}/address") or ""
    return (Port(name, str(mac).lower()),), {}, 0


def _is_card(system: System, name: str) -> bool:
    return system.exists(f"/sys/class/net/{name}/device")


def _bond(system: System, folder: str) -> dict[str, str]:
    """Return the bond's options that decide whether it works; a mode reads as `802.3ad 4`."""
    found = {}
    for option in ("mode", "miimon", "xmit_hash_policy", "lacp_rate"):
        value = (system.value(f"{folder}/bonding/{option}") or "").split()
        if value:
            found[option] = value[0]
    return found


def _resolvers(system: System) -> tuple[str, ...]:
    for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        words = [line.split() for line in (system.value(path) or "").splitlines()]
        found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        found = [server for server in found if not server.startswith("127.") and server != "::1"]
        if found:
            return tuple(found)
    return ()
