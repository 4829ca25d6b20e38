# SPDX-License-Identifier: Apache-2.0
"""Repairing tracepoints that call what only raw tracepoints may call."""

from __future__ import annotations

import pytest

from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import System
from unit.diagnose.repair_machine import repair

REPAIRED = {
    "variable": (
        "tracepoint:net:netif_receive_skb {\n"
        "  $skb = (struct sk_buff *)args.skbaddr;\n"
        '  skboutput("a.pcap", $skb, $skb->len, 0);\n'
        "}\n",
        "rawtracepoint:netif_receive_skb {\n"
        '  skboutput("a.pcap", args.skb, args.skb.len, 0);\n'
        "}\n",
    ),
    "in place, old spelling of args": (
        't:skb:kfree_skb { skboutput("a", ((struct sk_buff *)args->skbaddr), 1, 0); }',
        'rawtracepoint:kfree_skb { skboutput("a", args.skb, 1, 0); }',
    ),
    "fields that are arguments too": (
        'tracepoint:skb:kfree_skb /args.reason > 1/ '
        '{ @[args.location] = 1; @s[args.skbaddr] = 1; '
        'skboutput("a", (struct sk_buff *)args.skbaddr, 1, 0); }',
        'rawtracepoint:kfree_skb /args.reason > 1/ '
        '{ @[args.location] = 1; @s[(void *)args.skb] = 1; '
        'skboutput("a", args.skb, 1, 0); }',
    ),
    "two events that agree": (
        'tracepoint:net:netif_receive_skb, tracepoint:skb:kfree_skb '
        '{ skboutput("a", (struct sk_buff *)args.skbaddr, 1, 0); }',
        'rawtracepoint:netif_receive_skb, rawtracepoint:kfree_skb '
        '{ skboutput("a", args.skb, 1, 0); }',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), REPAIRED.values(), ids=REPAIRED.keys())
def test_repair(machine: System, script: str, expected: str) -> None:
    found = repair(machine, script)
    assert found.refusals == ()
    assert found.text == expected
    parse(Source("fixed.bt", found.text))
    assert repair(machine, found.text).probes == ()


SKB = 'skboutput("a", (struct sk_buff *)args.skbaddr, 1, 0)'

REFUSED = {
    "field that the tracepoint makes": (
        f"tracepoint:net:netif_receive_skb {{ @ = args.len; {SKB}; }}",
        "args.len",
        "tracepoint:net:netif_receive_skb can't be rewritten as rawtracepoint: args.len is made "
        "by the tracepoint, and rawtracepoint:netif_receive_skb has only args.skb",
    ),
    "wildcard": (
        f"tracepoint:net:* {{ {SKB}; }}",
        "*",
        "tracepoint:net:* can't be rewritten as rawtracepoint: rawtracepoint names one event, "
        "without its category",
    ),
    "unknown event": (
        f"tracepoint:net:nix {{ {SKB}; }}",
        "nix",
        "tracepoint:net:nix can't be rewritten as rawtracepoint: Probe has no valid attach points",
    ),
    "with a kprobe": (
        f"tracepoint:skb:kfree_skb, kprobe:icmp_rcv {{ {SKB}; }}",
        "kprobe:icmp_rcv",
        "tracepoint:skb:kfree_skb can't be rewritten as rawtracepoint: tracepoint:skb:kfree_skb "
        "and kprobe:icmp_rcv share the block, and have other arguments",
    ),
    "with a raw tracepoint": (
        f"tracepoint:skb:kfree_skb, rawtracepoint:kfree_skb {{ {SKB}; }}",
        "rawtracepoint:kfree_skb",
        "tracepoint:skb:kfree_skb can't be rewritten as rawtracepoint: rawtracepoint:kfree_skb "
        "shares the block, and has other arguments already",
    ),
}


@pytest.mark.parametrize(("script", "place", "title"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal(machine: System, script: str, place: str, title: str) -> None:
    found = repair(machine, script)
    assert found.text == script
    (refusal,) = found.refusals
    assert refusal.span is not None
    assert (refusal.title, refusal.span.text) == (title, place)
