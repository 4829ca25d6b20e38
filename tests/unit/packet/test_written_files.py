# SPDX-License-Identifier: Apache-2.0
"""Files as tshark, tcpdump and scapy read them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.functions import skb_record as layout
from kcap.packet import linktype
from kcap.packet.files import OutputFile
from kcap.packet.frame import Frame
from kcap.packet.pcap import PcapWriter
from kcap.packet.pcapng import Loss, PcapngWriter
from kcap.packet.record import Names, Site, unpack
from kcap.packet.sink import PacketSink
from support import tshark
from unit.packet import readers
from unit.packet import skb_samples as s
from unit.packet.situations import ALL, ARP4, LO, PING4, TUN, UDP4

NAMES = Names({1: "fentry:ip_rcv", 2: "fexit:veth:veth_xmit"})
SUFFIXES = ["pcap", "pcapng"]


def write(path: Path, samples: list[bytes], offsets: tuple[int, ...] = (0,)) -> PacketSink:
    """Write samples of sites 1, 2, ... (with these offset arguments) into one file."""
    sites = [Site(number, str(path), offset) for number, offset in enumerate(offsets, 1)]
    with PacketSink(sites, NAMES) as sink:
        sink.consume(map(memoryview, samples), drained_at_ns=1 << 62)
    return sink


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestEverySituation:
    @pytest.fixture
    def path(self, tmp_path: Path, suffix: str) -> Path:
        path = tmp_path / f"all.{suffix}"
        samples = [s.sample(each.skb, mono_ns=i * 1_000_000_007) for i, each in enumerate(ALL)]
        sink = write(path, samples)
        assert sink.stats[1].written == len(ALL)
        assert sink.malformed == sink.late == sink.stats[1].unfit == 0
        return path

    def times(self) -> list[int]:
        return [s.REALTIME_OFFSET + i * 1_000_000_007 for i in range(len(ALL))]

    def test_is_read_whole_by_tcpdump(self, path: Path) -> None:
        link, packets = readers.tcpdump(path)
        assert link == "EN10MB"
        assert [each.time_ns for each in packets] == self.times()
        assert [each.data for each in packets] == [each.frame for each in ALL]

    def test_is_read_by_tshark_without_complaints(self, path: Path) -> None:
        assert tshark.complaints(path) == []
        packets = readers.tshark(path, "frame.time_epoch", "frame.len", "frame.cap_len")
        for packet, each, time_ns in zip(packets, ALL, self.times(), strict=True):
            assert packet == {
                "frame.time_epoch": f"{time_ns // 10**9}.{time_ns % 10**9:09}",
                "frame.len": str(len(each.frame)),
                "frame.cap_len": str(len(each.frame)),
            }

    def test_shows_the_protocols_that_are_there(self, path: Path) -> None:
        packets = readers.tshark(
            path, "frame.protocols", "eth.src", "vlan.id", "ieee8021ad.id", "ip.src"
        )
        seen = dict(zip([each.name for each in ALL], packets, strict=True))
        assert seen["ip_rcv"]["frame.protocols"] == "eth:ethertype:ip:udp:data"
        assert seen["ip_rcv"]["eth.src"] == "02:00:00:00:00:01"
        assert seen["icmpv6_rcv"]["frame.protocols"] == "eth:ethertype:ipv6:icmpv6:data"
        assert seen["icmp_rcv, tag offloaded"]["vlan.id"] == "5"
        twice = seen["transmit, one tag offloaded and one in the data"]
        assert (twice["ieee8021ad.id"], twice["vlan.id"]) == ("7", "5")
        assert seen["ip_output, no device"]["eth.src"] == "00:00:00:00:00:00"
        assert seen["ip_output, no device"]["ip.src"] == "10.0.0.1"
        assert seen["ppp transmit, link header in front"]["ip.src"] == "10.0.0.1"
        assert seen["arp_rcv"]["frame.protocols"] == "eth:ethertype:arp"
        assert seen["consume_skb of a netlink message"]["frame.protocols"] == "eth:ethertype:data"

    def test_is_read_whole_by_scapy(self, path: Path, suffix: str) -> None:
        if suffix == "pcap":
            link, packets = readers.scapy_pcap(path)
            assert link == linktype.ETHERNET
        else:
            packets = [packet for packet, _ in readers.scapy_pcapng(path)]
        expected = [
            readers.Read(time_ns, each.frame, len(each.frame))
            for time_ns, each in zip(self.times(), ALL, strict=True)
        ]
        assert packets == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_packets_keep_their_original_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    tagged = replace(s.sent(PING4), vlan=(0x8100, 5))
    write(path, [s.sample(s.received(UDP4), length=10), s.sample(tagged, length=20)])
    lengths = readers.tshark(path, "frame.cap_len", "frame.len")
    assert lengths == [
        {"frame.cap_len": "24", "frame.len": str(len(UDP4))},
        {"frame.cap_len": "24", "frame.len": str(len(PING4) + 4)},
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_largest_sample_is_read_by_all(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    frame = UDP4 + bytes(200_000)
    sample = s.sample(s.received(frame, headroom=100), length=1 << 40)
    write(path, [sample])
    _, packets = readers.tcpdump(path)
    assert len(packets[0].data) == 65516 - 136 - 16
    assert packets[0].data == frame[: 65516 - 136 - 16]
    assert readers.tshark(path, "frame.len") == [{"frame.len": str(len(frame))}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_without_packets_is_a_valid_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with PacketSink([Site(1, str(path))], NAMES) as sink:
        sink.start()
    assert readers.tshark(path, "frame.len") == []
    if suffix == "pcap":  # libpcap refuses a pcapng file with no interface in it
        assert readers.tcpdump(path) == ("EN10MB", [])


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestOffsetArgument:
    def test_of_14_on_the_way_out_gives_a_raw_ip_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        samples = [s.sample(s.sent(frame), offset=14) for frame in (UDP4, PING4)]
        sink = write(path, samples, (14,))
        link, packets = readers.tcpdump(path)
        assert link == "RAW"
        assert [each.data for each in packets] == [UDP4[14:], PING4[14:]]
        assert tshark.complaints(path) == []
        assert len(sink.summary()) == 1

    def test_mixed_with_none_in_a_file_gives_one_link_type_and_is_told(
        self, tmp_path: Path, suffix: str
    ) -> None:
        path = tmp_path / f"a.{suffix}"
        samples = [
            s.sample(s.received(UDP4), site=1, mono_ns=1),
            s.sample(s.sent(UDP4), site=2, offset=14, mono_ns=2),
            s.sample(s.received(UDP4), site=2, offset=14, mono_ns=3),
        ]
        sink = write(path, samples, (0, 14))
        link, packets = readers.tcpdump(path)
        assert link == "EN10MB"
        assert [each.data for each in packets] == [
            UDP4,
            bytes(12) + UDP4[12:],
            bytes(12) + b"\x88\xb5" + UDP4[28:],
        ]
        assert tshark.complaints(path) == []
        assert sink.stats[2].converted == 2
        assert sink.summary() == [
            f"{path}: 3 packets written",
            f"{path}: 2 packets got another link layer than their own, for the file to have one "
            "link type (Ethernet)",
        ]


def test_packets_that_do_not_fit_a_raw_pcap_are_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    samples = [
        s.sample(s.sent(frame), offset=14, mono_ns=i) for i, frame in enumerate((ARP4, UDP4))
    ]
    sink = write(path, samples, (14,))
    assert readers.tcpdump(path)[0] == "RAW"
    assert [each.data for each in readers.tcpdump(path)[1]] == [UDP4[14:]]
    assert sink.summary() == [
        f"{path}: 1 packet written",
        f"{path}: 1 packet left out: they do not start where link type raw IP does; write them "
        "to another file, or to a .pcapng file",
    ]


def test_first_packet_decides_what_a_file_of_odd_offsets_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    write(path, [s.sample(s.received(UDP4), offset=20)], (20,))
    assert readers.scapy_pcap(path) == (
        linktype.USER0,
        [readers.Read(s.REALTIME_OFFSET + 1_000_000_123, UDP4[34:], len(UDP4) - 34)],
    )


class TestPcapng:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.pcapng"
        samples = [
            s.sample(s.received(UDP4, skb_iif=7, mark=0x20, queue=2), mono_ns=1, cpu=1),
            s.sample(s.sent(UDP4, sk=True, queue=2), mono_ns=2, probe=2, comm="", pid=0),
            s.sample(s.received(UDP4, dev=LO), mono_ns=3),
            s.sample(s.at_network(UDP4[14:], dev=TUN), mono_ns=4),
            s.sample(s.at_network(UDP4[14:], dev=None), mono_ns=5),
            s.sample(s.sent(UDP4, dev=s.Device(netns=4026532000)), mono_ns=6),
        ]
        with PacketSink([Site(1, str(path))], NAMES, comment="fentry:ip_rcv { … }") as sink:
            sink.consume(samples, drained_at_ns=1 << 62)
            sink.set_lost(1, 42)
        assert sink.summary() == [
            f"{path}: 6 packets written, 42 lost (the ring was full)",
        ]
        return path

    def test_has_an_interface_for_each_device_of_each_namespace(self, path: Path) -> None:
        fields = ("frame.interface_id", "frame.interface_name", "frame.interface_description")
        packets = [tuple(each.values()) for each in readers.tshark(path, *fields)]
        veth = "network namespace 4026531992, ifindex 7"
        assert packets == [
            ("0", "veth0", veth),
            ("0", "veth0", veth),
            ("1", "lo", "network namespace 4026531992, ifindex 1"),
            ("2", "tun0", "network namespace 4026531992, ifindex 9"),
            ("3", "no-device", "skb->dev was not set"),
            ("4", "veth0", "network namespace 4026532000, ifindex 7"),
        ]

    def test_has_comments_with_probe_process_cpu_and_mark(self, path: Path) -> None:
        comments = [each["frame.comment"] for each in readers.tshark(path, "frame.comment")]
        assert comments[:3] == [
            "fentry:ip_rcv curl[4242] cpu 1 netns 4026531992 mark 0x20",
            "fexit:veth:veth_xmit [0] cpu 0 netns 4026531992",
            "fentry:ip_rcv curl[4242] cpu 0 netns 4026531992",
        ]

    def test_tells_directions_and_queues(self, path: Path) -> None:
        packets = readers.tshark(path, "frame.packet_flags_direction", "frame.interface_queue")
        directions = [int(each["frame.packet_flags_direction"] or "0", 0) for each in packets]
        assert directions == [1, 2, 1, 0, 0, 0]
        assert [each["frame.interface_queue"] for each in packets] == ["1", "2", "0", "0", "0", "0"]

    def test_same_skb_has_the_same_id_that_is_no_kernel_address(self, path: Path) -> None:
        ids = {int(each["frame.packet_id"], 0) for each in readers.tshark(path, "frame.packet_id")}
        assert len(ids) == 1
        assert ids != {s.Skb.address}

    def test_is_read_by_tcpdump_for_its_interfaces_share_a_link_type(self, path: Path) -> None:
        link, packets = readers.tcpdump(path)
        assert (link, len(packets)) == ("EN10MB", 6)

    def test_tells_who_wrote_it_and_what_was_lost(self, path: Path) -> None:
        said = subprocess.run(
            ["capinfos", str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert "Capture application: kcap" in said
        assert "Capture oper-sys:    Linux" in said
        assert "Capture comment:     fentry:ip_rcv { … }" in said
        assert "Number of interfaces in file: 5" in said
        assert "Number of stat entries = 1" in said
        # isb_osdrop (7) and isb_usrdeliv (8) of the first interface
        option = b"\x07\0\x08\0" + (42).to_bytes(8, "little") + b"\x08\0\x08\0"
        assert path.read_bytes().count(option + (2).to_bytes(8, "little")) == 1

    def test_each_interface_counts_its_own_losses(self, tmp_path: Path) -> None:
        path = tmp_path / "c.pcapng"
        with PacketSink([Site(1, str(path))], NAMES) as sink:
            sink.consume([s.sample(s.received(UDP4)), s.sample(s.received(UDP4, dev=LO))], 1 << 62)
            sink.set_lost(1, 100)
            sink.set_losses(
                [
                    Loss(1, 1, 7, 4026531992, b"veth0".ljust(16, b"\0"), 60),
                    Loss(1, 772, 1, 4026531992, b"lo".ljust(16, b"\0"), 30),
                    Loss(1, 778, 3, 4026531992, b"gre0".ljust(16, b"\0"), 9),
                    Loss(2, 1, 7, 4026531992, b"veth0".ljust(16, b"\0"), 5),
                ]
            )
        # isb_ifrecv (4), isb_filteraccept (6), isb_osdrop (7), isb_usrdeliv (8)
        options = b"".join(rb"\x0%d\0\x08\0(.{8})" % code for code in (4, 6, 7, 8))
        figures = re.findall(options, path.read_bytes(), re.DOTALL)
        assert [[int.from_bytes(each, "little") for each in one] for one in figures] == [
            [62, 62, 61, 1],
            [31, 31, 30, 1],
            [9, 9, 9, 0],
        ]
        said = subprocess.run(
            ["capinfos", str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert "Number of interfaces in file: 3" in said
        for hardware in ("Ethernet (ARPHRD type 1)", "loopback", "GRE over IPv4"):
            assert hardware in said
        assert (
            "1 of the lost packets may have been of other interfaces"
            in path.read_bytes().decode("latin-1")
        )

    def test_says_why_a_packet_was_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "d.pcapng"
        names = Names({1: "rawtracepoint:kfree_skb"}, reasons={3: "SKB_DROP_REASON_NO_SOCKET"})
        reason = layout.FIELDS["reason"].offset
        samples = [bytearray(s.sample(s.received(UDP4), mono_ns=n)) for n in range(3)]
        samples[1][reason] = 3
        samples[2][reason : reason + 4] = (0x30001).to_bytes(4, "little")
        with PacketSink([Site(1, str(path))], names) as sink:
            sink.consume([bytes(one) for one in samples], 1 << 62)
        comments = [each["frame.comment"] for each in readers.tshark(path, "frame.comment")]
        assert [comment.partition(" dropped ")[2] for comment in comments] == [
            "",
            "NO_SOCKET",
            "subsystem 3 reason 1",
        ]
        wanted = 'frame.comment contains "dropped NO_SOCKET"'
        done = subprocess.run(["tshark", "-r", path, "-Y", wanted], capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 1

    def test_comments_stay_right_when_more_processes_come_than_are_remembered(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "b.pcapng"
        skb = s.received(UDP4)
        pids = [*range(1, 5000), *range(1, 10)]
        write(path, [s.sample(skb, pid=pid, mono_ns=i) for i, pid in enumerate(pids)])
        comments = [meta.comments for _, meta in readers.scapy_pcapng(path)]
        assert comments == [
            [b"fentry:ip_rcv curl[%d] cpu 0 netns 4026531992" % pid] for pid in pids
        ]
        assert {meta.ifname for _, meta in readers.scapy_pcapng(path)} == {b"veth0"}

    def test_packets_of_another_link_type_get_an_interface_and_are_told(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "b.pcapng"
        samples = [
            s.sample(s.sent(frame), offset=14, mono_ns=i) for i, frame in enumerate((UDP4, ARP4))
        ]
        sink = write(path, samples, (14,))
        packets = readers.tshark(path, "frame.interface_id", "frame.protocols")
        assert [tuple(each.values()) for each in packets] == [
            ("0", "raw:ip:udp:data"),
            ("1", "eth:ethertype:arp"),
        ]
        assert sink.summary()[1] == (
            f"{path}: 1 packet with another link type than raw IP; Wireshark reads the file, "
            "tcpdump does not"
        )


PACKETS = st.lists(
    st.tuples(st.integers(0, (1 << 32) * 10**9 - 1), st.binary(max_size=300), st.integers(0, 999)),
    max_size=20,
)


@settings(deadline=None)
@given(PACKETS, st.sampled_from([linktype.ETHERNET, linktype.RAW]))
def test_pcap_gives_scapy_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[int, bytes, int]], link: int
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.pcap"
    writer = PcapWriter(OutputFile(str(path)), link)
    writer.begin()
    for time_ns, data, cut in packets:
        writer.add(time_ns, Frame(link, data, len(data) + cut))
    writer.close()
    assert readers.scapy_pcap(path) == (
        link,
        [readers.Read(time_ns, data, len(data) + cut) for time_ns, data, cut in packets],
    )


@settings(deadline=None)
@given(PACKETS, st.text(max_size=50).filter(lambda text: "\0" not in text))
def test_pcapng_gives_scapy_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[int, bytes, int]], comment: str
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.pcapng"
    names = Names({1: comment})
    writer = PcapngWriter(OutputFile(str(path)), names, 0, comment=comment)
    writer.begin()
    record = unpack(s.sample(s.received(UDP4)))
    for time_ns, data, cut in packets:
        writer.add(time_ns, Frame(linktype.ETHERNET, data, len(data) + cut), record)
    writer.close(1, 2)
    read = readers.scapy_pcapng(path)
    assert [packet for packet, _ in read] == [
        readers.Read(time_ns, data, len(data) + cut) for time_ns, data, cut in packets
    ]
    expected = f"{comment} curl[4242] cpu 0 netns 4026531992".encode()
    assert all(meta.comments == [expected] for _, meta in read)
