# SPDX-License-Identifier: Apache-2.0
"""Dropped packets: why and where the kernel freed them (``kcap drops``).

The tracepoint skb:kfree_skb is passed for every packet that is freed because something was wrong
with it; those that went their way are freed by consume_skb(). Since Linux 5.17 it has a reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kcap.functions.skb_record import FIRST_NETNS
from kcap.records import dataclass, replace
from kcap.session.capture import Capture, CaptureRequest, generate
from kcap.session.drop_reasons import Reasons
from kcap.session.in_order import InOrder
from kcap.session.iteration import Iteration
from kcap.session.namespaces import NetnsNames

if TYPE_CHECKING:
    from kcap.packet.decode import Packet
    from kcap.probes.system import System
    from kcap.symbols.kernel_source import KernelSource

PLACE = "rawtracepoint:kfree_skb"
#: Bytes from skb->data on that are enough to say what a packet is.
HEADERS = 256
#: How functions are called that stand between a tracepoint and the trace.
_OWN = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "bpf_trampoline_")
#: What is told of a packet comes at most so long after the packet's time, in nanoseconds: the
#: processor may have to handle something else in between.
OVERDUE_NS = 500_000_000
#: Most functions of a call stack.
STACK_DEPTH = 24


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets that were dropped for one reason at one place.

    :param reason: the kernel's name without ``SKB_DROP_REASON_``; '' before 5.17.
    :param place: function and offset that freed them, or the address.
    :param interfaces: names of skb->dev, the most frequent first; behind the name (or number) of
        its network namespace and a ``/`` if that is not this process'.
    :param processes: names of the processes that were current, the most frequent first.
    :param source: as of :class:`DroppedPacket`.
    """

    reason: str
    place: str
    count: int
    interfaces: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    source: str = ""


@dataclass(slots=True)
class DroppedPacket:
    """One packet that was dropped.

    :param packet: its start, and what the probe saw of it.
    :param reason: as of :class:`Drop`.
    :param place: as of :class:`Drop`; '' if it was lost, because the ring of events was full.
    :param stack: the call stack, innermost function first; empty unless asked for, or if it was
        lost with the place.
    :param source: the source line of the place; '' unless asked for, or if it is not known.
    """

    packet: Packet
    reason: str
    place: str = ""
    stack: Sequence[str] = ()
    source: str = ""


class Told(NamedTuple):
    """What is told of a packet that was dropped, beside the packet itself.

    :ivar mono_ns: later than the packet's time, CLOCK_MONOTONIC.
    :ivar skb: the address of the packet's sk_buff.
    """

    mono_ns: int
    skb: int
    place: str
    stack: Sequence[str]
    source: str


class Pairs:
    """Puts packets and what is told of them together, though either may have been lost.

    A sk_buff's address is another packet's soon after it was freed. But the program tells of a
    packet when its ring has taken it, and before it is freed: so what is told is of the youngest
    packet at that address, and a packet that is followed by another there was not told of.
    """

    def __init__(self) -> None:
        self._alone: dict[int, Packet] = {}

    def take(self, event: Packet | Told) -> Iterator[DroppedPacket]:
        """Take an event; they have to come in the order of time.

        Yields packets about which all is known that will be.
        """
        packet = self._alone.pop(event.skb, None)
        if not isinstance(event, Told):
            self._alone[event.skb] = event
            event = Told(0, 0, "", (), "")
        if packet is not None:
            yield DroppedPacket(packet, packet.reason, event.place, event.stack, event.source)

    def overdue(self, mono_ns: int) -> Iterator[DroppedPacket]:
        """Packets of before a time, of which would have been told by now."""
        while self._alone:
            skb, packet = next(iter(self._alone.items()))  # the oldest
            if packet.mono_ns >= mono_ns:
                return
            yield DroppedPacket(self._alone.pop(skb), packet.reason)


class Drops(Capture):
    """A trace of dropped packets. Iterate over it to run it, or over :meth:`packets` to see each;
    :attr:`table` can be read meanwhile.

    :param request: filters, and a path for the packets themselves; its places are not looked at.
    :param each: :meth:`packets` is wanted: packets are told one by one, not only counted.
    :param stacks: with call stacks.
    :param source: with source lines, from the debugging information of the kernel's image.
    :raises UsageError: as :class:`Capture`; there is no debugging information.
    """

    def __init__(
        self,
        request: CaptureRequest,
        *,
        each: bool = False,
        stacks: bool = False,
        source: bool = False,
    ) -> None:
        self._reasons = Reasons()
        self._source = _running_kernels_source() if source else None
        self._lines: dict[int, str] = {}
        #: Names of interfaces of several network namespaces.
        self.netns = NetnsNames()
        self._each, self._stacks = each, stacks
        super().__init__(replace(request, places=(PLACE,)))

    def _script(self, system: System) -> str:
        self._reasons = Reasons.of(system)
        skb = self.points[0].skb
        reason = "(uint64)args.reason" if self._reasons.known else "(uint64)0"
        place = "(uint64)args.location"
        device = '$real ? $device.name : "", $real ? $netns : (uint64)0'
        extra = f"{_device(skb)}@drops[{reason}, {place}, {device}, comm] = count(); "
        request, after = self.request, ""
        if self._each:
            stack, value = (" %s", f", kstack({STACK_DEPTH})") if self._stacks else ("", "")
            said = f"(uint64)nsecs(monotonic), (uint64){skb}, {place}{value}"
            after = f'printf("%d %d %d{stack}\\n", {said}); '
            if not request.path:
                request = replace(request, snaplen=request.snaplen or HEADERS)
        return generate(self.points, request, extra=extra, output=bool(request.path), after=after)

    def _drop_reasons(self, system: System) -> Mapping[int, str]:
        return self._reasons.names

    def packets(self) -> Iteration[DroppedPacket]:
        """Every packet that is dropped, as soon as all is known of it; also for ``async for``."""
        return Iteration(self._dropped(), self.stop, self._reading)

    def _dropped(self) -> Iterator[DroppedPacket]:
        """Packets and what is told of them, which come through rings of their own."""
        from kcap.functions.events import Looked
        from kcap.packet.decode import Packet

        self.trace.tell_looks = True
        happened: InOrder[Packet | Told] = InOrder()
        pairs = Pairs()
        for event in self.trace:
            if isinstance(event, Packet):
                happened.add(event.mono_ns, event)
            elif (told := self._told(event)) is not None:
                happened.add(told.mono_ns, told)
            elif isinstance(event, Looked):
                for one in happened.settled(event.mono_ns):
                    yield from pairs.take(one)
                yield from pairs.overdue(event.mono_ns - OVERDUE_NS)
            else:
                self._messages.append(event)
        for one in happened.rest():
            yield from pairs.take(one)
        yield from pairs.overdue(1 << 63)

    def _told(self, event: object) -> Told | None:
        from kcap.functions.events import Printf

        if not isinstance(event, Printf):
            return None
        mono_ns, skb, place = event.values[:3]
        stack = printed_frames(event.text) if self._stacks else ()
        return Told(mono_ns, skb, self._symbol(place), stack, self._line(place))

    def _symbol(self, address: int) -> str:
        return self.trace.runtime.environment.kernel_symbol(address, offset=True)

    def _line(self, address: int) -> str:
        """The source line that a call returns to; '' if not known."""
        if self._source is None:
            return ""
        if address not in self._lines:
            self._lines[address] = self._source.line(address, called=True)
        return self._lines[address]

    @property
    def table(self) -> list[Drop]:
        """What has been dropped so far, the most frequent first."""
        rows: dict[tuple[str, str, str], dict[tuple[str, str], int]] = {}
        for (reason, location, name, netns, process), count in self.trace.read_map("@drops"):
            key = self._reasons.name(reason), self._symbol(location), self._line(location)
            row, interface = rows.setdefault(key, {}), self.netns.interface(name, netns)
            row[interface, process] = row.get((interface, process), 0) + count
        drops = [
            Drop(reason, place, sum(row.values()), _frequent(row, 0), _frequent(row, 1), source)
            for (reason, place, source), row in rows.items()
        ]
        return sorted(drops, key=lambda drop: (-drop.count, drop.reason, drop.place))

    @property
    def _delivers(self) -> bool:
        return self._each

    @property
    def messages(self) -> Sequence[object]:
        """What else the trace said: losses."""
        return self._messages


def _device(skb: str) -> str:
    """Statements that find the device of an sk_buff: ``$device``, its namespace's number
    ``$netns``, and whether it is one, ``$real``. The field ``dev`` shares its place with others,
    which packets in queues have (rb_node, dev_scratch: include/linux/skbuff.h)."""
    return (
        f"$device = {skb}.dev; $netns = (uint64)$device.nd_net.net.ns.inum; "
        f"$real = $device.ifindex > 0 && $netns >= {FIRST_NETNS:#x}; "
    )


def _running_kernels_source() -> KernelSource:
    from kcap.symbols.kallsyms import Kallsyms
    from kcap.symbols.kernel_source import KernelSource

    kallsyms = Kallsyms.kernel()
    image = os.environ.get("BPFTRACE_VMLINUX", "")
    return KernelSource(image, kallsyms) if image else KernelSource.running(kallsyms)


def printed_frames(text: str) -> list[str]:
    """The functions of a stack behind the first line of a text, without the trace's own."""
    frames = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    own = (index for index, frame in enumerate(frames) if not frame.startswith(_OWN))
    return frames[next(own, 0) :]


def _frequent(row: Mapping[tuple[str, str], int], part: int) -> tuple[str, ...]:
    """One part of the keys, the most frequent first."""
    counts: dict[str, int] = {}
    for key, count in row.items():
        if key[part]:
            counts[key[part]] = counts.get(key[part], 0) + count
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
