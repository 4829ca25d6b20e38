# SPDX-License-Identifier: Apache-2.0
"""``kcap drops`` counts a packet that nobody waits for, with its reason, place and bytes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

from kcap.probes.system import System
from kcap.session.capture import CaptureRequest
from kcap.session.drop_reasons import Reasons
from kcap.session.drops import Drops
from support import PATIENCE, frames, pcapng
from support.introduced import number
from support.net import Network, wait_until
from support.taps import read_capture
from support.tracing import KCAP

PORT = 4999  # nobody listens there


def nobodys_frame(network: Network) -> bytes:
    a, b = network.a, network.b
    datagram = frames.udp(a.ipv4, b.ipv4, (4000, PORT), b"to nobody")
    packet = frames.ipv4(a.ipv4, b.ipv4, frames.UDP, datagram)
    return frames.ethernet(b.mac, a.mac, frames.ETH_P_IP, packet)


def send(network: Network) -> bytes:
    frame = nobodys_frame(network)
    network.a.send(frame)
    return frame


def unwanted_datagrams(network: Network) -> int:
    """How many UDP datagrams came to b that nobody waited for."""
    with network.b.entered():
        names, values = (
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Udp:")
        )
    return int(values[names.index("NoPorts")])


def test_drop_is_counted_with_reason_and_place_and_kept(
    network: Network, kernel: str, tmp_path: Path
) -> None:
    command = [*KCAP, "drops", "-f", f"udp port {PORT}", "-w", "drops.pcapng", "--stack"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stderr is not None
        assert "counting dropped packets" in process.stderr.readline()
        before = unwanted_datagrams(network)
        sent = [send(network) for _ in range(3)]
        wait_until(lambda: unwanted_datagrams(network) == before + 3)
        process.terminate()
        out, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    each, _, table = out.partition("count  ")
    reason = "-" if kernel == "5.10" else "NO_SOCKET"
    heads = [line.split() for line in each.splitlines() if not line.startswith(" ")]
    assert len(heads) == 3, out
    for _, interface, said_reason, place, _, *what in heads:
        assert (interface, said_reason) == (
            f"{network.b.namespace}/{network.b.device}", reason,
        )  # fmt: skip
        assert "udp" in place
        assert " ".join(what) == (
            f"IP {network.a.ipv4}.4000 > {network.b.ipv4}.{PORT}: UDP, length 9"
        )
    functions = [line.strip().partition("+")[0] for line in each.splitlines() if line[:1] == " "]
    assert functions.count("ip_local_deliver_finish") == 3, each
    assert "bpf" not in each
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["reason", "place", "interface", "process"]
    (row,) = [line for line in rows[1:] if line[1] == reason]
    assert row[0] == "3"
    assert "udp" in row[2]
    assert row[3] == f"{network.b.namespace}/{network.b.device}"
    data = [packet.data for packet in read_capture(tmp_path / "drops.pcapng").packets]
    assert data == sent
    comments = [packet.comment for packet in pcapng.read(tmp_path / "drops.pcapng").packets]
    wanted = "" if kernel == "5.10" else "dropped NO_SOCKET"
    assert all(comment.startswith("rawtracepoint:vmlinux:kfree_skb ") for comment in comments)
    assert all(comment.endswith(wanted) for comment in comments), comments
    assert kernel == "5.10" or len(comments) == 3


def test_packets_keep_their_own_reason_and_place_when_the_ring_is_full(
    network: Network, kernel: str, tmp_path: Path
) -> None:
    """Frames of two kinds, dropped at places of their own, in sk_buffs at the same addresses."""
    udp = nobodys_frame(network)
    other = frames.ethernet(network.b.mac, network.a.mac, 0x88B6, bytes(len(udp) - 14))
    command = [*KCAP, "drops", "--stack", "--json", "-f", f"udp port {PORT} or ether proto 0x88b6"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True,
        env={**os.environ, "BPFTRACE_PERF_RB_PAGES": "1"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "counting dropped packets" in process.stderr.readline()
        with network.a.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sender:
            sender.bind((network.a.device, 0))
            for number in range(500):
                sender.send(udp)
                sender.send(other)
                if number % 25 == 0:
                    time.sleep(0.05)
        process.terminate()
        out, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    found = [json.loads(line) for line in out.splitlines()]
    lost = sum(int(line.split()[0]) for line in said.splitlines() if "packets were lost" in line)
    assert len(found) + lost == 1000
    assert found
    assert lost, "the ring was never full"
    kinds = set()
    for each in found:
        is_udp, place = "UDP" in each["what"], each["place"]
        assert ("udp" in place) == is_udp, each
        assert ("ip_local_deliver_finish" in str(each["stack"])) == is_udp, each
        kinds.add((is_udp, each["reason"]))
    no_socket, unhandled = ("NO_SOCKET", "UNHANDLED_PROTO") if kernel != "5.10" else (None, None)
    assert kinds == {(True, no_socket), (False, unhandled)}


def test_reasons_of_modules_have_names(kernel: str) -> None:
    subprocess.run(["modprobe", "openvswitch"], check=True)
    names = Reasons.of(System()).names
    assert kernel == "5.10" or "NO_SOCKET" in names.values()
    if number(kernel) >= (6, 12):  # openvswitch has reasons of its own since 6.6
        subsystem = {value >> 16 for value, name in names.items() if name.startswith("OVS_DROP_")}
        assert len(subsystem) == 1
        assert subsystem != {0}


def test_what_stands_in_the_place_of_a_device_is_not_taken_for_one(
    network: Network, tmp_path: Path
) -> None:
    """Fragments that wait have the links of a tree where the device was."""
    a, b = network.a, network.b
    with b.entered():
        Path("/proc/sys/net/ipv4/ipfrag_time").write_text("1")
    with Drops(CaptureRequest((), "ip[6:2] & 0x3fff != 0")) as drops:
        drops.attach()
        with a.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with sender:
            for number in range(8):  # with gaps: none is joined to another
                packet = bytearray(frames.ipv4(a.ipv4, b.ipv4, 253, bytes(8)))
                packet[6:8] = (0x2000 | 4 * number).to_bytes(2)
                sender.sendto(packet, (b.ipv4, 0))  # the kernel writes the checksum
        wait_until(lambda: sum(each.count for each in drops.table) >= 8)
        rows = drops.table
    assert any(each.place.startswith("inet_frag") for each in rows)
    assert {name for each in rows for name in each.interfaces} <= {f"{b.namespace}/{b.device}"}
