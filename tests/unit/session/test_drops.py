# SPDX-License-Identifier: Apache-2.0
"""``kcap drops``: names of reasons, the table, the command line."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from kcap.btf import Btf, Enum
from kcap.btf.build import BtfBuilder
from kcap.cli import capture
from kcap.cli.drops import _parser, _Tick, as_json, main, packet_lines, table_lines
from kcap.cli.packet_lines import PacketLines
from kcap.errors import UsageError
from kcap.packet.decode import Packet
from kcap.probes.system import Files, System
from kcap.records import replace
from kcap.session.capture import CaptureRequest, generate
from kcap.session.drop_reasons import Reasons, reason_names
from kcap.session.drops import Drop, DroppedPacket, Pairs, Told
from kcap.session.namespaces import NetnsNames
from kcap.session.skb_functions import SkbPoint


def line(packet: Packet, *options: str) -> str:
    """What kcap capture prints of a packet."""
    return PacketLines(capture._parser().parse_args(["ip_rcv", *options])).text(packet)


KFREE = SkbPoint("rawtracepoint", "kfree_skb", "skb", 0)


def test_reasons_have_the_kernels_names() -> None:
    w = BtfBuilder()
    w.enum(
        "skb_drop_reason",
        [
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
            ("SKB_DROP_REASON_NO_SOCKET", 3),
            ("SKB_DROP_REASON_MAX", 4),
            ("SKB_DROP_REASON_SUBSYS_MASK", -65536),
        ],
    )
    found = Btf.from_bytes(w.to_bytes(), name="small").get("skb_drop_reason", Enum)
    assert reason_names(found) == {
        0: "SKB_NOT_DROPPED_YET", 2: "NOT_SPECIFIED", 3: "NO_SOCKET",
    }  # fmt: skip


def test_reasons_of_subsystems_have_the_names_of_their_modules(tmp_path: Path) -> None:
    kernel = BtfBuilder()
    kernel.enum("skb_drop_reason", [("SKB_DROP_REASON_NOT_SPECIFIED", 2)])
    (tmp_path / "vmlinux").write_bytes(kernel.to_bytes())
    base = Btf.from_bytes(kernel.to_bytes())
    module = BtfBuilder(base.end_id, base.end_string)
    module.enum("ovs_drop_reason", [("OVS_DROP_LAST_ACTION", 0x30001)])
    (tmp_path / "openvswitch").write_bytes(module.to_bytes())
    reasons = Reasons.of(System(files=Files(btf=str(tmp_path))))
    assert [reasons.name(number) for number in (2, 0x30001, 0x30002, 9)] == [
        "NOT_SPECIFIED", "OVS_DROP_LAST_ACTION", "subsystem 3 reason 2", "reason 9",
    ]  # fmt: skip
    assert (reasons.known, reasons.consumed_where) == (False, False)


def test_packets_are_counted_and_only_written_when_asked() -> None:
    counted = generate([KFREE], CaptureRequest((), "tcp"), extra="@d = count(); ", output=False)
    assert "skboutput" not in counted
    written = generate([KFREE], CaptureRequest((), "tcp", "a.pcap"), extra="@d = count(); ")
    assert '@d = count(); skboutput("a.pcap", args.skb' in written


def test_place_is_told_of_packets_that_were_sent() -> None:
    told = generate([KFREE], CaptureRequest((), "tcp"), after="@told = count(); ", output=False)
    assert 'if (skboutput("nowhere.pcap", args.skb, 262144, 0) == 0) { @told = count(); }' in told


class Rings:
    """What one run after the other of the program sends, and what becomes of it on the way."""

    def __init__(self) -> None:
        self.events: list[Packet | Told] = []
        self.time = 0

    def drop(self, skb: int, place: str, *, sent: bool = True, told: bool = True) -> None:
        """A packet is dropped: the rings have room for it, and for what is told of it."""
        self.time += 10
        if sent:
            packet = replace(dropped().packet, skb=skb, mono_ns=self.time, comm=place)
            self.events.append(packet)
            if told:
                self.events.append(Told(self.time + 5, skb, place, (), ""))

    def pairs(self) -> list[tuple[str, str]]:
        """The place that each packet was dropped at, and the one it is said to be."""
        pairs = Pairs()
        found = [one for event in self.events for one in pairs.take(event)]
        found += pairs.overdue(1 << 63)
        sent = {event.mono_ns for event in self.events if isinstance(event, Packet)}
        assert {one.packet.mono_ns for one in found} == sent
        assert len(found) == len(sent)
        return [(one.packet.comm, one.place) for one in found]


def test_packet_whose_place_was_lost_does_not_get_the_next_ones() -> None:
    rings = Rings()
    rings.drop(1, "a", told=False)
    rings.drop(1, "b")
    rings.drop(1, "c", told=False)
    assert rings.pairs() == [("a", ""), ("b", "b"), ("c", "")]


def test_packet_that_was_lost_leaves_no_place_to_the_next_one() -> None:
    rings = Rings()
    rings.drop(1, "a", sent=False)
    rings.drop(1, "b", told=False)
    rings.drop(1, "c")
    assert rings.pairs() == [("b", ""), ("c", "c")]


def test_no_loss_gives_a_packet_the_place_of_another() -> None:
    rings, chance = Rings(), Random(5)
    for number in range(2000):
        rings.drop(
            chance.randrange(3), str(number), sent=chance.random() < 0.6, told=chance.random() < 0.6
        )
    found = rings.pairs()
    assert all(said in (place, "") for place, said in found)
    assert 400 < sum(said != "" for _, said in found) < 1000


def test_place_that_is_late_is_waited_for_but_not_for_ever() -> None:
    packet, pairs = dropped().packet, Pairs()
    packet.mono_ns = 1000
    assert list(pairs.take(packet)) == []
    assert list(pairs.overdue(1000)) == []
    (found,) = pairs.overdue(1001)
    assert (found.reason, found.place) == (packet.reason, "")
    assert as_json(found)["place"] is None
    assert " - nc[7] IP " in packet_lines(found, NetnsNames())[0]


def test_table_has_the_columns_under_each_other() -> None:
    table = [
        Drop("NO_SOCKET", "__udp4_lib_rcv+1", 10, ("eth0",), ("ping", "nc", "curl", "sh")),
        Drop("", "f+2", 2),
    ]
    assert table_lines(table) == [
        "count  reason     place             interface  process",
        "   10  NO_SOCKET  __udp4_lib_rcv+1  eth0       ping,nc,curl,+1",
        "    2  -          f+2               -          -",
    ]
    assert table_lines(table, [3, 0]) == [
        "count  /s  reason     place             interface  process",
        "   10   3  NO_SOCKET  __udp4_lib_rcv+1  eth0       ping,nc,curl,+1",
        "    2      -          f+2               -          -",
    ]


def dropped() -> DroppedPacket:
    data = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2))
    packet = Packet(
        time_ns=1_700_000_000_000_001_000, mono_ns=1, site=0, path="", probe="", function="",
        link_type=1, data=data, original_length=len(data), interface="eth0", ifindex=2, netns=40,
        direction="in", protocol=0x800, vlan=None, mark=0, queue=0, skb=1, pid=7, tid=7, comm="nc",
        cpu=1, made_header=False, linear_only=False,
    )  # fmt: skip
    return DroppedPacket(packet, "NO_SOCKET", "udp_rcv+31", ["kfree_skb+1", "udp_rcv+31"])


def test_packet_is_a_line_and_its_stack() -> None:
    head, *stack = packet_lines(dropped(), NetnsNames())
    assert head.endswith(
        ".000001 40/eth0 NO_SOCKET udp_rcv+31 nc[7] IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0"
    )
    assert stack == ["    kfree_skb+1", "    udp_rcv+31"]
    assert "\x1b[31mNO_SOCKET" in packet_lines(dropped(), NetnsNames(), colours=True)[0]


def test_line_of_a_capture_says_why_a_packet_is_dropped() -> None:
    packet = replace(dropped().packet, reason="NO_SOCKET")
    assert line(packet).endswith(" UDP, length 0 dropped NO_SOCKET\n")
    assert "dropped" not in line(dropped().packet)


def test_a_process_cannot_write_to_the_terminal_by_its_name() -> None:
    one = dropped()
    one.packet.comm, one.packet.interface = "\x1b[2J\ncurl", "eth\x07"
    head, *_ = packet_lines(one, NetnsNames())
    table = [Drop("", "f", 1, ("eth\x07",), ("\x1b[2J\ncurl",))]
    assert r" 40/eth\x07 NO_SOCKET udp_rcv+31 \x1b[2J\ncurl[7] IP" in head
    assert table_lines(table)[1].split() == ["1", "-", "f", r"eth\x07", r"\x1b[2J\ncurl"]
    assert r" eth\x07 in " in (said := line(one.packet))
    assert r" \x1b[2J\ncurl[7] IP" in said
    assert said.isascii()
    assert "\x1b" not in said


def test_packet_is_json() -> None:
    said = as_json(dropped())
    assert said["what"] == "IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0"
    assert (said["reason"], said["place"], said["interface"], said["pid"]) == (
        "NO_SOCKET", "udp_rcv+31", "eth0", 7,
    )  # fmt: skip
    assert said["stack"] == ["kfree_skb+1", "udp_rcv+31"]


def test_drops_go_to_no_stream() -> None:
    with pytest.raises(UsageError, match="-w needs a file"):
        main(["-w", "-"])


class Counted:
    """In the place of a running trace: a table that grows."""

    def __init__(self) -> None:
        self.count = 0
        self.stopped = False

    @property
    def table(self) -> list[Drop]:
        self.count += 5
        return [Drop("NO_SOCKET", "udp_rcv+31", self.count, ("eth0",), ("ping",))]

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("size", "last"),
    [("50x9", "  101  101  REASON_6  f"), ("50x7", "... 3 more"), ("11x2", "... 7 more")],
)
def test_table_on_a_small_terminal_says_how_much_more_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, size: str, last: str
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    columns, _, rows = size.partition("x")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", rows)
    rest = [Drop(f"REASON_{number}", "f", 101) for number in range(7)]
    monkeypatch.setattr(Counted, "table", rest)
    _Tick(Counted(), _parser().parse_args([]), table=True)()  # type: ignore[arg-type]
    lines = capsys.readouterr().out.split("\x1b[H")[-1].split("\x1b[K\n")
    assert lines.pop() == "\x1b[J"
    assert lines[-1].startswith(last)
    assert {len(line) <= int(columns) for line in lines} == {True}


def test_table_on_a_terminal_is_written_over_itself_and_has_rates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    drops = Counted()
    tick = _Tick(drops, _parser().parse_args(["-d", "3"]), table=True)  # type: ignore[arg-type]
    for _ in range(7):  # twice a second
        tick()
        now[0] += 0.5
    screens = capsys.readouterr().out.split("\x1b[H")[2:]
    assert len(screens) == 4
    assert drops.stopped
    assert screens[1] == (
        "count  /s  reason     place       interface  process\x1b[K\n"
        "   10   5  NO_SOCKET  udp_rcv+31  eth0       ping\x1b[K\n\x1b[J"
    )
