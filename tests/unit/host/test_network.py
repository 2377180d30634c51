"""The way to a server as a recorded host has it: a VLAN on a bond, a bridge with DHCP; and the script made of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host.images import networkscript
from kdumpy.host.network import Network, Port, network_for
from recordedhost import RecordedSystem, put, recorded

VLAN, BRIDGED = "10.7.0.9", "192.0.2.77"


@pytest.fixture
def host(tmp_path: Path) -> RecordedSystem:
    return recorded(tmp_path)


def test_a_vlan_on_a_bond_is_found_down_to_its_cards(host: RecordedSystem) -> None:
    (interface,) = network_for(host, [VLAN]).interfaces
    # Both cards show the bond's address; the second one's own is another.
    assert interface.ports == (Port("enp0s3", "52:54:00:12:34:58"), Port("enp0s4", "52:54:00:12:34:56"))
    assert interface.bond["mode"] == "balance-rr"
    assert (interface.vlan, interface.dhcp, interface.addresses) == (7, False, ("10.7.0.2/24",))
    assert network_for(host, [VLAN]).drivers.modules == ("e1000e", "virtio_pci", "virtio_net")


def test_a_bridge_is_its_card_with_the_bridge_s_lease(host: RecordedSystem) -> None:
    (interface,) = network_for(host, [BRIDGED]).interfaces
    assert interface.ports == (Port("enp0s2", "52:54:00:12:34:57"),)
    assert (interface.vlan, interface.bond, interface.dhcp) == (0, {}, True)
    assert interface.routes == ((BRIDGED, "10.0.2.2"), ("default", "10.0.2.2"))


def test_a_server_that_was_looked_up_before_is_not_looked_up_again(host: RecordedSystem) -> None:
    network = network_for(host, ["no.such.name.invalid"], {"no.such.name.invalid": (BRIDGED,)})
    assert network.hosts == (("no.such.name.invalid", (BRIDGED,)),)


def test_what_cannot_be_reached_is_told(host: RecordedSystem) -> None:
    with pytest.raises(HostError, match="cannot find a server by its name"):
        network_for(host, ["no.such.name.invalid"])
    with pytest.raises(HostError, match="no way to the target's server"):
        network_for(host, ["203.0.113.1"])
    host.answers["route get 127.0.0.1"] = [{"type": "local", "dst": "127.0.0.1", "dev": "lo"}]
    with pytest.raises(HostError, match="this machine itself"):
        network_for(host, ["127.0.0.1"])


@pytest.mark.parametrize(("kind", "words"), [("wireguard", "wireguard"), ("", "no Ethernet card")])
def test_an_interface_that_is_no_card_is_refused(host: RecordedSystem, kind: str, words: str) -> None:
    host.answers["route get 10.9.0.1"] = [{"dst": "10.9.0.1", "dev": "wg0"}]
    host.answers["-d link show dev wg0"] = [{"ifname": "wg0", "linkinfo": {"info_kind": kind} if kind else {}}]
    with pytest.raises(HostError, match=words):
        network_for(host, ["10.9.0.1"])


def test_name_servers_of_this_machine_itself_are_not_carried(host: RecordedSystem) -> None:
    put(host.root, "etc/resolv.conf", "nameserver 127.0.0.53\n")
    put(host.root, "run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\nnameserver ::1\n")
    assert network_for(host, [VLAN]).resolvers == ("192.0.2.1",)


def both(host: RecordedSystem) -> Network:
    network = network_for(host, [VLAN, "filer"], {"filer": (BRIDGED,)})
    return replace(network, resolvers=("192.0.2.1",))


def test_the_script_is_what_busybox_takes(host: RecordedSystem, tmp_path: Path) -> None:
    for wait in (True, False):
        script = put(tmp_path, "script", networkscript.script(both(host), wait=wait))
        subprocess.run(["busybox", "sh", "-n", script], check=True)
        assert script.read_text().endswith("\nbring_up\n" if wait else "\nbring_up &\n")
    subprocess.run(["busybox", "sh", "-n", put(tmp_path, "lease", networkscript.LEASE_SCRIPT)], check=True)


def test_the_image_knows_the_servers_by_name(host: RecordedSystem) -> None:
    files = networkscript.files(both(host), wait=True)
    assert f"{BRIDGED} filer\n" in files[networkscript.HOSTS].decode()
    assert VLAN not in files[networkscript.HOSTS].decode()
    assert files[networkscript.RESOLVERS] == b"nameserver 192.0.2.1\n"


STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
[ "$(basename "$0")" != udhcpc ] || exit "$LEASE"
"""


@pytest.mark.parametrize("lease", ["0", "1"])
def test_the_script_does_what_the_host_had(host: RecordedSystem, tmp_path: Path, lease: str) -> None:
    """Run it with programs that write down how they were called, on a /sys with the cards under other names."""
    sys = tmp_path / "class"
    for name, mac in (("eth0", "52:54:00:12:34:57"), ("eth1", "52:54:00:12:34:58"), ("eth2", "52:54:00:12:34:56"),
                      ("kdbond0", ""), ("kdbond0.7", "")):
        put(sys, f"{name}/address", mac + "\n")
        put(sys, f"{name}/carrier", "1\n")
        (sys / name / "device").mkdir()
    put(sys, "kdbond0/bonding/slaves", "")
    text = networkscript.script(both(host), wait=True).replace("/sys/class/net", str(sys))
    script = put(tmp_path, "script", text.replace("/run/kdumpy/steps", str(tmp_path / "steps")))
    for name in ("ip", "vconfig", "udhcpc"):
        put(tmp_path, f"bin/{name}", STUB).chmod(0o755)
    calls = tmp_path / "calls"
    done = subprocess.run(["dash", script], env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "CALLS": str(calls),
                                                 "LEASE": lease}, capture_output=True, text=True, check=True)
    said = calls.read_text()
    assert (sys / "kdbond0/bonding/mode").read_text() == "balance-rr\n"
    assert (sys / "kdbond0/bonding/slaves").read_text() == "+eth2\n"      # each write is one more
    wanted = [r"ip link set eth1 down", r"ip link set eth2 down", r"ip link set kdbond0 up", r"vconfig add kdbond0 7",
              r"ip link set kdbond0\.7 up", r"ip addr add 10\.7\.0\.2/24 dev kdbond0\.7",
              r"ip route replace 10\.7\.0\.9 dev kdbond0\.7", r"ip link set eth0 up", r"udhcpc .*-i eth0"]
    if lease == "1":
        wanted += [r"ip addr add 10\.0\.2\.15/24 dev eth0", r"ip route replace default via 10\.0\.2\.2 dev eth0"]
        assert "no answer to DHCP on eth0" in done.stdout
    else:
        assert "10.0.2.15" not in said
    assert re.search(".*".join(wanted), said, re.S), said
