# SPDX-License-Identifier: Apache-2.0
"""Reading the records that ``kcap.functions.skb_record`` defines.

Two speeds: :data:`HEAD` unpacks only what copying a packet to a pcap file needs; :func:`unpack`
gives every field, and :class:`PacketDecoder` makes a :class:`Packet` for Python programs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kcap.errors import KcapError
from kcap.functions import skb_record as layout

_FORMATS: Final = {1: "B", 2: "H", 4: "I", 8: "Q", 16: "16s"}
#: mono_ns, site, payload_len, prefix_len, flags, and caplen of the pcap header.
HEAD: Final = struct.Struct(f"<QIIHH{layout.PCAP_HEADER_OFFSET + 8 - 20}xI")
_ALL: Final = struct.Struct(
    "<" + "".join(_FORMATS[field.size] for field in layout.FIELDS.values()) + "IIII"
)
PCAP_HEADER: Final = struct.Struct("<IIII")

Sample = memoryview | bytes


class RecordError(KcapError):
    """A sample that is no skboutput record: too short, or its lengths don't add up."""


class Record(NamedTuple):
    """The fields of one sample, named as in ``skb_record.FIELDS``, then the pcap header's.

    ``protocol`` and ``vlan_proto`` are as the little-endian reader sees the big-endian bytes: use
    :func:`ntohs`. ``comm`` and ``dev_name`` are 16 bytes padded with zeros.
    """

    mono_ns: int
    site: int
    payload_len: int
    prefix_len: int
    flags: int
    position: int
    reserved: int
    headroom: int
    skb: int
    func: int
    probe: int
    skb_len: int
    data_len: int
    arg_offset: int
    mark: int
    skb_iif: int
    ifindex: int
    netns: int
    pid: int
    tid: int
    cpu: int
    dev_type: int
    hard_header_len: int
    protocol: int
    vlan_proto: int
    vlan_tci: int
    queue_mapping: int
    mac_header: int
    network_header: int
    reserved2: int
    comm: bytes
    dev_name: bytes
    sec: int
    nsec: int
    caplen: int
    origlen: int


@dataclass(frozen=True, slots=True)
class Site:
    """One skboutput() call of a script.

    :param id: the number that its records carry.
    :param path: the file it writes to, as the script spells it.
    :param offset: its offset argument, bytes.
    """

    id: int
    path: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in records mean.

    :param probes: probe id -> the attach point as the user would write it ("fentry:ip_rcv").
    :param symbol: kernel address -> function name, for probes that attach to many functions.
    """

    probes: Mapping[int, str]
    symbol: Callable[[int], str] | None = None

    def probe(self, record: Record) -> str:
        """The probe that made this record, with the function where one probe has many."""
        name = self.probes.get(record.probe, f"probe {record.probe}")
        if record.func and self.symbol is not None:
            function = self.symbol(record.func)
            if not name.endswith(function):
                return f"{name} ({function})"
        return name

    def function(self, record: Record) -> str:
        """The probed function's bare name, or "" where the probe names none."""
        if record.func and self.symbol is not None:
            return self.symbol(record.func)
        return self.probes.get(record.probe, "").rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet.

    :param time_ns: nanoseconds since 1970, CLOCK_REALTIME.
    :param mono_ns: the same moment, CLOCK_MONOTONIC, as other events of the trace have it.
    :param link_type: LINKTYPE number that ``data`` starts with (1 Ethernet, 101 raw IP, 147 other).
    :param data: the frame, as it stands in a capture file.
    :param original_length: its length before it was cut, bytes.
    :param direction: "in", "out", or "" when not known.
    :param interface: skb->dev's name, or "" when the skb had no device.
    :param netns: inode number of the network namespace, 0 when not known.
    :param vlan: the tag that was kept outside the data, (protocol, TCI), or None.
    :param made_header: the Ethernet header is not the packet's own.
    :param linear_only: bytes in fragments could not be reached.
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


def ntohs(value: int) -> int:
    """Swap the two bytes of a 16-bit number that was stored in network order."""
    return (value >> 8) | (value & 0xFF) << 8


def text(padded: bytes) -> str:
    """The text before the first zero byte; what is no UTF-8 becomes backslash escapes."""
    return padded.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def unpack(sample: Sample) -> Record:
    """All fields of a sample.

    :raises RecordError: when the sample is shorter than its own lengths say.
    """
    if len(sample) < layout.PREFIX_OFFSET:
        raise RecordError(
            f"packet record of {len(sample)} bytes, at least {layout.PREFIX_OFFSET} expected"
        )
    record = Record._make(_ALL.unpack_from(sample))
    end = layout.PREFIX_OFFSET + record.prefix_len + record.payload_len
    if end > len(sample):
        raise RecordError(f"packet record of {len(sample)} bytes claims to have {end}")
    return record


def direction(record: Record) -> str:
    """Which way the packet went: "in", "out", or "" when the record does not tell.

    skb_iif is set in __netif_receive_skb_core (net/core/dev.c) and scrubbed where a packet changes
    namespaces. Before that, data stand behind the MAC header only on the way in. A packet with no
    skb_iif that belongs to a socket is one that was made here (early demux comes later).
    """
    if record.skb_iif:
        if not record.ifindex:
            return ""
        return "in" if record.skb_iif == record.ifindex else "out"
    if record.position == layout.POSITION_BEHIND_MAC:
        return "in"
    return "out" if record.flags & layout.FLAG_HAS_SK else ""


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
        from kcap.packet.frame import finish

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
            direction=direction(r),
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
        )
