# SPDX-License-Identifier: Apache-2.0
"""Packets for Python programs: every record as one object with readable fields."""

from __future__ import annotations

from collections.abc import Sequence

from kcap.functions import skb_record as layout
from kcap.packet.frame import finish
from kcap.packet.record import Names, Sample, Site, direction, ntohs, text, unpack
from kcap.records import dataclass


@dataclass(slots=True)
class Packet:
    """One captured packet.

    :param time_ns: nanoseconds since 1970, CLOCK_REALTIME.
    :param mono_ns: the same moment, CLOCK_MONOTONIC, as other events of the trace have it.
    :param site: the number of the ``skboutput()`` call, in the script's order.
    :param path: the file that the call names.
    :param probe: the probe, as ``probe`` prints it; and the function or event that it is at.
    :param link_type: LINKTYPE number that ``data`` starts with (1 Ethernet, 101 raw IP, 147 other).
    :param data: the frame, as it stands in a capture file.
    :param original_length: its length before it was cut, bytes.
    :param direction: "in", "out", or "" when not known.
    :param interface: skb->dev's name, or "" when the skb had no device; ``ifindex`` is its number.
    :param netns: inode number of the network namespace, 0 when not known.
    :param protocol: skb->protocol, an EtherType.
    :param vlan: the tag that was kept outside the data, (protocol, TCI), or None.
    :param mark: skb->mark; ``queue`` is skb->queue_mapping, ``skb`` its address.
    :param pid: the process that was current, with its thread, name and CPU (``tid``, ``comm``,
        ``cpu``); often not the one that the packet is for.
    :param made_header: the Ethernet header is not the packet's own.
    :param linear_only: bytes in fragments could not be reached.
    :param address: an address in the probed function where a probe has several, else 0.
    :param reason: why the packet is dropped, where the probe is told: the kernel's name without
        ``SKB_DROP_REASON_``; else "".
    """

    time_ns: int
    mono_ns: int
    site: int
    path: str
    probe: str
    function: str
    link_type: int
    data: bytes
    original_length: int
    interface: str
    ifindex: int
    netns: int
    direction: str
    protocol: int
    vlan: tuple[int, int] | None
    mark: int
    queue: int
    skb: int
    pid: int
    tid: int
    comm: str
    cpu: int
    made_header: bool
    linear_only: bool
    address: int = 0
    reason: str = ""

    def __repr__(self) -> str:
        where = " ".join(part for part in (self.function, self.interface, self.direction) if part)
        size = f"{len(self.data)} of {self.original_length} bytes"
        return f"<Packet {where}: {size}, {self.comm}[{self.pid}]>"


class PacketDecoder:
    """Makes :class:`Packet` objects from samples.

    :param sites: the skboutput calls of the script.
    :param names: what probe numbers and addresses are called.
    """

    def __init__(self, sites: Sequence[Site], names: Names) -> None:
        self._paths = {site.id: site.path for site in sites}
        self._names = names

    def decode(self, sample: Sample) -> Packet:
        """One packet; nothing of it refers to ``sample`` afterwards.

        :raises RecordError: for a malformed sample.
        """
        r = unpack(sample)
        function = self._names.function(r)
        frame = finish(sample, r, function)
        tagged = r.flags & layout.FLAG_VLAN_VALID
        return Packet(
            time_ns=r.sec * 1_000_000_000 + r.nsec,
            mono_ns=r.mono_ns,
            site=r.site,
            path=self._paths.get(r.site, ""),
            probe=self._names.probe(r),
            function=function,
            link_type=frame.link_type,
            data=frame.data,
            original_length=frame.original_length,
            interface=text(r.dev_name),
            ifindex=r.ifindex,
            netns=r.netns,
            direction=direction(r, function),
            protocol=ntohs(r.protocol),
            vlan=(ntohs(r.vlan_proto), r.vlan_tci) if tagged else None,
            mark=r.mark,
            queue=r.queue_mapping,
            skb=r.skb,
            pid=r.pid,
            tid=r.tid,
            comm=text(r.comm),
            cpu=r.cpu,
            made_header=bool(r.flags & layout.FLAG_MADE_HEADER),
            linear_only=bool(r.flags & layout.FLAG_LINEAR_ONLY),
            address=r.func,
            reason=self._names.reason(r),
        )
