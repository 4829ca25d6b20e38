# SPDX-License-Identifier: Apache-2.0
"""Which functions packets are followed through, and what some of them mean for their way.

Names are those of Linux 5.10 to 7.2; what a kernel does not have is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kcap.session.skb_functions import SkbPoint

#: A packet that comes here is put into a socket's queue: it was delivered, though the sk_buff is
#: only freed when somebody reads it.
SOCKET: Final = frozenset({
    "tcp_queue_rcv", "__udp_enqueue_schedule_skb", "sock_queue_rcv_skb", "__sock_queue_rcv_skb",
    "sock_queue_rcv_skb_reason", "sctp_ulpq_tail_data", "tpacket_rcv",
})  # fmt: skip

#: Where a packet socket with a ring (tcpdump) looks at a packet: it was for that socket if it is
#: seen nowhere else afterwards.
PASSING: Final = frozenset({"tpacket_rcv", "__packet_rcv_has_room"})

#: Where a packet socket without a ring takes what its filter lets pass: a copy, unless the packet
#: is nobody else's.
TAP: Final = "packet_rcv"

#: Functions that free an sk_buff, also where no tracepoint tells: its address may be another
#: packet's from then on.
FREEING: Final = (
    "__kfree_skb", "kfree_skb_partial", "napi_skb_free_stolen_head", "__napi_kfree_skb",
    "skb_release_head_state", "kfree_skbmem",
)  # fmt: skip

#: Functions that free a packet whose data are another's: the rest of it, or one of the fragments or
#: segments that hang on a whole packet, with that. Where skb_release_head_state() comes first,
#: kfree_skb_partial() is inlined, or the sk_buff becomes that of a whole packet (skb_morph()).
JOINING: Final = frozenset({
    "kfree_skb_partial", "napi_skb_free_stolen_head", "skb_release_data", "skb_release_head_state",
})  # fmt: skip

#: Functions that make a copy: (new sk_buff, old sk_buff) are their first arguments. All of
#: skb_clone(), skb_copy(), pskb_copy(), skb_copy_expand(), skb_morph(), skb_segment() call the
#: first; fragments made by the IP layer are told by the others.
COPYING: Final = ("__copy_skb_header", "ip_copy_metadata", "ip6_copy_metadata")

#: Left out unless asked for by name. First the functions that see an sk_buff before it is a packet
#: or after it was one: a stale header there would match a filter. Then what serves all layers and
#: says nothing of the way, and what only handles netlink messages, which are sk_buffs, too.
_LEFT_OUT: Final = re.compile(
    r"(_*k?free_skb.*|.*_?kfree_skb.*|_*consume_(stateless_)?skb.*|napi_consume_skb|napi_skb_.*"
    r"|skb_release_.*|skb_free_.*|kfree_skbmem|sk_skb_reason_drop|skb_attempt_defer_free"
    r"|_*sock_[a-z]?m?_?free|sock_[a-z]+free|_*sock_wfree|sock_edemux|tcp_wfree|unix_.*"
    r"|.*build_skb.*|.*alloc_skb.*|_*skb_ext_.*|.*copy_skb_header|skb_copy_header|.*_copy_metadata"
    r"|skb_headers_offset_update"
    r"|_*p?skb_(put|push|pull|trim).*|_*skb_(clone|copy|checksum|flow|get|to_sgvec|find|store|dump"
    r"|queue|unlink|append|coalesce|prepare|splice|send|zcopy|tstamp|complete|wait|shift|split)"
    r".*|skb_(condense|morph|panic)|_*pskb_(copy|put|extract).*|_*skb_datagram.*"
    r"|_*bpf_(skb|skc?_|lsm|run|internal|skops).*|selinux_.*|apparmor_.*|smack_.*|security_.*"
    r"|cipso_.*|calipso_.*|netlbl_.*|csum_.*|.*checksum.*|.*_getfrag|ptp_.*|zerocopy_.*"
    r"|.*csum_(hwoffload|replace).*|inet_proto_csum.*|.*_get_(tci|hash|poff).*|kcm_.*|strp_.*"
    r"|(.*_)?(nla|nlmsg|netlink|rtnl|rtnetlink|rtm|genl|genlmsg|ethnl|devlink|dcbnl|dcb|nfnl|nl"
    r"|nfnetlink|audit|crypto|diag|ctrl|cn|cgroupstats|taskstats|thermal|handshake|gnet)_.*"
    r"|(.*_)?(fill|dump|dumpit|doit|nlattr|fdb|mdb)(_.*)?|.*_fill_reply|nf_tables_.*|tc_.*|tcf_(?!cl).*"
    r"|put_nla_.*|sock_diag_.*|.*timestamp.*|.*_nldesc.*|fib_nl.*|inet6?_(rtm|netconf).*"
    r"|.*_put_.*|.*_stats?|nl_.*|stat_put|eth_header_parse.*|vlan_(get|parse)_.*)"
)

#: What is followed where the kernel has no kprobe_multi (before 5.18, or without CONFIG_FPROBE),
#: and each function costs a probe of its own: the main way from driver to socket and back, the
#: most telling first.
_MAIN: Final = (
    "ip_rcv", "ip_rcv_core", "ip_rcv_finish*", "ip_local_deliver", "ip_local_deliver_finish",
    "ip_protocol_deliver_rcu", "ip_forward", "ip_forward_finish", "ip_route_input_noref",
    "ip_output", "ip_mc_output", "ip_finish_output", "__ip_finish_output", "ip_finish_output2",
    "ip_local_out", "__ip_local_out", "__ip_queue_xmit", "ip_queue_xmit", "ip_send_skb",
    "ip_do_fragment", "ip_fragment*", "ip_defrag", "ip_error", "nf_hook_slow", "nft_do_chain_*",
    "ipt_do_table", "ip6t_do_table", "nf_nat_*", "nf_conntrack_in", "nf_confirm",
    "nf_ct_*", "nf_reject*", "__dev_queue_xmit", "dev_hard_start_xmit", "sch_direct_xmit",
    "validate_xmit_skb", "veth_xmit", "dev_forward_skb", "__dev_forward_skb", "loopback_xmit",
    "skb_scrub_packet", "eth_type_trans", "netif_rx", "netif_rx_internal", "enqueue_to_backlog",
    "netif_receive_skb", "netif_receive_skb_internal", "__netif_receive_skb",
    "__netif_receive_skb_one_core", "napi_gro_receive", "gro_receive_skb", "dev_gro_receive",
    "icmp_rcv", "icmp_echo", "icmp_reply", "icmp_send", "__icmp_send", "icmp_unreach", "ping_rcv",
    "ping_queue_rcv_skb", "raw_rcv", "raw_local_deliver", "tcp_v4_early_demux", "tcp_v4_rcv",
    "tcp_v4_do_rcv", "tcp_filter", "tcp_conn_request", "tcp_check_req", "tcp_rcv_established",
    "tcp_rcv_state_process", "tcp_validate_incoming", "tcp_ack", "tcp_data_queue",
    "tcp_queue_rcv", "tcp_try_coalesce", "tcp_add_backlog", "tcp_v4_send_reset", "udp_rcv",
    "__udp4_lib_rcv", "udp_unicast_rcv_skb", "udp_queue_rcv_skb", "udp_queue_rcv_one_skb",
    "__udp_enqueue_schedule_skb", "udp_send_skb", "sock_queue_rcv_skb", "__sock_queue_rcv_skb",
    "sock_queue_rcv_skb_reason",
    "sk_filter_trim_cap", "ipv6_rcv", "ip6_rcv_core*", "ip6_rcv_finish*", "ip6_input",
    "ip6_input_finish", "ip6_protocol_deliver_rcu", "ip6_forward", "ip6_output",
    "ip6_finish_output", "ip6_finish_output2", "ip6_local_out", "ip6_xmit", "ip6_fragment",
    "icmpv6_rcv", "icmp6_send", "tcp_v6_rcv", "tcp_v6_do_rcv", "udpv6_rcv", "__udp6_lib_rcv",
    "udpv6_queue_rcv_one_skb", "arp_rcv", "arp_process", "neigh_resolve_output",
    "neigh_connected_output", "neigh_direct_output", "packet_rcv", "tpacket_rcv", "tcf_classify",
    "br_handle_frame", "br_handle_frame_finish", "br_forward", "__br_forward", "br_flood",
    "br_pass_frame_up", "br_dev_xmit", "br_dev_queue_push_xmit", "vlan_dev_hard_start_xmit",
    "vlan_do_receive", "vxlan_xmit*", "vxlan_rcv", "iptunnel_xmit", "ip_tunnel_xmit",
    "ip_tunnel_rcv", "udp_tunnel_xmit_skb", "gre_rcv", "ipgre_*", "__gre_xmit", "tun_net_xmit",
    "skb_segment", "__skb_gso_segment", "skb_gro_receive", "skb_try_coalesce", "pfifo_fast_enqueue",
    "fq_codel_enqueue", "fq_enqueue", "noqueue_enqueue", "xfrm_input", "xfrm_output",
)  # fmt: skip


#: Each position of the argument is a program of its own to load; a handful of functions, none of
#: which is on a packet's usual way, have it further back.
_LAST_ARGUMENT: Final = 3


def choose(
    points: Iterable[SkbPoint], patterns: Iterable[str], *, several: bool
) -> Iterator[SkbPoint]:
    """The functions to follow packets through.

    :param points: all functions that take a packet.
    :param patterns: for their names, with ``*``; empty for those that tell of the way.
    :param several: whether the kernel can have many functions in one probe.
    """
    wanted = tuple(patterns)
    never = {*FREEING, *COPYING}
    for point in points:
        name = point.name
        if name in never or point.index > _LAST_ARGUMENT:
            continue
        if wanted:
            fits = any(fnmatchcase(name, pattern) for pattern in wanted)
        else:
            fits = several or any(fnmatchcase(name, pattern) for pattern in _MAIN)
            fits = fits and not _LEFT_OUT.fullmatch(name)
        if fits:
            yield point
