# SPDX-License-Identifier: Apache-2.0
"""A packet's way through the kernel, put together from what probes saw of it.

Packets are told apart by the address of their sk_buff: it is one packet's from the first sight of
it until it is freed. Copies have ways of their own that name what they were copied from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from kcap.packet import linktype
from kcap.packet.headers import Change, changes, layers
from kcap.packet.summary import summarise
from kcap.records import dataclass, field
from kcap.session.follow_places import JOINING, PASSING, SOCKET, TAP

if TYPE_CHECKING:
    from kcap.packet.decode import Packet
    from kcap.packet.headers import Layer

EndKind = Literal["dropped", "consumed", "socket", "joined", "freed", ""]

#: What the headers are called of which a packet of a protocol has one.
_NAMES: Final = {
    linktype.ETH_P_IP: ("ip", "ip6"), linktype.ETH_P_IPV6: ("ip", "ip6"),
    linktype.ETH_P_ARP: ("arp",),
}  # fmt: skip
#: A drop without a reason of its own.
_NO_REASON: Final = ("", "NOT_SPECIFIED")


class Function(NamedTuple):
    """A kernel function.

    :ivar name: without its module.
    :ivar module: '' for the kernel itself.
    """

    name: str
    module: str


@dataclass(slots=True)
class Step:
    """A packet seen at a function, or copied there.

    :param time_ns: nanoseconds since 1970.
    :param delta_ns: nanoseconds since the packet was first seen.
    :param function: where; what copied it if ``copy`` is set.
    :param copy: the number of the copy that was made, 0 if none was.
    :param interface: skb->dev, '' if it had none.
    :param netns: inode number of the device's network namespace, 0 if not known.
    :param length: skb->len and what stands in front of skb->data, bytes.
    :param changes: what is different from the step before.
    :param stack: the call stack, innermost function first; empty unless asked for.
    """

    time_ns: int
    delta_ns: int
    function: Function
    copy: int = 0
    interface: str = ""
    netns: int = 0
    mark: int = 0
    length: int = 0
    cpu: int = 0
    pid: int = 0
    comm: str = ""
    changes: list[Change] = field(default_factory=list)
    stack: Sequence[str] = ()


class End(NamedTuple):
    """How a packet's way ended.

    :ivar kind: dropped, consumed, socket (handed to one, and freed when it was read), joined (its
        data became another packet's: GRO, reassembly, TCP), freed (without a word); '' while it is
        on its way.
    :ivar reason: the kernel's name of why it was dropped; '' where it has none (before 5.17).
    :ivar place: the function and offset that freed it; for ``socket`` the function that queued it.
    :ivar delta_ns: nanoseconds since the packet was first seen.
    """

    kind: EndKind = ""
    reason: str = ""
    place: str = ""
    delta_ns: int = 0

    def __str__(self) -> str:
        if self.kind == "dropped":
            said = f"dropped: {self.reason or 'this kernel gives no reasons'}"
            return f"{said} at {self.place}" if self.place else said
        if self.kind == "socket":
            return f"handed to a socket by {self.place}"
        if self.kind == "joined":
            return f"joined to another packet at {self.place}"
        if not self.kind:
            return "still on its way"
        return f"{self.kind} at {self.place}" if self.place else self.kind


@dataclass(slots=True)
class Journey:
    """One packet's way.

    :param id: numbers from 1, in the order in which packets were first seen.
    :param skb: the sk_buff's address.
    :param copy_of: the packet that this is a copy of; 0 if it is none.
    :param what: the packet in a few words, by the first sight of a complete header.
    :param complete: that has been.
    :param headers: those that were seen last.
    :param connection: netfilter's entry for the connection, as a layer ``ct``; None if it has none.
    :param news: changes that belong to the next sight, and ``stack`` its call stack.
    :param queued_at: the function that put it into a socket's queue.
    """

    id: int
    skb: int
    time_ns: int
    mono_ns: int
    copy_of: int = 0
    what: str = ""
    steps: list[Step] = field(default_factory=list)
    end: End = End()
    headers: list[Layer] = field(default_factory=list)
    connection: Layer | None = None
    news: list[Change] = field(default_factory=list)
    stack: Sequence[str] = ()
    queued_at: str = ""
    complete: bool = False

    @property
    def sights(self) -> int:
        """At how many functions it was seen."""
        return sum(not step.copy for step in self.steps)


def _is_complete(packet: Packet, found: Sequence[Layer]) -> bool:
    """Whether a packet has its headers: where packets are made it gets them late, IPv4's length
    and the ports of UDP over IPv6 last.

    :param found: the headers that can be read.
    """
    if packet.data[12:14] == b"\x08\x00" and packet.data[16:18] == bytes(2):
        return False
    if any(layer.fields.get("src") == layer.fields.get("dst") == "0" for layer in found):
        return False
    return bool(found) or not packet.made_header


def _readable(packet: Packet) -> list[Layer]:
    """A packet's headers; none where those of its protocol are not found: in the middle of being
    put into a tunnel, it has part of a header in front that no field of the sk_buff tells of."""
    found = layers(packet.link_type, packet.data, made_header=packet.made_header)
    names = _NAMES.get(packet.protocol)
    return found if names is None or any(each.name in names for each in found) else []


class Freed(NamedTuple):
    """A tracepoint or function that ends a packet's way.

    :ivar place: an address in the function that frees it, 0 if not known.
    """

    mono_ns: int
    skb: int
    kind: Literal["dropped", "consumed", "freed"]
    reason: str = ""
    place: int = 0


class Copied(NamedTuple):
    """An sk_buff was copied."""

    mono_ns: int
    skb: int
    new: int


class Tracked(NamedTuple):
    """Netfilter's connection tracking has another entry for a packet, or another state of it.

    :ivar connection: as of :class:`Journey`.
    """

    mono_ns: int
    skb: int
    connection: Layer | None


class Stacked(NamedTuple):
    """The call stack at the next sight of a packet."""

    mono_ns: int
    skb: int
    stack: Sequence[str]


class Tracker:
    """Puts sights together; they have to come in the order of time.

    :param function: the function that an address is in, with the offset there.
    :ivar active: packets on their way, by address.
    """

    def __init__(self, function: Callable[[int], tuple[Function, int]]) -> None:
        self._function = function
        self.active: dict[int, Journey] = {}
        self.count = 0
        self._offset = 0

    def seen(self, packet: Packet) -> None:
        """A packet was seen at a function."""
        self._offset = packet.time_ns - packet.mono_ns
        journey = self._journey(packet.skb, packet.mono_ns)
        if not journey.steps:
            journey.mono_ns, journey.time_ns = packet.mono_ns, packet.time_ns
        if packet.address:
            where = self._function(packet.address)[0]
        else:
            where = Function(packet.function, "")
        found = _readable(packet)
        changed = self._changes(journey, packet, found if journey.complete else []) + journey.news
        if not journey.complete:
            journey.what = summarise(packet.link_type, packet.data, packet.original_length)
            journey.complete = _is_complete(packet, found)
        journey.steps.append(
            Step(
                packet.time_ns, packet.mono_ns - journey.mono_ns, where, 0, packet.interface,
                packet.netns, packet.mark, packet.original_length, packet.cpu, packet.pid,
                packet.comm, changed, journey.stack,
            )
        )  # fmt: skip
        journey.news, journey.stack = [], ()
        if found:
            journey.headers = found
        if journey.queued_at in PASSING and where.name not in PASSING:
            journey.queued_at = ""
        if where.name in SOCKET:
            journey.queued_at = journey.queued_at or where.name

    def tracked(self, event: Tracked) -> None:
        """What connection tracking knows of a packet is new from its next sight on."""
        journey = self._journey(event.skb, event.mono_ns)
        before = [journey.connection] if journey.connection else []
        journey.news += changes(before, [event.connection] if event.connection else [])
        journey.connection = event.connection

    def stacked(self, event: Stacked) -> None:
        """The next sight of a packet has this call stack."""
        self._journey(event.skb, event.mono_ns).stack = event.stack

    def _journey(self, skb: int, mono_ns: int) -> Journey:
        """The way of the packet at an address; a new one if none is on its way there."""
        return self.active.get(skb) or self._begin(skb, mono_ns)

    def _begin(self, skb: int, mono_ns: int, copy_of: int = 0) -> Journey:
        self.count += 1
        journey = Journey(self.count, skb, mono_ns + self._offset, mono_ns, copy_of)
        self.active[skb] = journey
        return journey

    @staticmethod
    def _last(journey: Journey) -> Step | None:
        """The last sight of a packet."""
        return next((step for step in reversed(journey.steps) if not step.copy), None)

    def _changes(self, journey: Journey, packet: Packet, found: list[Layer]) -> list[Change]:
        last = self._last(journey)
        if last is None:
            return []
        made = changes(journey.headers, found) if journey.headers and found else []
        if packet.netns and last.netns and packet.netns != last.netns:
            made.append(Change("netns", str(last.netns), str(packet.netns)))
        if packet.mark != last.mark:
            made.append(Change("mark", f"{last.mark:#x}", f"{packet.mark:#x}"))
        return made

    def copied(self, event: Copied) -> None:
        """A packet was copied: the copy's way begins."""
        journey = self.active.get(event.skb)
        if journey is None:
            return
        copy = self._begin(event.new, event.mono_ns, journey.id)
        copy.what, copy.headers, copy.connection = journey.what, journey.headers, journey.connection
        last = self._last(journey)
        if last is not None and last.function.name == TAP:
            copy.queued_at = TAP
        journey.steps.append(
            Step(
                event.mono_ns + self._offset, event.mono_ns - journey.mono_ns,
                Function("", ""), copy.id,
            )
        )  # fmt: skip

    def freed(self, event: Freed) -> Journey | None:
        """A packet was freed; its way if it was followed."""
        journey = self.active.pop(event.skb, None)
        if journey is None:
            return None
        # A function that frees is told by its entry, a place that a tracepoint tells is within one.
        kind: EndKind = event.kind
        place = self._place(event.place, offset=kind != "freed")
        name = place.partition("+")[0]
        if kind != "dropped" and (journey.queued_at or name.endswith("_recvmsg")):
            kind, place = "socket", journey.queued_at or name
        elif name in JOINING and event.reason in _NO_REASON:
            kind = "joined"
        journey.end = End(kind, event.reason, place, event.mono_ns - journey.mono_ns)
        return journey

    def _place(self, address: int, *, offset: bool) -> str:
        if not address:
            return ""
        function, at = self._function(address)
        name = f"{function.name}+{at}" if offset and at else function.name
        return f"{name} [{function.module}]" if function.module else name

    def rest(self) -> list[Journey]:
        """The packets that are still on their way, in the order of their numbers."""
        return sorted(self.active.values(), key=lambda journey: journey.id)
