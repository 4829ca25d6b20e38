# SPDX-License-Identifier: Apache-2.0
"""The sink: which packet goes where, in which order, and what is told about the rest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.errors import FileError
from kcap.packet import linktype
from kcap.packet.record import Names, Site
from kcap.packet.sink import HOLD_BACK_NS, PacketSink
from kcap.packet.stream import Discarded, StreamClosedError, StreamFile
from support import tshark
from unit.packet import readers
from unit.packet import skb_samples as s
from unit.packet.limits import size_limit
from unit.packet.situations import PING4, UDP4

NAMES = Names({1: "fentry:ip_rcv"})
LATER = 1 << 62


def numbered(number: int, site: int = 1) -> bytes:
    """A sample of the time ``number`` (ns), recognisable by it."""
    return s.sample(s.received(UDP4, mark=number), mono_ns=number, site=site)


def times(path: Path) -> list[int]:
    return [each.time_ns - s.REALTIME_OFFSET for each in readers.scapy_pcap(path)[1]]


def test_sites_write_to_their_own_files(tmp_path: Path) -> None:
    a, b = tmp_path / "a.pcap", tmp_path / "b.pcapng"
    with PacketSink([Site(1, str(a)), Site(2, str(b)), Site(3, str(a))], NAMES) as sink:
        sink.consume([numbered(1, 1), numbered(2, 2), numbered(3, 3)], LATER)
    assert times(a) == [1, 3]
    assert len(readers.scapy_pcapng(b)) == 1
    assert [sink.stats[site].written for site in (1, 2, 3)] == [1, 1, 1]


def test_two_spellings_of_a_path_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sites = [Site(1, "a.pcap"), Site(2, "./a.pcap"), Site(3, str(tmp_path / "a.pcap"))]
    with PacketSink(sites, NAMES) as sink:
        sink.consume([numbered(1, 1), numbered(2, 2), numbered(3, 3)], LATER)
    assert times(tmp_path / "a.pcap") == [1, 2, 3]


def test_capital_suffix_and_no_suffix_choose_the_format(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.PCAPNG", "b", "c.pcap", "d.txt")]
    sites = [Site(number, str(path)) for number, path in enumerate(paths, 1)]
    with PacketSink(sites, NAMES) as sink:
        sink.start()
    magic = [path.read_bytes()[:4].hex() for path in paths]
    assert magic == ["0a0d0d0a", "4d3cb2a1", "4d3cb2a1", "4d3cb2a1"]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 10_000), max_size=8), min_size=1, max_size=6),
    st.sampled_from([bytes, memoryview]),
)
def test_cpus_are_merged_by_time_when_nothing_is_later_than_the_hold_back(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[int]], kind: type
) -> None:
    """Round i's packets have times in [i, i + 1) windows of the hold-back, in any order."""
    path = tmp_path_factory.mktemp("merge") / "a.pcap"
    window = 10_000
    with PacketSink([Site(1, str(path))], NAMES, hold_back_ns=window) as sink:
        for number, offsets in enumerate(rounds):
            samples = [kind(numbered(number * window + offset)) for offset in offsets]
            sink.consume(samples, drained_at_ns=(number + 1) * window)
    written = times(path)
    expected = [i * window + offset for i, offsets in enumerate(rounds) for offset in offsets]
    assert written == sorted(expected)
    assert sink.late == 0


def test_young_packets_are_copied_and_held_for_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    ring = bytearray(numbered(5_000))
    with PacketSink([Site(1, str(path))], NAMES, hold_back_ns=1_000) as sink:
        assert sink.consume([memoryview(ring)], drained_at_ns=5_500) == 0
        ring[:] = bytes(len(ring))
        assert times(path) == []
        assert sink.consume([numbered(4_800)], drained_at_ns=7_000) == 2
        assert times(path) == [4_800, 5_000]


def test_packet_that_comes_too_late_is_written_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PacketSink([Site(1, str(path))], NAMES) as sink:
        sink.consume([numbered(10)], LATER)
        sink.consume([numbered(4), numbered(20)], LATER)
    assert times(path) == [10, 4, 20]
    assert sink.late == 1
    assert sink.summary()[-1] == "1 packet written out of order"


def test_rings_are_read_as_the_sink_goes_so_now_is_before_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PacketSink([Site(1, str(path))], NAMES, hold_back_ns=0) as sink:
        skb = s.received(UDP4)
        samples = (s.sample(skb, mono_ns=time.monotonic_ns()) for _ in range(2))
        assert sink.consume(samples) == 0
        assert sink.consume([]) == 2


def test_packets_from_after_the_end_are_dropped_wherever_they_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PacketSink([Site(1, str(path))], NAMES) as sink:
        sink.consume([numbered(10), numbered(31), numbered(30)], 0)  # all are held back
        sink.end_ns = 30
        sink.consume([numbered(40), numbered(20)], LATER)
    assert times(path) == [10, 20, 30]


@pytest.mark.parametrize(
    "sample",
    [b"", bytes(100), numbered(1)[:-16], numbered(1, site=9),
     numbered(1)[:144] + b"\xff" + numbered(1)[145:]],
    ids=["empty", "short", "cut", "unknown site", "caplen differs"],
)  # fmt: skip
def test_malformed_sample_is_counted_and_left_out(tmp_path: Path, sample: bytes) -> None:
    path = tmp_path / "a.pcap"
    with PacketSink([Site(1, str(path))], NAMES) as sink:
        sink.consume([sample, numbered(2)], LATER)
    assert times(path) == [2]
    assert sink.malformed == 1
    assert sink.summary()[-1] == "1 packet record malformed and left out"


class TestStart:
    def test_that_fails_leaves_no_file(self, tmp_path: Path) -> None:
        good, bad = tmp_path / "good.pcap", tmp_path / "nowhere" / "bad.pcap"
        with pytest.raises(FileError, match="nowhere"):
            PacketSink([Site(1, str(good)), Site(2, str(bad))], NAMES)
        assert list(tmp_path.iterdir()) == []

    def test_that_never_comes_leaves_files_as_they_were(self, tmp_path: Path) -> None:
        old, new = tmp_path / "old.pcap", tmp_path / "new.pcapng"
        old.write_bytes(b"yesterday")
        PacketSink([Site(1, str(old)), Site(2, str(new))], NAMES).close()
        assert old.read_bytes() == b"yesterday"
        assert not new.exists()

    def test_writes_headers_so_that_the_files_are_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pcap"
        with PacketSink([Site(1, str(path))], NAMES) as sink:
            sink.start()
            assert readers.scapy_pcap(path) == (linktype.ETHERNET, [])


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
class TestFullDisk:
    def test_error_names_the_file_and_leaves_whole_packets(
        self, tmp_path: Path, suffix: str
    ) -> None:
        path, other = tmp_path / f"a.{suffix}", tmp_path / "other.pcap"
        sites = [Site(1, str(path)), Site(2, str(other))]
        samples = [numbered(number) for number in range(1, 101)] + [numbered(200, 2)]
        sink = PacketSink(sites, NAMES)
        with size_limit(1500), pytest.raises(FileError, match="File too large") as caught:
            sink.consume(samples, LATER)
        assert caught.value.path == str(path)
        assert path.stat().st_size <= 1500
        assert path.stat().st_size > 1200
        sink.close()
        assert tshark.complaints(path) == []
        packets = readers.tcpdump(path)[1]
        assert 5 < len(packets) < 100
        assert all(each.data == UDP4 for each in packets)
        assert times(other) == [200]
        kept = len(packets)
        assert sink.summary()[0].startswith(f"{path}: {kept} packets written, ")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
    def test_no_space_left(self, tmp_path: Path, suffix: str) -> None:
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=True)
        try:
            path = small / f"a.{suffix}"
            sink = PacketSink([Site(1, str(path))], NAMES)
            with pytest.raises(FileError, match="No space left on device") as caught:
                sink.consume([numbered(number) for number in range(1, 1000)], LATER)
            assert caught.value.hint is not None
            assert caught.value.hint.startswith("free some space")
            with contextlib.suppress(FileError):  # the statistics may still fit or not
                sink.close()
            assert len(readers.tcpdump(path)[1]) > 50
        finally:
            subprocess.run(["umount", small], check=True)


FLOOD = """
import sys
sys.path[:0] = sys.argv[2:]
from unit.packet import skb_samples as s
from kcap.packet.record import Names, Site
from kcap.packet.sink import HOLD_BACK_NS, PacketSink
from kcap.packet.stream import Discarded, StreamClosedError, StreamFile
frame = bytes.fromhex(sys.stdin.read())
sink = PacketSink([Site(1, sys.argv[1])], Names({}))
sink.keep()
samples = [s.sample(s.received(frame), mono_ns=n) for n in range(500)]
while True:
    sink.consume(samples, 1 << 62)
"""


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_file_is_readable_up_to_the_last_write_after_a_kill(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    here = Path(__file__).parents[2]
    sources = Path(sys.modules["kcap"].__file__ or "").parent.parent
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD, str(path), str(here), str(sources)], stdin=subprocess.PIPE
    )
    assert flood.stdin is not None
    flood.stdin.write(PING4.hex().encode())
    flood.stdin.close()
    while not path.exists() or path.stat().st_size < 1_000_000:
        assert flood.poll() is None
        time.sleep(0.01)
    flood.send_signal(signal.SIGKILL)
    flood.wait()
    # What kcap has locked is free once the process that watched over it has done its work, too.
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "frame.len"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lengths = done.stdout.split()
    assert set(lengths) == {str(len(PING4))}
    assert len(lengths) >= 1_000_000 // 300


def test_limit_is_kept_to_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PacketSink([Site(1, str(path))], NAMES, limit=3) as sink:
        sink.consume([numbered(5), numbered(2)], 4 + HOLD_BACK_NS)
        assert not sink.complete
        sink.consume([numbered(4), numbered(3), numbered(9)], LATER)
        assert sink.complete
        sink.consume([numbered(10)], LATER)
    assert times(path) == [2, 3, 4]
    assert sink.stats[1].written == 3


@pytest.mark.parametrize(("name", "read"), [("out.pcap", "pcap"), ("out.pcapng", "pcapng")])
def test_stream_takes_what_a_file_would(tmp_path: Path, name: str, read: str) -> None:
    ends = os.pipe()
    with PacketSink([Site(1, name)], NAMES, files={name: StreamFile(ends[1], name)}) as sink:
        sink.consume([numbered(1), numbered(2)], LATER)
        head = os.read(ends[0], 1 << 16)  # there before the sink is closed
    os.close(ends[1])
    with os.fdopen(ends[0], "rb") as pipe:
        (tmp_path / name).write_bytes(head + pipe.read())
    assert not Path(name).exists()
    if read == "pcap":
        assert times(tmp_path / name) == [1, 2]
    else:
        assert len(readers.scapy_pcapng(tmp_path / name)) == 2


def test_stream_without_a_reader_says_so() -> None:
    ends = os.pipe()
    os.close(ends[0])
    sink = PacketSink([Site(1, "out.pcap")], NAMES, files={"out.pcap": StreamFile(ends[1], "out")})
    with pytest.raises(StreamClosedError):
        sink.consume([numbered(1)], LATER)
    os.close(ends[1])


def test_discarded_packets_are_counted() -> None:
    discarded = Discarded("nowhere.pcap")
    with PacketSink([Site(1, "nowhere.pcap")], NAMES, files={"nowhere.pcap": discarded}) as sink:
        sink.consume([numbered(1), numbered(2)], LATER)
    assert sink.stats[1].written == 2
    assert discarded.records == 3  # the file's header, too
    assert not Path("nowhere.pcap").exists()
