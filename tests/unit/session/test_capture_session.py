# SPDX-License-Identifier: Apache-2.0
"""What ``kcap capture`` asks for: places from BTF, and the script that is made of a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kcap import btf as b
from kcap.btf import types as t
from kcap.btf.build import BtfBuilder
from kcap.cli.capture import main, passed_by, summary_lines
from kcap.errors import UsageError
from kcap.lang.diagnostic import ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.packet.sink import SiteStats
from kcap.probes.system import Files, System
from kcap.session.capture import Capture, CaptureRequest, PlaceStats, generate, quote
from kcap.session.skb_functions import SkbPoint, find_point, list_places, list_points

TRACEABLE = (
    "ip_rcv", "vfs_read", "dev_hard_start_xmit", "takes_const", "nf_in_module [nf]",
    "__dev_queue_xmit", "gro_receive_skb", "udp_tunnel_xmit_skb",
)  # fmt: skip


def kernel() -> BtfBuilder:
    """Functions with packets in different places of their parameters, and tracepoints."""
    w = BtfBuilder()
    int_ = w.integer("int", 4, t.INT_SIGNED)
    skb = w.struct("sk_buff", 8, [])
    pointer = w.pointer(skb)
    void = w.pointer(0)
    plain = {
        "ip_rcv": [("skb", pointer), ("dev", void)],
        "dev_hard_start_xmit": [("first", pointer), ("dev", void)],
        "takes_const": [("n", int_), ("it", w.pointer(w.modifier(b.Const, skb)))],
        "inlined": [("skb", pointer)],
        "dev_queue_xmit": [("skb", pointer)],
        "__dev_queue_xmit": [("skb", pointer)],
        "gro_receive_skb": [("gro", void), ("skb", pointer)],
        "udp_tunnel_xmit_skb": [("skb", pointer), *((f"a{n}", int_) for n in range(12))],
        "vfs_read": [("file", void)],
        "takes_pointer_to_pointer": [("pskb", w.pointer(pointer))],
    }
    for name, params in plain.items():
        w.func(name, w.func_proto(int_, [b.Param(one, kind) for one, kind in params]))
    for event, kind in (("netif_receive_skb", pointer), ("sched_switch", int_)):
        proto = w.func_proto(0, [b.Param("", void), b.Param("", kind)])
        w.modifier(b.Typedef, w.pointer(proto), f"btf_trace_{event}")
        named = w.func_proto(int_, [b.Param("__data", void), b.Param("skb", kind)])
        w.func(f"__traceiter_{event}", named)
    return w


class Flowing:
    """A trace through which packets run all the time: every look at a map finds more."""

    packet_stats: Sequence[SiteStats] = ()

    def __init__(self) -> None:
        self.packets = 0

    def read_map(self, name: str) -> list[tuple[None, int]]:
        self.packets += 5
        return [(None, self.packets)]


def test_no_more_packets_match_than_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture.__new__(Capture)
    capture.points = [SkbPoint("fentry", "ip_rcv", "skb", 0)]
    monkeypatch.setattr(Capture, "trace", Flowing())
    (stats,) = capture.stats
    assert stats.seen >= stats.matched > 0


def test_places_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture.__new__(Capture)
    names = (("fentry", "kfree_skb"), ("rawtracepoint", "kfree_skb"), ("fentry", "ip_rcv"))
    capture.points = [SkbPoint(provider, name, "skb", 0) for provider, name in names]
    monkeypatch.setattr(Capture, "trace", Flowing())
    assert [each.place for each in capture.stats] == [
        "fentry:kfree_skb", "rawtracepoint:kfree_skb", "ip_rcv",
    ]  # fmt: skip


def test_function_that_fentry_cannot_take_is_offered_as_a_kprobe(system: System) -> None:
    with pytest.raises(UsageError, match="takes 13 arguments, more than the 12") as caught:
        find_point("udp_tunnel_xmit_skb", system)
    assert caught.value.hint is not None
    point = find_point(caught.value.hint.split()[0], system)
    assert point == SkbPoint("kprobe", "udp_tunnel_xmit_skb", "skb", 0)


@pytest.fixture
def system(tmp_path: Path) -> System:
    directory = tmp_path / "btf"
    directory.mkdir()
    (directory / "vmlinux").write_bytes(kernel().to_bytes())
    traceable = tmp_path / "traceable"
    traceable.write_text("\n".join(TRACEABLE) + "\n")
    return System(files=Files(btf=str(directory), traceable=str(traceable)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ip_rcv", SkbPoint("fentry", "ip_rcv", "skb", 0)),
        ("dev_hard_start_xmit", SkbPoint("fentry", "dev_hard_start_xmit", "first", 0)),
        ("fentry:vmlinux:takes_const", SkbPoint("fentry", "takes_const", "it", 1)),
        ("fentry:takes_const", SkbPoint("fentry", "takes_const", "it", 1)),
        ("kprobe:takes_const", SkbPoint("kprobe", "takes_const", "it", 1)),
        ("net:netif_receive_skb", SkbPoint("rawtracepoint", "netif_receive_skb", "skb", 0)),
        ("tracepoint:net:netif_receive_skb",
         SkbPoint("rawtracepoint", "netif_receive_skb", "skb", 0)),
        ("rt:netif_receive_skb", SkbPoint("rawtracepoint", "netif_receive_skb", "skb", 0)),
    ],
)  # fmt: skip
def test_place_is_found_with_its_packet(system: System, text: str, wanted: SkbPoint) -> None:
    assert find_point(text, system) == wanted


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("vfs_read", "vfs_read() takes no packet: none of its arguments is a struct sk_buff *",
         "kcap capture --list shows the functions that do"),
        ("takes_pointer_to_pointer", "takes_pointer_to_pointer() takes no packet: none of its "
         "arguments is a struct sk_buff *", "kcap capture --list shows the functions that do"),
        ("ip_rvc", "there is no function ip_rvc in the kernel's BTF", "did you mean ip_rcv?"),
        ("inlined", "inlined() cannot be traced: it is not among the kernel's traceable functions",
         "it was inlined everywhere, or is marked notrace; take a function that calls it"),
        ("sched:sched_switch", "tracepoint sched:sched_switch passes no packet: none of its "
         "arguments is a struct sk_buff *", "kcap capture --list shows those that do"),
        ("net:netif_recieve_skb", "there is no tracepoint net:netif_recieve_skb",
         "did you mean net:netif_receive_skb?"),
        ("kprobe:ip_rvc", "there is no function ip_rvc in the kernel's BTF",
         "did you mean kprobe:ip_rcv?"),
        ("netif_receive_skb", "there is no function netif_receive_skb in the kernel's BTF",
         "there is a tracepoint: rawtracepoint:netif_receive_skb"),
        ("net:ip_rcv", "there is no tracepoint net:ip_rcv", "there is a function: ip_rcv"),
        ("napi_gro_receive", "there is no function napi_gro_receive in the kernel's BTF",
         "take gro_receive_skb: napi_gro_receive became an inline wrapper of gro_receive_skb "
         "(Linux 6.15)"),
        ("dev_queue_xmit", "dev_queue_xmit() cannot be traced: it is not among the kernel's "
         "traceable functions", "take __dev_queue_xmit: dev_queue_xmit became an inline wrapper of "
         "__dev_queue_xmit (Linux 5.18)"),
        ("fentry:openvswitch:ip_rcv", "there is no function ip_rcv in module openvswitch's BTF",
         "there is a function: ip_rcv"),
        ("fexit:ip_rcv", "fexit:ip_rcv is where a function returns: its packet may be gone by then",
         "take ip_rcv, where it begins"),
        ("ip_*", "ip_* is a pattern: packets are captured at places that are named",
         "kcap capture --list 'ip_*' shows those that match"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused_with_the_way_out(
    system: System, text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        find_point(text, system)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_no_btf_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the kernel has no BTF"):
        find_point("ip_rcv", System(files=Files(btf=str(tmp_path))))


def test_list_has_what_can_be_traced_and_takes_a_packet(system: System) -> None:
    assert [point.probe for point in list_points("*", system)] == [
        "fentry:ip_rcv", "fentry:dev_hard_start_xmit", "fentry:takes_const",
        "fentry:__dev_queue_xmit", "fentry:gro_receive_skb", "kprobe:udp_tunnel_xmit_skb",
        "rawtracepoint:netif_receive_skb",
    ]  # fmt: skip
    assert [point.probe for point in list_points("ip*", system)] == ["fentry:ip_rcv"]


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("net*", ["rawtracepoint:netif_receive_skb"]),
        ("net:*", ["rawtracepoint:netif_receive_skb"]),
        ("tracepoint:net:netif*", ["rawtracepoint:netif_receive_skb"]),
        ("fentry:ip*", ["fentry:ip_rcv"]),
        ("kprobe:ip*", ["fentry:ip_rcv"]),
        ("net:ip*", []),
        ("nosuch*", []),
    ],
)
def test_list_takes_the_patterns_that_places_are_written_in(
    system: System, pattern: str, places: list[str]
) -> None:
    assert [point.probe for point in list_places(pattern, system)] == places


def test_pattern_that_matches_nothing_is_said(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kcap.probes.system.System", lambda: system)
    with pytest.raises(UsageError) as caught:
        main(["--list", "ip_*", "nosuch*"])
    assert (
        capsys.readouterr().out
        == "fentry:ip_rcv (skb)  IPv4: a packet arrives alone (in NAPI's lists: ip_rcv_core)\n"
    )
    assert str(caught.value) == "nothing that takes a packet matches 'nosuch*'"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["ip_rcv", "tcp", "port", "80"], "kcap capture ip_rcv -f 'tcp port 80'"),
        (["host", "10.0.0.1"], "kcap capture FUNCTION -f 'host 10.0.0.1'"),
    ],
)
def test_filter_among_the_functions_is_shown_its_place(words: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        main(words)
    assert caught.value.message.endswith("is no function, but part of a packet filter")
    assert caught.value.hint == f"filters follow -f: {hint}"


IP_RCV = SkbPoint("fentry", "ip_rcv", "skb", 0)


def test_script_counts_filters_and_writes() -> None:
    request = CaptureRequest(
        ("ip_rcv",),
        'tcp port 80 or "x"',
        "a.pcap",
        snaplen=96,
        mark="0x10/0xf0",
        interface="eth0",
        netns="4026531840",
        pid=7,
    )
    assert generate([IP_RCV], request) == (
        "config = { print_maps_on_exit = 0 }\n"
        "fentry:ip_rcv { @seen_0 = count(); if (pid == 7 && (args.skb.mark & 240) == 16 && "
        'args.skb.dev.nd_net.net.ns.inum == 4026531840 && args.skb.dev.name == "eth0" && '
        'skbfilter(args.skb, "tcp port 80 or \\"x\\"")) { @matched_0 = count(); '
        'skboutput("a.pcap", args.skb, 96, 0); } }\n'
    )


def test_the_size_of_rings_is_given_in_pages() -> None:
    first = generate([IP_RCV], CaptureRequest(("ip_rcv",), buffer=64)).splitlines()[0]
    assert first == "config = { print_maps_on_exit = 0; perf_rb_pages = 16 }"
    first = generate([IP_RCV], CaptureRequest(("ip_rcv",), buffer=5)).splitlines()[0]
    assert first == "config = { print_maps_on_exit = 0; perf_rb_pages = 2 }"


def test_kprobe_and_module_are_written_as_they_must_be() -> None:
    points = [SkbPoint("kprobe", "f", "skb", 2), SkbPoint("fentry", "g", "skb", 0, "nf")]
    text = generate(points, CaptureRequest(("f", "g")))
    assert "kprobe:f { " in text
    assert 'skboutput_linear("nowhere.pcap", ((struct sk_buff *)arg2), 262144, 0);' in text
    assert 'fentry:nf:g { @seen_1 = count(); @matched_1 = count(); skboutput("nowhere' in text


@pytest.mark.parametrize("path", ["", "-", 'a "b"\\n.pcap', "x.pcapng"])
def test_every_script_can_be_parsed(path: str) -> None:
    text = generate([IP_RCV], CaptureRequest(("ip_rcv",), "ip", path))
    assert len(parse(Source("test", text)).probes) == 1


def test_stream_is_pcapng_unless_asked_otherwise() -> None:
    assert CaptureRequest((), path="-").script_path == "stdout.pcapng"
    assert CaptureRequest((), path="-", pcap=True).script_path == "stdout.pcap"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (CaptureRequest((), mark="red"), "--mark: 'red' is not a number of 32 bits"),
        (
            CaptureRequest((), mark="1/0x100000000"),
            "--mark: '0x100000000' is not a number of 32 bits",
        ),
        (
            CaptureRequest((), interface="i" * 16),
            "-i iiiiiiiiiiiiiiii: no interface has a name this long",
        ),
        (CaptureRequest((), netns="nosuch"), "--netns nosuch: No such file or directory"),
    ],
)
def test_filter_that_cannot_be_is_refused(request_: CaptureRequest, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        generate([IP_RCV], request_)
    assert str(caught.value) == message


def test_quoted_text_is_one_literal() -> None:
    assert quote('a"b\\c\n') == '"a\\"b\\\\c\\n"'


def test_function_that_packets_in_lists_do_not_pass_is_told_of_if_it_saw_none() -> None:
    stats = [PlaceStats("ip_rcv"), PlaceStats("ipv6_rcv", 1), PlaceStats("udp_rcv")]
    (hint,) = passed_by(stats)
    assert hint == (
        "hint: packets that a driver hands on in lists (NAPI) do not pass ip_rcv, but ip_rcv_core "
        "and net:netif_receive_skb"
    )


def test_summary_is_a_table() -> None:
    stats = [PlaceStats("ip_rcv", 1000, 10, 9, 1), PlaceStats("tcp_v4_rcv", 5, 0, 0, 0)]
    assert summary_lines(stats) == [
        "function    seen  matched  captured  lost",
        "ip_rcv      1000       10         9     1",
        "tcp_v4_rcv     5        0         0     0",
    ]


def test_no_function_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        main(["-f", "ip"])
    assert caught.value.message == "kcap capture: no function to capture at"
    assert caught.value.hint == "kcap capture --list shows what there is"


def test_a_wrong_filter_is_shown_as_it_was_given() -> None:
    """Not inside the script that the capture is made of."""
    with pytest.raises(ScriptError) as caught, Capture(CaptureRequest(("ip_rcv",), "tcp prot 80")):
        pytest.fail("the filter was taken")
    (found,) = caught.value.diagnostics
    assert found.code == "packet-filter"
    assert found.span is not None
    assert (found.span.source.name, found.span.source.text) == ("filter", "tcp prot 80")
    assert found.span.text == "prot"
