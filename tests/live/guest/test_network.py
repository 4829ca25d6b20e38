# SPDX-License-Identifier: Apache-2.0
"""The network that other live tests send their packets through carries them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from support import PATIENCE, frames
from support.net import received_packets, wait_until

if TYPE_CHECKING:
    from support.net import Network


def arrived(network: Network) -> socket.socket:
    """Return a socket that sees what arrives at b."""
    with network.b.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((network.b.device, 3))
    tap.settimeout(PATIENCE)
    return tap


def seen(tap: socket.socket, frame: bytes) -> bool:
    """Say whether ``frame`` is the next thing that arrives which begins like it."""
    while True:
        data, address = tap.recvfrom(65536)
        if address[2] != socket.PACKET_OUTGOING and data[:24] == frame[:24]:
            return data == frame


def test_a_ping_arrives_byte_for_byte(network: Network) -> None:
    with arrived(network) as tap:
        assert seen(tap, network.ping(b"0123456789"))


def test_an_ipv6_ping_arrives_byte_for_byte(network: Network) -> None:
    with arrived(network) as tap:
        assert seen(tap, network.ping6(b"0123456789"))


def test_b_answers_a_ping(network: Network) -> None:
    before = received_packets(network.a)
    network.ping()
    wait_until(lambda: received_packets(network.a) > before)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlan", [False, True], ids=["plain", "vlan"])
def test_udp_and_tcp_pass(network: Network, version: int, vlan: bool) -> None:
    assert network.udp(b"datagram", version=version, vlan=vlan) == b"datagram"
    assert network.tcp(b"stream" * 1000, version=version, vlan=vlan) == b"stream" * 1000


def test_checksums_are_those_of_the_kernel(network: Network) -> None:
    payload = frames.udp(network.a.ipv4, network.b.ipv4, (1234, 4321), b"checked by the kernel")
    packet = frames.ipv4(network.a.ipv4, network.b.ipv4, frames.UDP, payload)
    frame = frames.ethernet(network.b.mac, network.a.mac, frames.ETH_P_IP, packet)
    with network.b.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind((network.b.ipv4, 4321))
        receiver.settimeout(PATIENCE)
        network.a.send(frame)
        assert receiver.recv(100) == b"checked by the kernel"
