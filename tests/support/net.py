# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces joined by a veth pair, and known packets to send through it.

Only for guests: it needs root and changes the network. Everything here works in this process
(setns(2), sockets), since starting programs is what an emulated guest is slow at.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support import PATIENCE, frames

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
VLAN = 100
#: The ports that the kernel may choose from (both included): tshark takes none of them for a
#: protocol's. Of its own range it does, and then finds that protocol's packets malformed.
PORTS = (50_000, 54_000)

#: Every kind of TCP segmentation offload. With them on a veth pair does not go through NAPI.
TSO = (
    "tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
)  # fmt: skip


class End(NamedTuple):
    """One end of the pair: a namespace with an interface.

    :ivar namespace: its name, as ``ip netns`` knows it.
    :ivar device: the interface in it.
    :ivar mac: the interface's hardware address.
    :ivar ipv4: its address (/24); ``ipv6`` the other (/64).
    :ivar vlan_device: the interface for VLAN 100 on top; ``vlan_ipv4`` and ``vlan_ipv6`` are its
        addresses.
    """

    namespace: str
    device: str
    mac: str
    ipv4: str
    ipv6: str
    vlan_device: str
    vlan_ipv4: str
    vlan_ipv6: str

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread be in the namespace while the block runs.

        Sockets made in the block stay there afterwards.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            setns(f"/run/netns/{self.namespace}")
            yield
        finally:
            setns(f"/proc/self/fd/{before}")
            os.close(before)

    def send(self, frame: bytes, *, vlan: bool = False) -> None:
        """Send an Ethernet frame as it is (packet(7))."""
        device = self.vlan_device if vlan else self.device
        with (
            self.entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
        ):
            sender.bind((device, 0))
            sender.send(frame)

    def ifindex(self, *, vlan: bool = False) -> int:
        """Return the interface's number."""
        with self.entered():
            return socket.if_nametoindex(self.vlan_device if vlan else self.device)


def _end(letter: str, number: int) -> End:
    return End(
        f"kcap-{letter}", f"veth-{letter}", f"02:00:00:00:00:0{number}",
        f"10.77.0.{number}", f"fd77::{number}", f"veth-{letter}.{VLAN}",
        f"10.77.{VLAN}.{number}", f"fd77:{VLAN}::{number}",
    )  # fmt: skip


class Network:
    """Both ends, and traffic between them.

    :ivar a: the end that requests come from.
    :ivar b: the end that answers.
    """

    a = _end("a", 1)
    b = _end("b", 2)

    def set_up(self) -> None:
        """Make namespaces, pair, VLAN interfaces and addresses; GRO on and TSO off at both ends."""
        a, b = self.a, self.b
        lines = [
            f"netns add {a.namespace}",
            f"netns add {b.namespace}",
            f"link add {a.device} address {a.mac} netns {a.namespace} type veth "
            f"peer name {b.device} address {b.mac} netns {b.namespace}",
        ]
        _ip(lines)
        for end, other in ((a, b), (b, a)):
            with end.entered():
                choose_harmless_ports()
                features = [word for one in ("tso", *TSO) for word in (one, "off")]
                _run(["ethtool", "-K", end.device, "gro", "on", *features])
                _ip(self._addresses(end, other))

    def _addresses(self, end: End, other: End) -> list[str]:
        """Return what to tell ip in the namespace. Neighbours are fixed: no ARP comes between."""
        lines = ["link set lo up", f"link set {end.device} up"]
        lines.append(f"link add link {end.device} name {end.vlan_device} type vlan id {VLAN}")
        lines.append(f"link set {end.vlan_device} up")
        for device, mine, theirs in (
            (end.device, (end.ipv4, end.ipv6), (other.ipv4, other.ipv6)),
            (end.vlan_device, (end.vlan_ipv4, end.vlan_ipv6), (other.vlan_ipv4, other.vlan_ipv6)),
        ):
            lines.append(f"addr add {mine[0]}/24 dev {device}")
            lines.append(f"addr add {mine[1]}/64 dev {device} nodad")
            lines += [f"neigh replace {one} lladdr {other.mac} dev {device}" for one in theirs]
        return lines

    def tear_down(self) -> None:
        """Remove the namespaces, and with them all that is in them."""
        _ip([f"netns del {self.a.namespace}", f"netns del {self.b.namespace}"])

    def ping(self, payload: bytes = b"kcap", *, sequence: int = 1, vlan: bool = False) -> bytes:
        """Send an ICMP echo request from a to b; return the frame that was sent."""
        addresses = self._pair(4, vlan)
        packet = frames.ipv4(*addresses, frames.ICMP, frames.icmp_echo(payload, sequence=sequence))
        frame = frames.ethernet(self.b.mac, self.a.mac, frames.ETH_P_IP, packet)
        self.a.send(frame, vlan=vlan)
        return frame

    def ping6(self, payload: bytes = b"kcap", *, sequence: int = 1, vlan: bool = False) -> bytes:
        """Send an ICMPv6 echo request from a to b; return the frame that was sent."""
        addresses = self._pair(6, vlan)
        echo = frames.icmpv6_echo(*addresses, payload, sequence=sequence)
        packet = frames.ipv6(*addresses, frames.ICMPV6, echo)
        frame = frames.ethernet(self.b.mac, self.a.mac, frames.ETH_P_IPV6, packet)
        self.a.send(frame, vlan=vlan)
        return frame

    def udp(
        self, payload: bytes, *, port: int = 7777, version: int = 4, vlan: bool = False
    ) -> bytes:
        """Send a datagram from a to a socket of b with the sockets of both; return what came."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        target = self._pair(version, vlan)[1]
        with self.b.entered():
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with self.a.entered():
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((target, port))
            receiver.settimeout(PATIENCE)
            sender.sendto(payload, (target, port))
            return receiver.recv(65536)

    def tcp(
        self, payload: bytes, *, port: int = 7777, version: int = 4, vlan: bool = False
    ) -> bytes:
        """Connect from a to b, send ``payload``, close; return what b got."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        target = self._pair(version, vlan)[1]
        with self.b.entered():
            listener = socket.create_server((target, port), family=family)
        with self.a.entered():
            client = socket.socket(family, socket.SOCK_STREAM)
        with listener, client:
            listener.settimeout(PATIENCE)
            client.settimeout(PATIENCE)
            client.connect((target, port))
            server, _ = listener.accept()
            with server:
                # Small enough for the receive buffer, so one thread can do both sides.
                assert len(payload) <= 60_000
                client.sendall(payload)
                client.shutdown(socket.SHUT_WR)
                received = bytearray()
                while data := server.recv(65536):
                    received += data
        return bytes(received)

    def _pair(self, version: int, vlan: bool) -> tuple[str, str]:
        """Return the addresses of a and b."""
        name = f"{'vlan_' if vlan else ''}ipv{version}"
        return getattr(self.a, name), getattr(self.b, name)


def choose_harmless_ports() -> None:
    """Let sockets and tunnels of this network namespace have :data:`PORTS` only, from now on."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{PORTS[0]} {PORTS[1]}")


def received_packets(end: End) -> int:
    """Return how many packets an end's interface has received so far."""
    with end.entered(), open("/proc/thread-self/net/dev") as file:
        for line in file:
            name, _, counters = line.partition(":")
            if name.strip() == end.device:
                return int(counters.split()[1])
    raise LookupError(end.device)


def wait_until(condition: object, seconds: float = PATIENCE) -> None:
    """Wait until the function ``condition`` returns something true; a guest may be slow."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def setns(path: str) -> None:
    """Be in the network namespace of a file."""
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(descriptor)


def _ip(lines: list[str]) -> None:
    """Let one ip do all of it."""
    _run(["ip", "-batch", "-"], "\n".join(lines))


def _run(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{text or ''}")
