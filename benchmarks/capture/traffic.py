# SPDX-License-Identifier: Apache-2.0
"""Packets for the capture benchmarks: the kernel's own generator (pktgen) and a veth pair."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: Where packets are sent, and where they come in and are captured.
SENDER, RECEIVER = "bench0", "bench1"
#: UDP port of every packet.
PORT = 9
_PKTGEN = Path("/proc/net/pktgen")


class Load(NamedTuple):
    """Packets that are sent.

    :ivar packets: how many.
    :ivar size: bytes of a frame.
    :ivar pause_ns: nanoseconds from the start of one to the start of the next, at least; the
        generator does not sleep in them. 0: without a pause.
    """

    packets: int
    size: int
    pause_ns: int = 0


class Sent(NamedTuple):
    """What the generator did.

    :ivar packets: how many came in at the other end.
    :ivar seconds: how long it took.
    :ivar running: seconds that its thread ran, the packets' way to the other end included.
    """

    packets: int
    seconds: float
    running: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds


def set_up() -> None:
    """Make the veth pair and start the packet generator."""
    subprocess.run(["modprobe", "pktgen"], check=True)
    lines = (
        f"link add {SENDER} address 02:00:00:00:00:10 type veth peer name {RECEIVER} "
        "address 02:00:00:00:00:11",
        f"link set {SENDER} mtu 9000 up",
        f"link set {RECEIVER} mtu 9000 up",
    )
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    # Packets go straight to the taps of the other end, however many they are.
    Path("/proc/sys/net/core/netdev_max_backlog").write_text("1000000")
    for device in (SENDER, RECEIVER):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    Path("/proc/sys/kernel/bpf_stats_enabled").write_text("1")
    # Without groups of their own for sessions, a reader's nice counts beside the generator.
    with suppress(FileNotFoundError):
        Path("/proc/sys/kernel/sched_autogroup_enabled").write_text("0")


def send(load: Load) -> Sent:
    """Send UDP packets."""
    _tell("kpktgend_0", "rem_device_all", f"add_device {SENDER}")
    _tell(
        SENDER, f"count {load.packets}", f"pkt_size {load.size}", f"delay {load.pause_ns}",
        "clone_skb 0", "dst_mac 02:00:00:00:00:11", "src_min 10.9.0.1", "dst 10.9.0.2",
        f"udp_dst_min {PORT}", f"udp_dst_max {PORT}",
    )  # fmt: skip
    received, running = _received(), _running()
    _tell("pgctrl", "start")
    result = (_PKTGEN / SENDER).read_text()
    found = re.search(r"OK: (\d+)\(", result)
    if found is None:
        raise RuntimeError(f"pktgen: {result.splitlines()[-1]}")
    return Sent(_received() - received, int(found[1]) / 1e6, _running() - running)


def _tell(file: str, *lines: str) -> None:
    for line in lines:
        (_PKTGEN / file).write_text(line + "\n")


def _received() -> int:
    return int(Path(f"/sys/class/net/{RECEIVER}/statistics/rx_packets").read_text())


def _running() -> float:
    """Seconds that the generator's thread has run."""
    from benchmarks.guest.tracers import running_time

    return running_time(_generator())


def _generator() -> int:
    """The process id of pktgen's thread for the first CPU."""
    for entry in Path("/proc").glob("[0-9]*/comm"):
        if entry.read_text().strip() == "kpktgend_0":
            return int(entry.parent.name)
    raise RuntimeError("pktgen has no thread")
