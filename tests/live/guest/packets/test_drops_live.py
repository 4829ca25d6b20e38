# SPDX-License-Identifier: Apache-2.0
"""``kcap drops`` counts a packet that nobody waits for, with its reason, place and bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support import frames
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
    command = [*KCAP, "drops", "-f", f"udp port {PORT}", "-w", "drops.pcapng"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stderr is not None
        assert "counting dropped packets" in process.stderr.readline()
        sent = [send(network) for _ in range(3)]
        process.terminate()
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["count", "reason", "place"]
    reason = "-" if kernel == "5.10" else "NO_SOCKET"
    (row,) = [line for line in lines[1:] if line[1] == reason]
    assert row[0] == "3"
    assert "udp" in row[2]
    data = [packet.data for packet in read_capture(tmp_path / "drops.pcapng").packets]
    assert data == sent
