# SPDX-License-Identifier: Apache-2.0
"""The record that ``skboutput()`` sends: layout, and what the BPF program must do, step by step.

This module is the contract between the code generator, which emits the BPF program, and
``kcap.packet``, which reads the records. It imports nothing from either.

Layout of one perf sample (little endian, every number naturally aligned)::

    0                fixed part, FIELDS below                                 FIXED_SIZE bytes
    FIXED_SIZE       pcap record header: u32 sec, u32 nsec, u32 caplen, u32 origlen   16 bytes
    PREFIX_OFFSET    link-layer prefix                               prefix_len (0..MAX_PREFIX)
    PREFIX_OFFSET + prefix_len   payload from skb->data                  payload_len bytes
    ...              zeros up to a multiple of 8 (perf pads raw_size: never trust it)

From the pcap header to the end of the payload stand the very bytes of a nanosecond pcap record, so
for most packets user space only copies. A record with FLAG_FIXUP needs a finishing touch there.

The algorithm of the BPF program
================================

All of it is plain field access; a field that BTF lacks reads as 0. ``be16`` fields are stored as
they stand in memory (network order); FIELDS says which. Signed arithmetic, 64 bits, throughout.
``place()`` below is this algorithm, executable: when text and code differ, the code is right.

0.  Scratch memory. The metadata (at most METADATA_MAX bytes) are built in a per-CPU map value. From
    5.12 on the kernel does not run a program again on a CPU where it is running, so an area of its
    own for each loaded program is enough there; two programs must not share one, for a softirq may
    run the second in the middle of the first. Areas keep stale bytes: write EVERY field.
1.  Time first: mono = bpf_ktime_get_ns(); real = mono + realtime_offset, a global (u64, in a
    mmapable array map) that user space sets before attaching and keeps right afterwards
    (packet/clock.py): NTP slews CLOCK_MONOTONIC and CLOCK_REALTIME alike, so that their difference
    changes only when somebody sets the clock, in a leap second, and over a suspend; each is seen
    at the next tick. (bpf_ktime_get_tai_ns would need less care, but is there from 6.1 only.)
    pcap sec = real / 10**9, nsec = real % 10**9 (unsigned).
2.  skb fields: head, data, len, data_len, mac_header, network_header, protocol, mark, skb_iif,
    queue_mapping, sk, vlan_tci, vlan_proto, dev.
        H  = data - head                  (give up on placing, POSITION_UNKNOWN, unless <= 65535)
        M  = mac_header,     m_set = M != 0xffff
        N  = network_header, n_set = N != 0 and N != 0xffff  (never set yet is 0)
        m_set = 0 if M == 0 and not n_set                    (zeroed, not set)
        pm = H - M, pn = H - N            (how far data lies behind either header; may be < 0)
3.  Device. skb->dev shares its place with rb_node.rb_left and with UDP's dev_scratch (since 4.13),
    so it may be NULL or rubbish. Read ifindex, type, hard_header_len and nd_net.net->ns.inum
    through bpf_probe_read_kernel (or BTF loads, which read 0 on a fault).
    dev_valid = dev != NULL and reads succeeded and ifindex >= 1 and inum >= 0xeffffff0 (first
    number a network namespace can have: 0xf0000000 up to 6.17, 0xeffffff9 for the initial one from
    6.18). If not dev_valid: ifindex = netns = dev_type = hard_header_len = 0, name all zeros;
    dev->name: one 16-byte bpf_probe_read_kernel (some tens of ns; kept in the record because the
    interface may be gone or be called something else when the record is read).
        eth = not dev_valid or dev_type == 1 (ARPHRD_ETHER) or dev_type == 772 (ARPHRD_LOOPBACK)
4.  VLAN tag outside the data:
        BTF has vlan_all (6.2 and later):  v = vlan_all != 0
        BTF has the bit vlan_present:      v = that bit      (5.0 to 6.1; a stale vlan_tci stays)
        neither (before 5.0):              v = vlan_tci & 0x1000
5.  Where data is. The first rule that holds decides. H, pn before pm: on the way out mac_header is
    unset or left over from the way in, while network_header is right in every row of the table in
    docs/architecture.md; on the way in, before the stack has set it, it is 0.
        A  eth, n_set, pn == -14, or -128 <= pn < -14 and a tag (VLAN, MACsec) at data + 12, or
           (hard_header_len >= 14 and pn == -hard_header_len)
              -> POSITION_MAC. (__dev_queue_xmit, dev_hard_start_xmit, eth_type_trans on veth; with
              tags in the data. With no tag there it is a tunnel's header in front of the inner
              frame, as in udp_tunnel_xmit_skb for VXLAN: go on to E.)
        B  eth, m_set, 14 <= pm <= 128, and one of: not n_set; pn < 0 (GRO has moved
           network_header on); N - M in (14, 18, 22); N - M < -14 (decapsulated: N is the stale
           one; M within an IP header is where ESP and AH will put their number)
              -> POSITION_BEHIND_MAC. (ip_rcv, icmp_rcv; with N - M anything else the MAC header
              is one of a tunnel's outer packet, left over: go on to D.)
        G  eth, m_set, pm == 0, n_set, pn > 0, protocol is IPv4 or IPv6, and so is the first byte,
           and at data + 12 there is no EtherType
              -> POSITION_NETWORK with N := H, pn := 0. (ip_tunnel_rcv: a tunnel's header was
              taken off, mac_header put where the inner packet starts, and N is the outer one.
              In eth_type_trans on VXLAN a frame is there, its MAC address begins with anything,
              and protocol is the outer packet's.)
        C  eth, m_set, pm == 0, and (not n_set or pn != 0)
              -> POSITION_MAC.
        D  n_set, 0 <= pn <= MAX_BETWEEN
              -> POSITION_NETWORK. (ip_output, tun, tunnels.)
        E  n_set, -128 <= pn < 0
              -> POSITION_LINK: some other link-layer header stands at data, cut = -pn.
        F  not eth, m_set, pm == 0, not n_set, hard_header_len == 0
              -> POSITION_NETWORK with N := H, pn := 0.
        U  POSITION_UNKNOWN. (Netlink and unix sockets' skbs, TCP's before it has built a header.)
6.  Prefix, at PREFIX_OFFSET, each part read with bpf_probe_read_kernel:
        MAC          nothing.
        BEHIND_MAC   not v: pm bytes from head + M.
                     v: 12 bytes from head + M; then the tag: vlan_proto (as stored), vlan_tci with
                     its bytes swapped (bswap16); then pm - 12 bytes from head + M + 12.
                     FLAG_VLAN_IN_PREFIX. prefix_len = pm + 4.
        NETWORK      12 zeros; with v the tag as above and FLAG_VLAN_IN_PREFIX; protocol (as
                     stored); then pn bytes from head + N. FLAG_MADE_HEADER.
                     prefix_len = 14 (+ 4) + pn.
        LINK         as NETWORK with pn taken as 0. FLAG_MADE_HEADER.
        UNKNOWN      nothing.
    A read that fails: bpf_probe_read_kernel has zeroed the bytes; carry on.
7.  Length. want = length argument; the language says "from offset to offset + length", so
    want += offset argument (saturating; both unsigned, clamp each to 0xffff first).
        payload_len = min(want, skb->len, MAX_SAMPLE - PREFIX_OFFSET - prefix_len)
    Not clamping to skb->len makes the helper return -EFAULT; passing MAX_SAMPLE loses the event
    or corrupts the ring. For the verifier: the mask or compare must stand on the very register
    that goes to the helper.
8.  pcap header: caplen = prefix_len + payload_len, origlen = prefix_len + skb->len.
9.  flags: FLAG_FIXUP when any of: POSITION_MAC and v; POSITION_LINK; POSITION_UNKNOWN; offset
    argument != 0; FLAG_MADE_HEADER and bswap16(protocol) < 0x600.
10. Send. fentry, fexit, tp_btf: bpf_skb_output(skb, map, BPF_F_CURRENT_CPU | payload_len << 32,
    metadata, PREFIX_OFFSET + prefix_len). Others: data_len bytes in fragments are out of reach:
    payload_len = min(payload_len, len - data_len, what the scratch value holds; a per-CPU array's
    value is at most 32,768 bytes), bpf_probe_read_kernel(payload_len, data) behind the prefix,
    FLAG_LINEAR_ONLY, bpf_perf_event_output with BPF_F_CURRENT_CPU and the whole size.
11. The helper's result is skboutput()'s. Not 0: add 1 to this site's counter of losses (-ENOSPC is
    a full ring; PERF_RECORD_LOST tells of it only when a later record fits), and, for a pcapng
    file, to the counter of its interface: LOST_KEY.

Sources: include/linux/skbuff.h, net/core/dev.c, net/ethernet/eth.c, net/core/filter.c
(bpf_skb_event_output), kernel/events/core.c (perf_output_sample), measurements on 5.10, 6.1, 6.12
and 7.2 (docs/architecture.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Field(NamedTuple):
    """One field of the fixed part.

    :param offset: from the start of the sample, bytes.
    :param size: bytes; 1, 2, 4, 8 are unsigned numbers, 16 is text padded with zeros.
    :param meaning: what it holds.
    """

    offset: int
    size: int
    meaning: str


#: The fixed part. What the fast reader needs stands first; from "func" on, most packets of one
#: probe and device have the same bytes, which the reader makes use of.
FIELDS: Final[dict[str, Field]] = {
    "mono_ns": Field(0, 8, "bpf_ktime_get_ns(): CLOCK_MONOTONIC, the key for merging CPUs"),
    "site": Field(8, 4, "which skboutput() call of the script"),
    "payload_len": Field(12, 4, "bytes captured from skb->data on, without padding"),
    "prefix_len": Field(16, 2, "bytes of link-layer prefix"),
    "flags": Field(18, 2, "FLAG_*"),
    "position": Field(20, 1, "POSITION_*: where skb->data points"),
    "reserved": Field(21, 1, "0"),
    "headroom": Field(22, 2, "skb->data - skb->head, 0xffff when larger"),
    "skb": Field(24, 8, "address of the sk_buff"),
    "skb_len": Field(32, 4, "skb->len"),
    "data_len": Field(36, 4, "skb->data_len: bytes in fragments"),
    "func": Field(40, 8, "address in the probed function if the probe has several, else 0"),
    "probe": Field(48, 4, "which probe of the script (attach point)"),
    "arg_offset": Field(52, 4, "the offset argument of skboutput()"),
    "mark": Field(56, 4, "skb->mark"),
    "skb_iif": Field(60, 4, "skb->skb_iif: the interface it came in by, 0 before or if local"),
    "ifindex": Field(64, 4, "skb->dev->ifindex, 0 without a valid device"),
    "netns": Field(68, 4, "skb->dev->nd_net.net->ns.inum, 0 without a valid device"),
    "pid": Field(72, 4, "tgid: high half of bpf_get_current_pid_tgid()"),
    "tid": Field(76, 4, "low half of bpf_get_current_pid_tgid()"),
    "cpu": Field(80, 4, "bpf_get_smp_processor_id()"),
    "dev_type": Field(84, 2, "skb->dev->type, ARPHRD_*"),
    "hard_header_len": Field(86, 2, "skb->dev->hard_header_len"),
    "protocol": Field(88, 2, "skb->protocol, be16"),
    "vlan_proto": Field(90, 2, "skb->vlan_proto, be16"),
    "vlan_tci": Field(92, 2, "skb->vlan_tci, host order; meaningful with FLAG_VLAN_VALID"),
    "queue_mapping": Field(94, 2, "skb->queue_mapping"),
    "mac_header": Field(96, 2, "skb->mac_header as it stands (0xffff: unset)"),
    "network_header": Field(98, 2, "skb->network_header as it stands (0: unset)"),
    "reason": Field(100, 4, "why the packet is dropped, an enum skb_drop_reason; 0 if unknown"),
    "comm": Field(104, 16, "bpf_get_current_comm()"),
    "dev_name": Field(120, 16, "skb->dev->name, zeros without a valid device"),
}

FIXED_SIZE: Final = 136
PCAP_HEADER_OFFSET: Final = FIXED_SIZE
PCAP_HEADER_SIZE: Final = 16
PREFIX_OFFSET: Final = FIXED_SIZE + PCAP_HEADER_SIZE

#: Most bytes that may stand between the MAC header and skb->data, and the longest prefix (+ a tag).
MAX_BEHIND_MAC: Final = 128
MAX_PREFIX: Final = MAX_BEHIND_MAC + 4
#: Most bytes between the network header and skb->data behind a made header and a tag.
MAX_BETWEEN: Final = MAX_PREFIX - 18
METADATA_MAX: Final = PREFIX_OFFSET + MAX_PREFIX
#: Most bytes of metadata and payload in one sample: one more, and the event vanishes.
MAX_SAMPLE: Final = 65516

FLAG_VLAN_VALID: Final = 1  # vlan_proto and vlan_tci are a tag that is not in the data
FLAG_VLAN_IN_PREFIX: Final = 2  # and the BPF program has put it into the prefix
FLAG_FIXUP: Final = 4  # user space must finish the frame; without it, it only copies
FLAG_LINEAR_ONLY: Final = 8  # copied with bpf_probe_read_kernel: fragments are missing
FLAG_DEV_VALID: Final = 16  # skb->dev was a device
FLAG_HAS_SK: Final = 32  # skb->sk != NULL
FLAG_MADE_HEADER: Final = 64  # the Ethernet header in the prefix is made, its addresses are zero

POSITION_UNKNOWN: Final = 0
POSITION_MAC: Final = 1  # data at the MAC header
POSITION_BEHIND_MAC: Final = 2  # data behind a MAC header, which is in the prefix
POSITION_NETWORK: Final = 3  # data at or behind the network header; no MAC header
POSITION_LINK: Final = 4  # a link-layer header unlike Ethernet at data; network header behind it

MAC_UNSET: Final = 0xFFFF
#: The least number of a network namespace: see step 3.
FIRST_NETNS: Final = 0xEFFFFFF0
ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772
ETH_HLEN: Final = 14
ETH_P_802_3_MIN: Final = 0x0600
VLAN_TYPES: Final = (0x8100, 0x88A8, 0x9100)
#: EtherTypes behind which the one of the packet comes; the last is MACsec's.
TAG_TYPES: Final = (*VLAN_TYPES, 0x88E5)
#: EtherTypes by which a frame is told from an IP packet: IPv4, IPv6, ARP, tags. IPv4 packets from
#: 8.0.0.0/16, 8.6.0.0/16, 129.0.0.0/16 and the like are taken for frames where there is a doubt.
FRAME_TYPES: Final = (0x0800, 0x86DD, 0x0806, *TAG_TYPES)
#: IP's version by EtherType.
IP_VERSIONS: Final = {0x0800: 4, 0x86DD: 6}
#: Lengths of an Ethernet header with no tag, one and two tags in the data.
MAC_LENGTHS: Final = (14, 18, 22)


#: Fields of a record that are, in this order, the key of the map that counts losses by interface.
LOST_KEY: Final = ("site", "dev_type", "hard_header_len", "ifindex", "netns", "dev_name")


def is_pcapng(path: str) -> bool:
    """Whether a capture file is a pcapng: its name ends so."""
    return path.lower().endswith(".pcapng")


class SkbState(NamedTuple):
    """The fields of a sk_buff and its device that decide where its data stand (rule 5).

    ``headroom`` is data - head; ``protocol`` is in host order here; ``dev_type`` and
    ``hard_header_len`` are 0 without a valid device; ``start`` are the bytes at data, 14 if there
    are as many.
    """

    headroom: int
    mac_header: int
    network_header: int
    dev_valid: bool = True
    dev_type: int = ARPHRD_ETHER
    hard_header_len: int = ETH_HLEN
    vlan: bool = False
    protocol: int = 0x0800
    arg_offset: int = 0
    start: bytes = b""


class Placement(NamedTuple):
    """What rule 5 and rule 6 decide.

    :param position: POSITION_*.
    :param copy_from: offset from skb->head of the bytes that the prefix copies.
    :param copy_len: how many of them, up to skb->data.
    :param made: a made Ethernet header stands before them.
    :param prefix_len: the whole prefix, a tag included.
    :param flags: FLAG_VLAN_*, FLAG_FIXUP, FLAG_MADE_HEADER, FLAG_DEV_VALID.
    """

    position: int
    copy_from: int
    copy_len: int
    made: bool
    prefix_len: int
    flags: int


def place(state: SkbState) -> Placement:
    """Steps 2 to 6 and 9 of the algorithm: where data stand and what goes in front of them.

    :param state: the fields as the BPF program reads them.
    """
    position, network = _position(state)
    made = position in (POSITION_NETWORK, POSITION_LINK)
    copy_from, copy_len = state.headroom, 0
    if position == POSITION_BEHIND_MAC:
        copy_from = state.mac_header
    elif position == POSITION_NETWORK:
        copy_from = network
    copy_len = state.headroom - copy_from
    in_prefix = state.vlan and (made or position == POSITION_BEHIND_MAC)
    fixup = (
        (position == POSITION_MAC and state.vlan)
        or position in (POSITION_LINK, POSITION_UNKNOWN)
        or state.arg_offset != 0
        or (made and state.protocol < ETH_P_802_3_MIN)
    )
    flags = (
        (FLAG_VLAN_VALID if state.vlan else 0)
        | (FLAG_VLAN_IN_PREFIX if in_prefix else 0)
        | (FLAG_FIXUP if fixup else 0)
        | (FLAG_DEV_VALID if state.dev_valid else 0)
        | (FLAG_MADE_HEADER if made else 0)
    )
    prefix_len = copy_len + (ETH_HLEN if made else 0) + (4 if in_prefix else 0)
    return Placement(position, copy_from, copy_len, made, prefix_len, flags)


def _position(s: SkbState) -> tuple[int, int]:
    """Rule 5: the position, and the network header's offset from skb->head that it relies on."""
    n_set = s.network_header not in (0, 0xFFFF)
    m_set = s.mac_header != MAC_UNSET and (s.mac_header != 0 or n_set)
    pm = s.headroom - s.mac_header
    pn = s.headroom - s.network_header
    mac_len = s.network_header - s.mac_header
    hhl = s.hard_header_len
    eth = not s.dev_valid or s.dev_type in (ARPHRD_ETHER, ARPHRD_LOOPBACK)
    if s.headroom > 0xFFFF:
        return POSITION_UNKNOWN, 0
    tagged = -MAX_BEHIND_MAC <= pn < -ETH_HLEN and int.from_bytes(s.start[12:14]) in TAG_TYPES
    if eth and n_set and (pn == -ETH_HLEN or tagged or (hhl >= ETH_HLEN and pn == -hhl)):
        return POSITION_MAC, s.network_header
    if eth and m_set and ETH_HLEN <= pm <= MAX_BEHIND_MAC:
        if not n_set or pn < 0 or mac_len in MAC_LENGTHS or mac_len < -ETH_HLEN:
            return POSITION_BEHIND_MAC, s.network_header
    elif eth and m_set and pm == 0 and n_set and pn > 0 and _is_ip(s):
        return POSITION_NETWORK, s.headroom
    elif eth and m_set and pm == 0 and (not n_set or pn != 0):
        return POSITION_MAC, s.network_header
    if n_set and 0 <= pn <= MAX_BETWEEN:
        return POSITION_NETWORK, s.network_header
    if n_set and -MAX_BEHIND_MAC <= pn < 0:
        return POSITION_LINK, s.network_header
    if not eth and m_set and pm == 0 and not n_set and hhl == 0:
        return POSITION_NETWORK, s.headroom
    return POSITION_UNKNOWN, 0


def _is_ip(s: SkbState) -> bool:
    """Whether an IP packet of the sk_buff's protocol starts at data."""
    if int.from_bytes(s.start[12:14]) in FRAME_TYPES:
        return False
    return s.start[:1] != b"" and s.start[0] >> 4 == IP_VERSIONS.get(s.protocol)
