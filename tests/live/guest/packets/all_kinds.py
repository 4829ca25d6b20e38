# SPDX-License-Identifier: Apache-2.0
"""Four namespaces with every kind of link between them that packets of one machine can pass.

a and b are joined by a veth pair with jumbo frames, and on top of it by VLAN, VLAN in VLAN, VXLAN
and GRE; c and d hang on a bridge in b, which lets c out to a by NAT; a has a tun device.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from support import PATIENCE, frames
from support.net import choose_harmless_ports, setns

NAMES = ("w-a", "w-b", "w-c", "w-d")
#: What the devices on top of a's and b's link are in: 10.N.0.1 at a, 10.N.0.2 at b.
PLAIN, TAGGED, STACKED, VXLAN, GRE, BRIDGE, TUN = range(90, 97)
VLAN_DEVICES = ("vlan", "outer", "inner")
#: Where the veth pairs have their ends.
VETH = {"a0": "w-a", "b0": "w-b", "b1": "w-b", "b2": "w-b", "c0": "w-c", "d0": "w-d"}


def set_up() -> None:
    """Make all of it."""
    run_ip(
        "",
        *(f"netns add {name}" for name in NAMES),
        "link add a0 address 02:00:00:00:90:01 netns w-a type veth "
        "peer name b0 address 02:00:00:00:90:02 netns w-b",
    )
    for name in NAMES:
        # Elsewhere no IPv6: what the kernel sends by itself would go through the tunnels, too.
        with entered(name):
            choose_harmless_ports()
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    run_ip(
        "",
        "link add c0 netns w-c type veth peer name b1 netns w-b",
        "link add d0 netns w-d type veth peer name b2 netns w-b",
    )
    for name, device, own, other in (("w-a", "a0", 1, 2), ("w-b", "b0", 2, 1)):
        run_ip(
            name,
            "link set lo up",
            f"link set {device} mtu 9000 up",
            f"addr add 10.{PLAIN}.0.{own}/24 dev {device}",
            f"addr add fd90::{own}/64 dev {device} nodad",
            f"link add link {device} name vlan type vlan id 5",
            f"link add link {device} name outer type vlan proto 802.1ad id 6",
            "link set outer up",
            "link add link outer name inner type vlan id 7",
            # (an address that begins as an IP packet does)
            f"link add vx address 46:00:00:00:93:0{own} type vxlan id 42 "
            f"local 10.{PLAIN}.0.{own} remote 10.{PLAIN}.0.{other} dstport 4789 dev {device}",
            f"link add gre1 type gre local 10.{PLAIN}.0.{own} remote 10.{PLAIN}.0.{other}",
            *(
                line
                for dev, net in (("vlan", TAGGED), ("inner", STACKED), ("vx", VXLAN), ("gre1", GRE))
                for line in (f"link set {dev} up", f"addr add 10.{net}.0.{own}/24 dev {dev}")
            ),
        )
    run_ip(
        "w-b",
        # A bridge that snoops joins 224.0.0.106 after some seconds: IGMP that nobody sent.
        "link add br0 type bridge mcast_snooping 0",
        "link set b1 master br0 up",
        "link set b2 master br0 up",
        "link set br0 up",
        f"addr add 10.{BRIDGE}.0.1/24 dev br0",
    )
    for name, device, own in (("w-c", "c0", 3), ("w-d", "d0", 4)):
        run_ip(
            name,
            "link set lo up",
            f"link set {device} up",
            f"addr add 10.{BRIDGE}.0.{own}/24 dev {device}",
            f"route add default via 10.{BRIDGE}.0.1",
        )
    with entered("w-b"):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        rules = (
            "table ip kcap {\n chain out {\n type nat hook postrouting priority 100\n"
            f'ip saddr 10.{BRIDGE}.0.0/24 oifname "b0" masquerade\n}}\n}}\n'
        )
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    for name, device, own in (("w-a", "a0", 1), ("w-b", "b0", 2)):
        # Nothing gets lost; on a busy machine TCP would take what is late for lost, and repeat it.
        with entered(name):
            Path("/proc/sys/net/ipv4/tcp_early_retrans").write_text("0")
        run_ip(
            name,
            f"route change 10.{PLAIN}.0.0/24 dev {device} proto kernel scope link "
            f"src 10.{PLAIN}.0.{own} rto_min 60s",
        )
    for name in NAMES:
        # Nor is a neighbour asked once more whether it is there.
        with entered(name):
            for file in Path("/proc/sys/net/ipv4/neigh").glob("*/delay_first_probe_time"):
                file.write_text("600")


def tear_down() -> None:
    """Remove the namespaces, and all with them."""
    run_ip("", *(f"netns del {name}" for name in NAMES))


def offloads(devices: Iterable[str], *words: str) -> None:
    """Set offloads of some of the veth devices, as ethtool -K takes them."""
    for device in devices:
        with entered(VETH[device]):
            subprocess.run(["ethtool", "-K", device, *words], check=True, capture_output=True)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """Be in a namespace while the block runs."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        setns(f"/run/netns/{name}")
        yield
    finally:
        setns(f"/proc/self/fd/{before}")
        os.close(before)


def run_ip(name: str, *lines: str) -> None:
    where = ["-n", name] if name else []
    done = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


# --- traffic ---


def datagram(
    source: str, target: str, address: str, data: bytes, options: dict[int, bytes] | None = None
) -> None:
    """Send a UDP datagram from one namespace to a socket in another, and an answer back.

    :param options: IPv6 extension headers, by socket option.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with entered(target):
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with entered(source):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((address, 4000))
        for one in (receiver, sender):
            one.settimeout(PATIENCE)
        for option, value in (options or {}).items():
            sender.setsockopt(socket.IPPROTO_IPV6, option, value)
        sender.sendto(data, (address, 4000))
        got, back = receiver.recvfrom(1 << 16)
        assert got == data
        receiver.sendto(data[:32], back)
        assert sender.recv(1 << 16) == data[:32]


def stream(data: bytes, port: int) -> None:
    """Send a TCP stream from a to b."""
    address = (f"10.{PLAIN}.0.2", port)
    with entered("w-b"):
        listener = socket.create_server(address)
    with entered("w-a"):
        client = socket.socket()
    with listener, client:
        client.settimeout(PATIENCE)
        listener.settimeout(PATIENCE)
        client.connect(address)
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            received = bytearray()
            left = memoryview(data)
            client.setblocking(False)
            while len(received) < len(data):
                readable, writable, _ = select.select(
                    [server], [client] if left else [], [], PATIENCE
                )
                if writable:
                    left = left[client.send(left) :]
                if readable:
                    received += server.recv(1 << 18)
            assert bytes(received) == data


class TunDevice:
    """A tun device in a: what is written to it is received as an IP packet."""

    own, peer = f"10.{TUN}.0.1", f"10.{TUN}.0.2"

    def __init__(self) -> None:
        subprocess.run(["modprobe", "tun"], check=True)
        with entered("w-a"):
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            # IFF_TUN, IFF_NO_PI; TUNSETIFF.
            fcntl.ioctl(self.fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x0001 | 0x1000))
        run_ip("w-a", "link set tun0 up", f"addr add {self.own}/24 dev tun0")

    def echo(self, data: bytes) -> None:
        """Write a datagram for a socket in a, which sends the same back."""
        with entered("w-a"):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver:
            receiver.settimeout(PATIENCE)
            receiver.bind((self.own, 4000))
            datagram_ = frames.udp(self.peer, self.own, (4001, 4000), data)
            os.write(self.fd, frames.ipv4(self.peer, self.own, frames.UDP, datagram_))
            got, back = receiver.recvfrom(1 << 16)
            assert got == data
            receiver.sendto(data, back)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            select.select([self.fd], [], [], 1)
            with contextlib.suppress(BlockingIOError):
                if data in os.read(self.fd, 1 << 16):
                    return
        raise TimeoutError("no answer by the tun device")

    def close(self) -> None:
        """Remove the device."""
        os.close(self.fd)
