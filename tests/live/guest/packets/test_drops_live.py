# SPDX-License-Identifier: Apache-2.0
"""``kcap drops`` counts a packet that nobody waits for, with its reason, place and bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kcap.probes.system import System
from kcap.session.drop_reasons import Reasons
from support import frames, pcapng
from support.introduced import number
from support.net import Network
from support.taps import read_capture
from support.tracing import KCAP

PORT = 4999  # nobody listens there


def send(network: Network) -> bytes:
    a, b = network.a, network.b
    datagram = frames.udp(a.ipv4, b.ipv4, (4000, PORT), b"to nobody")
    packet = frames.ipv4(a.ipv4, b.ipv4, frames.UDP, datagram)
    frame = frames.ethernet(b.mac, a.mac, frames.ETH_P_IP, packet)
    a.send(frame)
    return frame


def test_drop_is_counted_with_reason_and_place_and_kept(
    network: Network, kernel: str, tmp_path: Path
) -> None:
    command = [*KCAP, "drops", "-f", f"udp port {PORT}", "-w", "drops.pcapng", "--stack"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stderr is not None
        assert "counting dropped packets" in process.stderr.readline()
        sent = [send(network) for _ in range(3)]
        process.terminate()
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    each, _, table = out.partition("count  ")
    reason = "-" if kernel == "5.10" else "NO_SOCKET"
    heads = [line.split() for line in each.splitlines() if not line.startswith(" ")]
    assert len(heads) == 3, out
    for _, interface, said_reason, place, _, *what in heads:
        assert (interface, said_reason) == (network.b.device, reason)
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
    assert row[3] == network.b.device
    data = [packet.data for packet in read_capture(tmp_path / "drops.pcapng").packets]
    assert data == sent
    comments = [packet.comment for packet in pcapng.read(tmp_path / "drops.pcapng").packets]
    wanted = "" if kernel == "5.10" else "dropped NO_SOCKET"
    assert all(comment.startswith("rawtracepoint:vmlinux:kfree_skb ") for comment in comments)
    assert all(comment.endswith(wanted) for comment in comments), comments
    assert kernel == "5.10" or len(comments) == 3


def test_reasons_of_modules_have_names(kernel: str) -> None:
    subprocess.run(["modprobe", "openvswitch"], check=True)
    names = Reasons.of(System()).names
    assert kernel == "5.10" or "NO_SOCKET" in names.values()
    if number(kernel) >= (6, 12):  # openvswitch has reasons of its own since 6.6
        subsystem = {value >> 16 for value, name in names.items() if name.startswith("OVS_DROP_")}
        assert len(subsystem) == 1
        assert subsystem != {0}
