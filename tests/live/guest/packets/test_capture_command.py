# SPDX-License-Identifier: Apache-2.0
"""``kcap capture``: the library's face of it, and the command line with files, pipes and lines."""

from __future__ import annotations

import os
import pwd
import re
import select
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kcap.errors import UsageError
from kcap.packet.decode import Packet
from kcap.probes.system import System
from kcap.session.capture import Capture, CaptureRequest, PlaceStats
from kcap.session.skb_functions import find_point
from support import PATIENCE
from support.net import Network, wait_until
from support.taps import read_capture
from support.tracing import KCAP


class Run:
    """A capture that a thread follows."""

    def __init__(self, request: CaptureRequest) -> None:
        self.capture = Capture(request)
        self.packets: list[Packet] = []
        self.stats: list[PlaceStats] = []
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        self.packets.extend(self.capture)

    def end(self) -> None:
        self.capture.stop()
        self.thread.join(PATIENCE)
        self.stats = self.capture.stats
        self.capture.close()


@contextmanager
def running(request: CaptureRequest) -> Iterator[Run]:
    run = Run(request)
    run.capture.attach()
    run.thread.start()
    try:
        yield run
    finally:
        run.end()


def test_several_places_write_to_one_file_what_the_filter_takes(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "all.pcapng"
    places = ("dev_hard_start_xmit", "net:netif_receive_skb", "kprobe:__dev_queue_xmit")
    with running(CaptureRequest(places, "udp port 7777", str(path))) as run:
        network.ping()
        network.udp(b"one")
        network.udp(b"two")
    assert [each.place for each in run.stats] == [
        "dev_hard_start_xmit", "netif_receive_skb", "__dev_queue_xmit",
    ]  # fmt: skip
    for each in run.stats:
        assert (each.matched, each.captured, each.lost) == (2, 2, 0)
        assert each.seen >= 3
    packets = read_capture(path).packets
    assert sorted(packet.data[-3:] for packet in packets) == [b"one"] * 3 + [b"two"] * 3
    assert all(len(packet.data) == packet.length == 45 for packet in packets)


def test_packets_are_yielded_when_nothing_is_written(network: Network) -> None:
    request = CaptureRequest(("net:netif_receive_skb",), "icmp6", interface=network.b.device)
    with running(request) as run:
        sent = network.ping6()
        wait_until(lambda: run.packets)
    packet = run.packets[0]
    assert packet.data == sent
    assert (packet.interface, packet.direction) == (network.b.device, "in")
    assert packet.function == "netif_receive_skb"
    assert not packet.linear_only


def test_kprobe_gives_the_packet_up_to_its_fragments(network: Network) -> None:
    with running(CaptureRequest(("kprobe:__dev_queue_xmit",), "icmp and greater 1000")) as run:
        sent = network.ping(b"x" * 1300)
        wait_until(lambda: run.packets)
    packet = run.packets[0]
    assert packet.data == sent[: len(packet.data)]
    assert len(packet.data) >= 14
    assert (packet.original_length, packet.linear_only) == (len(sent), True)


def test_capture_ends_after_as_many_packets_as_wanted(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "three.pcap"
    with running(CaptureRequest(("dev_hard_start_xmit",), "icmp", str(path), count=3)) as run:
        for number in range(10):
            network.ping(sequence=number)
        run.thread.join(PATIENCE)
        assert not run.thread.is_alive()
    assert len(read_capture(path).packets) == 3
    assert run.stats[0].captured == 3


def test_options_select_packets(network: Network) -> None:
    place = ("net:netif_receive_skb",)
    with network.b.entered():
        netns = Path("/proc/thread-self/ns/net").stat().st_ino
    with (
        running(CaptureRequest(place, "icmp", netns=network.b.namespace)) as by_name,
        running(CaptureRequest(place, "icmp", netns=str(netns))) as by_number,
        running(CaptureRequest(place, "icmp", netns=network.a.namespace)) as answers,
        running(CaptureRequest(place, "icmp", mark="1")) as marked,
        running(CaptureRequest(place, "icmp", interface="nosuch")) as nowhere,
        running(CaptureRequest(place, "icmp", snaplen=20)) as short,
    ):
        network.ping()
        wait_until(lambda: by_name.packets and by_number.packets and answers.packets)
        wait_until(lambda: len(short.packets) >= 2)
    assert {packet.netns for packet in by_name.packets + by_number.packets} == {netns}
    assert netns not in {packet.netns for packet in answers.packets}
    assert marked.packets == nowhere.packets == []
    assert {len(packet.data) for packet in short.packets} == {14 + 20}


def test_functions_without_packets_are_refused_with_the_way_out() -> None:
    system = System()
    with pytest.raises(UsageError, match=r"vfs_read\(\) takes no packet"):
        find_point("vfs_read", system)
    with pytest.raises(UsageError, match="there is no function ip_rcvx") as caught:
        find_point("ip_rcvx", system)
    assert "ip_rcv" in (caught.value.hint or "")
    assert find_point("dev_hard_start_xmit", system).skb == "args.first"
    assert find_point("kprobe:dev_hard_start_xmit", system).skb == "((struct sk_buff *)arg0)"


def test_stream_carries_packets_while_the_capture_runs(network: Network, tmp_path: Path) -> None:
    command = [*KCAP, "capture", "net:netif_receive_skb", "-f", "udp port 7777", "-w", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"capturing at rawtracepoint:netif_receive_skb" in process.stderr.readline()
        data, out = bytearray(), process.stdout.fileno()
        network.udp(b"first")
        while b"first" not in data:  # the capture goes on: nothing but the tick flushes
            data += os.read(out, 1 << 16)
        assert process.poll() is None
        network.udp(b"second")
        while b"second" not in data:
            data += os.read(out, 1 << 16)
        process.terminate()
        data += process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait(PATIENCE) == 0
    (tmp_path / "stream.pcapng").write_bytes(data)
    packets = read_capture(tmp_path / "stream.pcapng").packets
    assert [packet.data[42:] for packet in packets] == [b"first", b"second"]
    assert re.search(r"netif_receive_skb +\d+ +2 +2 +0", said)


def test_stream_ends_when_its_reader_goes(network: Network, tmp_path: Path) -> None:
    command = [*KCAP, "capture", "net:netif_receive_skb", "-w", "-", "--pcap"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.readline()
        network.ping()
        assert process.stdout.read(4) == b"\x4d\x3c\xb2\xa1"
        process.stdout.close()
        network.ping()
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in process.stderr.read()


def test_stream_ends_when_its_reader_goes_though_no_packet_comes(tmp_path: Path) -> None:
    command = [*KCAP, "capture", "net:netif_receive_skb", "-f", "udp port 1", "-w", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in process.stderr.read()


def test_lines_say_what_a_packet_is(network: Network, tmp_path: Path) -> None:
    command = [*KCAP, "capture", "net:netif_receive_skb", "-f", "icmp", "-c", "1", "-v"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        network.ping(sequence=7)
        out, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    address = network.b.ipv4
    wanted = (
        rf"\d\d:\d\d:\d\d\.\d{{6}} {network.b.device} in netif_receive_skb \S+\[\d+\] "
        rf"IP {network.a.ipv4} > {address}: ICMP echo request, id 1, seq 7, length 12 "
        r"\| cpu \d+ netns \d+ mark 0x0 0x[0-9a-f]+\n"
    )
    assert re.fullmatch(wanted, out), out + said


@contextmanager
def written(directory: Path) -> Iterator[None]:
    """Wait until something has been written to a directory's files since the block began."""

    def state() -> list[tuple[str, int, int]]:
        found = []
        for each in sorted(directory.iterdir()):
            with suppress(FileNotFoundError):  # it has made room for another
                status = each.stat()
                found.append((each.name, status.st_ino, status.st_mtime_ns))
        return found

    before = state()
    yield
    wait_until(lambda: state() != before)


def test_files_rotate_and_belong_to_another_user(network: Network) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        command = [*KCAP, "capture", "net:netif_receive_skb", "-f", "udp port 7777"]
        command += ["-w", str(directory / "out.pcapng"), "-C", "2k", "-W", "3", "-Z", "nobody"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "capturing at" in process.stderr.readline()
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t{nobody.pw_uid}" in status
            assert re.search(r"CapEff:\t000000c000000000", status)  # CAP_PERFMON, CAP_BPF
            for number in range(12):
                with written(directory):  # so that they are not written together
                    network.udp(b"%03d" % number + bytes(997))
            process.terminate()
            said = process.stderr.read()
            assert process.wait(PATIENCE) == 0, said
        files = sorted(directory.iterdir())
        assert [each.name for each in files] == [f"out.pcapng{n}" for n in range(3)]
        assert {each.stat().st_uid for each in files} == {nobody.pw_uid}
        packets = [p.data[42:45] for each in files for p in read_capture(each).packets]
        assert len(packets) >= 4
        assert b"011" in packets
        assert re.search(r"netif_receive_skb +\d+ +12 +12 +0", said)


def test_list_has_functions_with_their_argument(tmp_path: Path) -> None:
    done = subprocess.run(
        [*KCAP, "capture", "--list", "dev_hard_start_xmit", "kfree_skb"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [re.split("  +", line) for line in lines] == [
        ["fentry:dev_hard_start_xmit (first)", "a packet is given to the driver"],
        *([["fentry:kfree_skb (skb)", "dropped"]] if "fentry:kfree_skb" in done.stdout else []),
        ["rawtracepoint:kfree_skb (skb)", "dropped"],
    ]


def test_extcap_writes_a_pcapng_into_wiresharks_pipe(network: Network, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*KCAP, "extcap", "--capture", "--extcap-interface", "kcap", "--fifo", str(fifo)]
    command += ["--function", "net:netif_receive_skb", "--extcap-capture-filter", "udp port 7777"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        data = bytearray()
        with open(fifo, "rb") as reader:
            while b"by extcap" not in data:  # the header comes before it is attached
                assert process.poll() is None
                network.ping(b"not this")
                network.udp(b"by extcap")
                if select.select([reader], [], [], 1)[0]:
                    data += reader.read1()
            process.terminate()
            data += reader.read()
        assert process.wait(PATIENCE) == 0, process.stderr.read()
    (tmp_path / "extcap.pcapng").write_bytes(data)
    packets = read_capture(tmp_path / "extcap.pcapng").packets
    assert {packet.data[42:] for packet in packets} == {b"by extcap"}
