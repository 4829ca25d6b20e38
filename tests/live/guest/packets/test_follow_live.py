# SPDX-License-Identifier: Apache-2.0
"""``kcap follow``: ways of packets across a veth pair, with NAT and a drop by nftables."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kcap.session.capture import CaptureRequest
from kcap.session.follow import Follow, FollowRequest
from kcap.session.follow_text import TextWays
from kcap.session.journey import Journey
from support import PATIENCE
from support.net import Network, wait_until

#: b sends what comes for port 1111 to 7777, drops what comes for 9999.
RULES = """
table ip kcap_follow {
  chain nat { type nat hook prerouting priority -100; udp dport 1111 redirect to :7777; }
  chain drops { type filter hook input priority 0; udp dport 9999 drop; }
}
"""
EXPRESSION = "icmp or port 7777 or port 1111 or port 9999"


@contextmanager
def nftables(network: Network) -> Iterator[None]:
    enter = ["ip", "netns", "exec", network.b.namespace, "nft"]
    subprocess.run([*enter, "-f", "-"], input=RULES, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*enter, "delete", "table", "ip", "kcap_follow"], check=True)


def send(network: Network, port: int, payload: bytes = b"x") -> None:
    with network.a.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(payload, (network.b.ipv4, port))


class Followed:
    """The ways of everything that is sent in the tests, followed once."""

    def __init__(self, network: Network) -> None:
        self.journeys: list[Journey] = []
        with nftables(network), Follow(FollowRequest(CaptureRequest((), EXPRESSION))) as follow:
            thread = threading.Thread(target=lambda: self.journeys.extend(follow.journeys()))
            follow.attach()
            thread.start()
            try:
                with network.b.entered():
                    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                with raw:  # gets a copy of the ping
                    raw.settimeout(PATIENCE)
                    network.ping(b"follow me")
                    assert raw.recv(100).endswith(b"follow me")
                with network.b.entered():
                    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with receiver:
                    receiver.bind((network.b.ipv4, 7777))
                    receiver.settimeout(PATIENCE)
                    send(network, 1111)
                    assert receiver.recv(10) == b"x"
                send(network, 9999)
                assert network.tcp(b"stream") == b"stream"
                wait_until(lambda: self.find(".9999", "dropped"))
            finally:
                follow.stop()
                thread.join(PATIENCE)
            self.functions, self.losses = follow.functions, follow.losses

    def find(self, what: str, kind: str) -> list[Journey]:
        return [each for each in self.journeys if what in each.what and each.end.kind == kind]

    def one(self, what: str, kind: str) -> Journey:
        found = self.find(what, kind)
        assert found, "\n".join(f"{each.what}: {each.end}" for each in self.journeys)
        return found[0]


@pytest.fixture(scope="module")
def followed(network: Network) -> Followed:
    return Followed(network)


def names(journey: Journey) -> list[str]:
    return [step.function.name for step in journey.steps if not step.copy]


def in_order(journey: Journey, *wanted: str) -> bool:
    rest = iter(names(journey))
    return all(name in rest for name in wanted)


def test_ping_is_followed_from_a_to_icmp(followed: Followed, network: Network) -> None:
    ping = followed.one("echo request", "consumed")
    assert in_order(ping, "dev_hard_start_xmit", "ip_local_deliver", "icmp_rcv"), names(ping)
    assert ping.what.startswith(f"IP {network.a.ipv4} > {network.b.ipv4}: ICMP echo request")
    interfaces = [step.interface for step in ping.steps if not step.copy]
    assert interfaces.index(network.a.device) < interfaces.index(network.b.device)
    crossing = [c for step in ping.steps for c in step.changes if c.field == "netns"]
    assert len(crossing) == 1
    assert crossing[0].before != crossing[0].after
    deltas = [step.delta_ns for step in ping.steps]
    assert deltas == sorted(deltas)
    assert deltas[-1] <= ping.end.delta_ns


def test_drop_has_reason_and_place(followed: Followed, kernel: str) -> None:
    dropped = followed.one(".9999", "dropped")
    assert dropped.end.reason == ("" if kernel == "5.10" else "NETFILTER_DROP")
    assert "nf_hook_slow" in names(dropped)
    assert dropped.end.place.startswith(("nf_hook_slow", "nft_do_chain"))


def test_nat_is_a_difference(followed: Followed) -> None:
    translated = followed.one(".1111", "socket")
    changes = [str(c) for step in translated.steps for c in step.changes if c.field == "udp.dst"]
    assert changes == ["udp.dst 1111 -> 7777"]
    assert translated.end.place == "__udp_enqueue_schedule_skb"
    assert "handed to a socket" in "\n".join(TextWays().lines(translated))


@pytest.mark.needs("module_btf")
def test_modules_are_named(followed: Followed) -> None:
    translated = followed.one(".1111", "socket")
    modules = {step.function.module for step in translated.steps if not step.copy}
    assert {"", "veth", "nf_nat"} <= modules


def test_tcp_data_reach_a_socket(followed: Followed) -> None:
    data = followed.one("length 6", "socket")
    assert data.end.place == "tcp_queue_rcv"


def test_copies_are_followed_to_their_own_end(followed: Followed) -> None:
    copy = followed.one("echo request", "socket")
    original = followed.one("echo request", "consumed")
    assert copy.copy_of == original.id
    assert copy.id in [step.copy for step in original.steps]
    assert in_order(copy, "raw_rcv")
    assert "sock_queue_rcv_skb" in copy.end.place


def test_nothing_is_lost(followed: Followed) -> None:
    assert followed.losses == 0
    assert followed.functions > 100
