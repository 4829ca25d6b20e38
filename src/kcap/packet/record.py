# SPDX-License-Identifier: Apache-2.0
"""Reading the records that ``kcap.functions.skb_record`` defines.

Two speeds: :data:`HEAD` unpacks only what copying a packet to a pcap file needs; :func:`unpack`
gives every field. ``kcap.packet.decode`` makes packets for Python programs of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from kcap.errors import KcapError
from kcap.functions import skb_record as layout
from kcap.records import dataclass, field

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
    skb_len: int
    data_len: int
    func: int
    probe: int
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
    reason: int
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
    :param offset: its offset argument, bytes; any number but 0 if only the BPF program knows it.
    """

    id: int
    path: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in records mean.

    :param probes: probe id -> the attach point as the user would write it ("fentry:ip_rcv").
    :param symbol: kernel address -> function name, for probes that attach to many functions.
    :param reasons: number of a drop reason -> its name, as the kernel spells it.
    """

    probes: Mapping[int, str]
    symbol: Callable[[int], str] | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)

    def reason(self, record: Record) -> str:
        """Why the packet is dropped, as :func:`reason_name` says it."""
        return reason_name(record.reason, self.reasons)

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


def reason_name(number: int, names: Mapping[int, str]) -> str:
    """A drop reason's name without SKB_DROP_REASON_; "" for 0: nobody says why.

    :param names: those that are known, as the kernel spells them.
    """
    if not number:
        return ""
    if number in names:
        return names[number].removeprefix("SKB_DROP_REASON_")
    subsystem = number >> 16  # SKB_DROP_REASON_SUBSYS_SHIFT (include/net/dropreason.h, 6.4)
    return f"subsystem {subsystem} reason {number & 0xFFFF}" if subsystem else f"reason {number}"


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


#: Functions and events that a packet passes on its way in before skb_iif is set, or with that of
#: the device below (bridge, tunnel); and those that it passes on its way out of skb->dev.
_INWARDS: Final = frozenset({
    "napi_gro_receive", "napi_gro_receive_entry", "gro_receive_skb", "dev_gro_receive",
    "netif_rx", "__netif_rx", "netif_rx_internal", "netif_rx_entry", "enqueue_to_backlog",
    "netif_receive_skb", "netif_receive_skb_internal", "netif_receive_skb_core",
    "netif_receive_skb_entry", "netif_receive_skb_list_entry", "__netif_receive_skb",
    "__netif_receive_skb_one_core", "__netif_receive_skb_core",
})  # fmt: skip
_OUTWARDS: Final = frozenset({
    "ip_finish_output", "ip_finish_output2",
    "ip6_finish_output", "ip6_finish_output2", "dev_queue_xmit", "__dev_queue_xmit",
    "net_dev_queue", "validate_xmit_skb", "sch_direct_xmit", "dev_hard_start_xmit",
    "net_dev_start_xmit", "net_dev_xmit",
})  # fmt: skip


def direction(record: Record, function: str = "") -> str:
    """Which way the packet went: "in", "out", or "" when that is not told.

    skb_iif is set in __netif_receive_skb_core (net/core/dev.c) and scrubbed where a packet changes
    namespaces. Before that, data stand behind the MAC header only on the way in. A packet with no
    skb_iif that belongs to a socket is one that was made here (early demux comes later).

    :param function: where it was seen: some see packets of one direction only.
    """
    if function in _INWARDS:
        return "in"
    if function in _OUTWARDS:
        return "out"
    if record.skb_iif:
        if not record.ifindex:
            return ""
        return "in" if record.skb_iif == record.ifindex else "out"
    if record.position == layout.POSITION_BEHIND_MAC:
        return "in"
    return "out" if record.flags & layout.FLAG_HAS_SK else ""
