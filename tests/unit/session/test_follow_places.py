# SPDX-License-Identifier: Apache-2.0
"""Which functions packets are followed through."""

from __future__ import annotations

import pytest

from kcap.session.follow_places import COPYING, FREEING, choose
from kcap.session.skb_functions import SkbPoint, purpose

WAY = ("ip_rcv", "nf_hook_slow", "tcp_v4_rcv", "udp_queue_rcv_skb", "icmp_reply", "veth_xmit",
       "__dev_queue_xmit", "skb_scrub_packet", "vxlan_xmit_one", "br_handle_frame_finish",
       "nft_do_chain_ipv4", "skb_segment", "sock_queue_rcv_skb_reason")  # fmt: skip
SERVING = ("sock_wfree", "skb_put", "__build_skb_around", "nla_put_ifalias", "rtnl_fill_vf",
           "security_sock_rcv_skb", "skb_checksum_help", "nf_tables_getrule", "tcp_wfree",
           "napi_skb_cache_put", "inet_dump_fib", "consume_skb", "skb_release_data")  # fmt: skip


def points(*names: str, index: int = 0) -> list[SkbPoint]:
    return [SkbPoint("fentry", name, "skb", index) for name in names]


def names(*args: object, **more: bool) -> list[str]:
    return [point.name for point in choose(*args, **more)]  # type: ignore[arg-type]


def test_functions_on_the_way_are_taken_and_those_that_serve_left_out() -> None:
    assert names(points(*WAY, *SERVING), (), several=True) == list(WAY)


def test_patterns_take_what_they_say() -> None:
    assert names(points(*WAY, *SERVING), ("skb_*", "tcp_v4_rcv"), several=True) == [
        "tcp_v4_rcv", "skb_scrub_packet", "skb_segment", "skb_put", "skb_checksum_help",
        "skb_release_data",
    ]  # fmt: skip


def test_main_way_is_left_where_each_function_costs_a_probe() -> None:
    found = names(points(*WAY, "tcp_measure_rcv_mss"), (), several=False)
    assert {"ip_rcv", "nf_hook_slow", "tcp_v4_rcv", "veth_xmit"} <= set(found)
    assert "tcp_measure_rcv_mss" not in found


@pytest.mark.parametrize("name", [*FREEING, *COPYING])
def test_ends_and_copies_have_probes_of_their_own(name: str) -> None:
    assert names(points(name), ("*",), several=True) == []


def test_arguments_far_back_are_not_looked_at() -> None:
    assert names(points("ip_rcv", index=4), ("*",), several=True) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("ip_local_deliver", "IPv4: for this machine"), ("tcp_v6_do_rcv", "TCP: to a socket"),
     ("tcp_anything", "TCP"), ("kfree_skb", "dropped"), ("unheard_of", "")],
)  # fmt: skip
def test_functions_have_a_purpose(name: str, said: str) -> None:
    assert purpose(name) == said
