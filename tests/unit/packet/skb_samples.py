# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the kernel: sk_buffs in Python, and the BPF program that makes records of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from kcap.functions import skb_record as layout
from kcap.functions.skb_record import SkbState, place

REALTIME_OFFSET = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Device:
    name: str = "veth0"
    ifindex: int = 7
    netns: int = 4026531992
    type: int = layout.ARPHRD_ETHER
    hard_header_len: int = 14


@dataclass(frozen=True)
class Skb:
    """``head`` is the buffer; ``data``, ``mac`` and ``network`` are offsets into it."""

    head: bytes = field(repr=False)
    data: int
    mac: int
    network: int
    protocol: int = 0x0800
    dev: Device | None = field(default_factory=Device)
    vlan: tuple[int, int] | None = None
    mark: int = 0
    skb_iif: int = 0
    queue: int = 0
    sk: bool = False
    address: int = 0xFFFF888012345600

    @property
    def len(self) -> int:
        return len(self.head) - self.data

    def pulled(self, count: int) -> Skb:
        return replace(self, data=self.data + count)


def received(frame: bytes, *, headroom: int = 66, **more: object) -> Skb:
    """An skb as the stack has it at ip_rcv: data behind the MAC header."""
    mac = headroom
    protocol = int.from_bytes(frame[12:14])
    head = b"\xee" * headroom + frame
    skb = Skb(head, mac + 14, mac, mac + 14, protocol)
    return replace(skb, **more)  # type: ignore[arg-type]


def sent(frame: bytes, *, mac: int | None = None, headroom: int = 66, **more: object) -> Skb:
    """An skb as __dev_queue_xmit has it: data at the MAC header, mac_header unset."""
    protocol = int.from_bytes(frame[12:14])
    unset = layout.MAC_UNSET if mac is None else mac
    skb = Skb(b"\xee" * headroom + frame, headroom, unset, headroom + 14, protocol)
    return replace(skb, **more)  # type: ignore[arg-type]


def at_network(packet: bytes, *, headroom: int = 80, **more: object) -> Skb:
    """An skb as ip_output has it: data at the network header, no MAC header."""
    protocol = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    skb = Skb(b"\xee" * headroom + packet, headroom, layout.MAC_UNSET, headroom, protocol)
    return replace(skb, **more)  # type: ignore[arg-type]


def swap(value: int) -> int:
    return (value >> 8) | (value & 0xFF) << 8


def state_of(skb: Skb, offset: int = 0) -> SkbState:
    dev, start = skb.dev, skb.head[skb.data :][:14]
    return SkbState(
        headroom=skb.data,
        mac_header=skb.mac,
        network_header=skb.network,
        dev_valid=dev is not None,
        dev_type=dev.type if dev else 0,
        hard_header_len=dev.hard_header_len if dev else 0,
        vlan=skb.vlan is not None,
        protocol=skb.protocol,
        arg_offset=offset,
        start=start,
    )


def sample(
    skb: Skb,
    *,
    mono_ns: int = 1_000_000_123,
    site: int = 1,
    probe: int = 1,
    func: int = 0,
    length: int = 0xFFFF,
    offset: int = 0,
    cpu: int = 0,
    comm: str = "curl",
    pid: int = 4242,
) -> bytes:
    """What the BPF program sends for this skb, padding included."""
    placed = place(state_of(skb, offset))
    prefix = _prefix(skb, placed)
    assert len(prefix) == placed.prefix_len <= layout.MAX_PREFIX
    wanted = min(length, 0xFFFF) + min(offset, 0xFFFF)
    room = layout.MAX_SAMPLE - layout.PREFIX_OFFSET - len(prefix)
    payload = skb.head[skb.data :][: min(wanted, skb.len, room)]
    dev = skb.dev
    values = {
        "mono_ns": mono_ns,
        "site": site,
        "payload_len": len(payload),
        "prefix_len": len(prefix),
        "flags": placed.flags | (layout.FLAG_HAS_SK if skb.sk else 0),
        "position": placed.position,
        "headroom": min(skb.data, 0xFFFF),
        "skb": skb.address,
        "func": func,
        "probe": probe,
        "skb_len": skb.len,
        "arg_offset": offset,
        "mark": skb.mark,
        "skb_iif": skb.skb_iif,
        "ifindex": dev.ifindex if dev else 0,
        "netns": dev.netns if dev else 0,
        "pid": pid,
        "tid": pid,
        "cpu": cpu,
        "dev_type": dev.type if dev else 0,
        "hard_header_len": dev.hard_header_len if dev else 0,
        "protocol": swap(skb.protocol),
        "vlan_proto": swap(skb.vlan[0]) if skb.vlan else 0,
        "vlan_tci": skb.vlan[1] if skb.vlan else 0x1FFF,
        "queue_mapping": skb.queue,
        "mac_header": skb.mac,
        "network_header": skb.network,
    }
    fixed = bytearray(layout.FIXED_SIZE)
    for name, value in values.items():
        at, size, _ = layout.FIELDS[name]
        fixed[at : at + size] = value.to_bytes(size, "little")
    for name, said in (("comm", comm), ("dev_name", dev.name if dev else "")):
        at, size, _ = layout.FIELDS[name]
        fixed[at : at + size] = said.encode()[:15].ljust(16, b"\0")
    sec, nsec = divmod(mono_ns + REALTIME_OFFSET, 1_000_000_000)
    header = struct.pack("<IIII", sec, nsec, len(prefix) + len(payload), len(prefix) + skb.len)
    whole = bytes(fixed) + header + prefix + payload
    return whole + bytes(-(len(whole) + 4) % 8)


def _prefix(skb: Skb, placed: layout.Placement) -> bytes:
    copied = skb.head[placed.copy_from : placed.copy_from + placed.copy_len]
    tag = b""
    if placed.flags & layout.FLAG_VLAN_IN_PREFIX:
        assert skb.vlan is not None
        tag = struct.pack(">HH", *skb.vlan)
    if placed.made:
        return bytes(12) + tag + skb.protocol.to_bytes(2) + copied
    return copied[:12] + tag + copied[12:]
