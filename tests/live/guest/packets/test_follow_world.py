# SPDX-License-Identifier: Apache-2.0
"""``kcap follow`` through tunnels, NAT with connection tracking, fragments, GSO and GRO."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from kcap.session.capture import CaptureRequest
from kcap.session.follow import Follow, FollowRequest
from kcap.session.follow_text import as_json
from kcap.session.journey import Journey
from live.guest.packets import all_kinds as world
from support.introduced import number
from support.net import wait_until

IPIP = 100
#: All there is: what the filter of a capture can be is tested elsewhere, and each of the programs
#: that have it takes seconds to compile in an emulated guest.
EXPRESSION = "ip"
STREAM, PORT = bytes(range(256)) * 120, 5555  # more than a segment of 9000 bytes


class Followed:
    """The ways of one exchange of each kind."""

    def __init__(self) -> None:
        self.journeys: list[Journey] = []
        request = FollowRequest(CaptureRequest((), EXPRESSION), stacks=True)
        with Follow(request) as follow:
            thread = threading.Thread(target=lambda: self.journeys.extend(follow.journeys()))
            follow.attach()
            thread.start()
            try:
                self.exchange()
                wait_until(lambda: self.find(f"10.{world.PLAIN}.0.1.", ".4000"))
            finally:
                follow.stop()
                thread.join()
            self.losses = follow.losses

    def exchange(self) -> None:
        send = world.datagram
        send("w-a", "w-b", f"10.{world.VXLAN}.0.2", b"vxlan")
        send("w-a", "w-b", f"10.{world.GRE}.0.2", b"gre")
        send("w-a", "w-b", f"10.{IPIP}.0.2", b"ipip")
        send("w-a", "w-b", f"10.{world.PLAIN}.0.2", bytes(20_001))
        world.stream(STREAM, PORT)
        send("w-c", "w-d", f"10.{world.BRIDGE}.0.4", b"bridge")
        send("w-c", "w-a", f"10.{world.PLAIN}.0.1", b"nat")

    def find(self, *words: str) -> list[Journey]:
        return [each for each in self.journeys if all(word in each.what for word in words)]

    def one(self, *words: str) -> Journey:
        found = [each for each in self.find(*words) if not each.copy_of]
        assert found, "\n".join(f"{each.what}: {each.end}" for each in self.journeys)
        return found[0]


@pytest.fixture(scope="module")
def followed(kernel: str) -> Iterator[Followed]:
    world.set_up()
    for name, own, other in (("w-a", 1, 2), ("w-b", 2, 1)):
        world.run_ip(
            name,
            f"link add ipip1 type ipip local 10.{world.PLAIN}.0.{own} "
            f"remote 10.{world.PLAIN}.0.{other}",
            "link set ipip1 up",
            f"addr add 10.{IPIP}.0.{own}/24 dev ipip1",
        )
    world.offloads(world.VETH, "tso", "off", "gro", "on")
    yield Followed()
    world.tear_down()


def changes(journey: Journey) -> list[str]:
    return [str(change) for step in journey.steps for change in step.changes]


def functions(journey: Journey) -> list[str]:
    return [step.function.name for step in journey.steps]


def came_and_went(journey: Journey, *headers: str) -> bool:
    """Whether headers came, and went again later."""
    said = changes(journey)
    return all(
        any(each.startswith(f"+ {header}") for each in said)
        and any(each.startswith(f"- {header}") for each in said)
        for header in headers
    )


def test_packet_is_followed_into_a_vxlan_tunnel_and_out(followed: Followed) -> None:
    way = followed.one(f"> 10.{world.VXLAN}.0.2.4000")
    assert came_and_went(way, "vxlan vni 42", f"ip 10.{world.PLAIN}.0.1 > 10.{world.PLAIN}.0.2")
    said = changes(way)
    assert not [each for each in said if each.startswith(f"- ip 10.{world.VXLAN}.")], said
    assert not [each for each in said if each.startswith("udp.src 0")], said
    assert way.end.kind == "socket"
    interfaces = [step.interface for step in way.steps if step.interface]
    assert {"vx", "a0", "b0"} <= set(interfaces)


@pytest.mark.parametrize(("net", "headers"), [(world.GRE, ("gre",)), (IPIP, ())])
def test_packet_is_followed_into_ip_tunnels_and_out(
    followed: Followed, net: int, headers: tuple[str, ...]
) -> None:
    way = followed.one(f"> 10.{net}.0.2.4000")
    outer = f"ip 10.{world.PLAIN}.0.1 > 10.{world.PLAIN}.0.2"
    assert came_and_went(way, outer, *headers), changes(way)
    assert way.end.kind == "socket"
    assert sum(each.startswith("netns ") for each in changes(way)) == 1


def test_packet_is_followed_through_a_bridge(followed: Followed) -> None:
    way = followed.one(f"10.{world.BRIDGE}.0.3", f"> 10.{world.BRIDGE}.0.4.4000")
    interfaces = [step.interface for step in way.steps if step.interface]
    assert list(dict.fromkeys(interfaces)) == ["c0", "b1", "b2", "d0"]
    assert sum(each.startswith("netns ") for each in changes(way)) == 2
    assert way.end.kind == "socket"


def test_nat_is_seen_by_connection_tracking_too(followed: Followed) -> None:
    way = followed.one(f"10.{world.BRIDGE}.0.3", f"> 10.{world.PLAIN}.0.1.4000")
    said = changes(way)
    assert f"ip.src 10.{world.BRIDGE}.0.3 -> 10.{world.PLAIN}.0.2" in said
    assert any(each.startswith(f"+ ct new udp 10.{world.BRIDGE}.0.3.") for each in said), said
    replies = [each for each in said if each.startswith("ct.reply ")]
    assert replies
    assert replies[-1].endswith(tuple("0123456789"))
    assert f"> 10.{world.PLAIN}.0.2." in replies[-1]
    assert any("src-nat" in each for each in said if each.startswith("ct.status"))


def test_fragments_are_copies_that_are_joined(followed: Followed, kernel: str) -> None:
    whole = followed.one(f"> 10.{world.PLAIN}.0.2.4000: UDP, length 20001")
    pieces = followed.find(f"> 10.{world.PLAIN}.0.2: fragment at")
    assert len(pieces) >= 2
    assert whole.id in [each.copy_of for each in pieces]
    if number(kernel) >= (6, 4):  # before, nobody says who consumes
        assert "joined" in {each.end.kind for each in pieces}


def test_segments_are_copies_of_the_super_packet(followed: Followed) -> None:
    sent = followed.find(".5555: Flags", f"> 10.{world.PLAIN}.0.2.")
    segments = [each for each in sent if each.copy_of]
    assert segments
    whole = {each.id for each in sent if "__dev_queue_xmit" in functions(each)}
    assert {each.copy_of for each in segments} & whole
    assert {each.end.kind for each in segments} <= {"socket", "joined", "consumed", "freed"}


def test_steps_have_their_call_stacks(followed: Followed) -> None:
    steps = [step for each in followed.journeys for step in each.steps if not step.copy]
    # The kernel keeps stacks by a hash, and refuses one whose place is taken.
    assert sum(not step.stack for step in steps) <= len(steps) // 100
    way = followed.one(f"> 10.{IPIP}.0.2.4000")
    sent = next(step for step in way.steps if step.function.name == "__dev_queue_xmit")
    assert any("ip_finish_output2" in frame for frame in sent.stack), sent.stack


def test_ways_are_json_and_nothing_is_lost(followed: Followed) -> None:
    for each in followed.journeys:
        assert json.loads(json.dumps(as_json(each)))["packet"] == each.id
    assert followed.losses == 0
