# SPDX-License-Identifier: Apache-2.0
"""From a record to the frame that a capture file holds: link type, bytes, original length.

Most records are finished by the BPF program. Here is the rest: the offloaded VLAN tag of a packet
whose data start at the MAC header, foreign link-layer headers, positions that no field of the skb
tells, and skboutput's offset argument.

What stands at the start of a frame, by the position of ``skb->data + offset``:

======================================  ==========================================================
MAC header                              Ethernet
network header, an IP packet            raw IP when the offset argument led there, else Ethernet
                                        with a made header (zero addresses)
network header, not IP (ARP, ...)       Ethernet with a made header
elsewhere, offset argument not 0        USER0 (147): no link type describes it
unknown (no header is set in the skb)   Ethernet with a made header of EtherType 0x88b5 (local
                                        experimental): readers show plain data and guess nothing
======================================  ==========================================================
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kcap.functions import skb_record as layout
from kcap.packet import linktype
from kcap.packet.record import Record, Sample, ntohs

_ZERO_ADDRESSES: Final = bytes(12)
#: Functions that are called before any header is set, with data at the MAC header.
_AT_MAC: Final = frozenset({"eth_type_trans"})


class Frame(NamedTuple):
    """A frame as it goes into a file.

    :param link_type: what it starts with (``kcap.packet.linktype``).
    :param data: its bytes.
    :param original_length: its length had nothing been cut.
    """

    link_type: int
    data: bytes
    original_length: int


def finish(sample: Sample, record: Record, function: str = "") -> Frame:
    """The frame of a record.

    :param sample: the sample that ``record`` was unpacked from.
    :param function: name of the probed function, which may tell a position that the skb does not.
    """
    start = layout.PREFIX_OFFSET
    end = start + record.prefix_len + record.payload_len
    if not record.flags & layout.FLAG_FIXUP:
        return Frame(linktype.ETHERNET, bytes(sample[start:end]), record.origlen)
    prefix = bytes(sample[start : start + record.prefix_len])
    payload = bytes(sample[start + record.prefix_len : end])
    at_mac = record.position == layout.POSITION_MAC or (
        record.position == layout.POSITION_UNKNOWN and function in _AT_MAC
    )
    if record.arg_offset:
        return _from_offset(record, prefix, payload, at_mac)
    if at_mac:
        return _splice_vlan(record, payload)
    if record.position == layout.POSITION_UNKNOWN:
        return _made(linktype.ETH_P_EXPERIMENTAL, payload, record.skb_len)
    return _made_prefix(record, prefix, payload)


def convert(frame: Frame, link_type: int) -> Frame | None:
    """The same packet for a file of another link type, or None where that would be a lie.

    :param frame: any frame.
    :param link_type: the file's.
    """
    if frame.link_type == link_type:
        return frame
    if link_type == linktype.ETHERNET:
        if frame.link_type == linktype.RAW:
            return _made(_ip_type(frame.data), frame.data, frame.original_length)
        return _made(linktype.ETH_P_EXPERIMENTAL, frame.data, frame.original_length)
    if link_type == linktype.RAW and frame.link_type == linktype.ETHERNET:
        length, ethertype = ethernet_header(frame.data)
        ip = frame.data[length:]
        if ethertype in (linktype.ETH_P_IP, linktype.ETH_P_IPV6) and ethertype == _ip_type(ip):
            return Frame(linktype.RAW, ip, max(frame.original_length - length, len(ip)))
    return None


def ethernet_header(data: bytes) -> tuple[int, int]:
    """Length of the Ethernet header at the start of ``data``, VLAN tags included, and EtherType.

    (14, 0) when the bytes end before the EtherType.
    """
    at = 12
    while len(data) >= at + 2:
        ethertype = int.from_bytes(data[at : at + 2])
        if ethertype not in linktype.VLAN_TYPES:
            return at + 2, ethertype
        at += 4
    return max(at, 12) + 2, 0


def _made(ethertype: int, data: bytes, original: int) -> Frame:
    header = _ZERO_ADDRESSES + ethertype.to_bytes(2)
    return Frame(linktype.ETHERNET, header + data, len(header) + original)


def _ip_type(data: bytes) -> int:
    """EtherType of an IP packet by its version, experimental for anything else."""
    version = data[0] >> 4 if data else 0
    if version == 4:
        return linktype.ETH_P_IP
    return linktype.ETH_P_IPV6 if version == 6 else linktype.ETH_P_EXPERIMENTAL


def _splice_vlan(record: Record, payload: bytes) -> Frame:
    """Put the tag that was kept outside the data behind the two MAC addresses."""
    if not record.flags & layout.FLAG_VLAN_VALID or len(payload) < 12:
        return Frame(linktype.ETHERNET, payload, record.skb_len)
    tag = ntohs(record.vlan_proto).to_bytes(2) + record.vlan_tci.to_bytes(2)
    data = payload[:12] + tag + payload[12:]
    return Frame(linktype.ETHERNET, data, record.skb_len + 4)


def _made_prefix(record: Record, prefix: bytes, payload: bytes) -> Frame:
    """A made header whose EtherType the BPF program had none for, or with bytes to leave out."""
    cut = 0
    if record.position == layout.POSITION_LINK:
        cut = max(record.network_header - record.headroom, 0)
    rest = max(record.skb_len - cut, 0)
    cut_off, payload = payload[:cut], payload[cut:]
    at = 16 if record.flags & layout.FLAG_VLAN_IN_PREFIX else 12
    protocol = ethertype = ntohs(record.protocol)
    if protocol in linktype.VLAN_TYPES and len(cut_off) == cut >= 2:
        ethertype = int.from_bytes(cut_off[-2:])  # the tag is left out, too
    elif protocol < layout.ETH_P_802_3_MIN:
        ethertype = _type_for(record, prefix[at + 2 :] + payload, len(prefix) - at - 2 + rest)
    prefix = prefix[:at] + ethertype.to_bytes(2) + prefix[at + 2 :]
    return Frame(linktype.ETHERNET, prefix + payload, len(prefix) + rest)


def _type_for(record: Record, data: bytes, original: int) -> int:
    """The type field for a made header where skb->protocol is no EtherType.

    ETH_P_802_2 stands for 802.3 with LLC, whose type field is the length; 0 for "not set".
    """
    if ntohs(record.protocol) == linktype.ETH_P_802_2 and original <= 1500:
        return original
    return _ip_type(data)


def _from_offset(record: Record, prefix: bytes, payload: bytes, at_mac: bool) -> Frame:
    """What the offset argument leads to: raw IP, Ethernet or an undescribed position."""
    offset = record.arg_offset
    data = payload[offset:]
    original = max(record.skb_len - offset, 0)
    if offset == _network_behind_data(record, prefix, payload, at_mac):
        if _ip_type(data) != linktype.ETH_P_EXPERIMENTAL:
            return Frame(linktype.RAW, data, original)
        protocol = ntohs(record.protocol)
        if protocol >= layout.ETH_P_802_3_MIN:
            return _made(protocol, data, original)
    if record.mac_header not in (0, layout.MAC_UNSET):  # noqa: SIM102
        if record.headroom + offset == record.mac_header:
            return Frame(linktype.ETHERNET, data, original)
    return Frame(linktype.USER0, data, original)


def _network_behind_data(record: Record, prefix: bytes, payload: bytes, at_mac: bool) -> int | None:
    """How many bytes behind skb->data the network header stands, None when unknown."""
    if at_mac:
        return ethernet_header(payload)[0]
    if record.position == layout.POSITION_BEHIND_MAC:
        return ethernet_header(prefix + payload)[0] - len(prefix)
    if record.position in (layout.POSITION_NETWORK, layout.POSITION_LINK):
        # A network_header of 0 means "at data": rule F of the algorithm.
        return record.network_header - record.headroom if record.network_header else 0
    return None
