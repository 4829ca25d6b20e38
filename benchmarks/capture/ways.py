# SPDX-License-Identifier: Apache-2.0
"""Programs that capture packets, and one run of one of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.capture import traffic
from benchmarks.capture.meter import Meter, Used
from benchmarks.capture.traffic import Load
from benchmarks.guest import tracers
from benchmarks.guest.peers import BPFTRACE_ROOT

#: The ring that kcap has unless told otherwise, in tcpdump's KiB.
KCAP_RING_KIB = 4096
#: A pause between packets that everybody bears, nanoseconds.
PAUSE_NS = 15_000


class Way(NamedTuple):
    """A program that captures.

    :ivar name: what tables call it.
    :ivar command: what starts it; ``{directory}`` stands for where files go.
    :ivar ready: what it says once it captures.
    :ivar losses: where it says how many packets it has lost (a regular expression).
    :ivar root: the root directory it runs in, or ''.
    """

    name: str
    command: tuple[str, ...]
    ready: str
    losses: str
    root: str = ""

    def file(self, directory: str) -> str:
        """The file that it writes to."""
        words = " ".join(self.command).replace("{directory}", directory)
        found = re.search(rf"{re.escape(directory)}/[\w.-]+", words)
        assert found is not None
        return found[0]


class Captured(NamedTuple):
    """What a program made of the packets.

    :ivar packets: how many its file has.
    :ivar reported: how many it says it has lost.
    """

    packets: int
    reported: int


class Result(NamedTuple):
    """What one run came to."""

    sent: traffic.Sent
    captured: Captured
    used: Used

    @property
    def lost(self) -> int:
        """Packets that came in and are not in the file, whatever the program says."""
        return self.sent.packets - self.captured.packets


def kcap(name: str, place: str, file: str, *options: str) -> Way:
    """This kcap, at a place."""
    words = (sys.executable, "-m", "kcap", "capture", place, "-i", traffic.RECEIVER, *options)
    lost = r"^\S+ +\d+ +\d+ +\d+ +(\d+)$"  # the last column of the summary
    return Way(name, (*words, "-w", f"{{directory}}/{file}"), "capturing at", lost)


def tcpdump(name: str, *options: str) -> Way:
    """The guest's tcpdump."""
    words = ("tcpdump", "-n", "-i", traffic.RECEIVER, "-Q", "in", "-s", "262144", *options)
    lost = r"^(\d+) packets? dropped by kernel"
    return Way(name, (*words, "-w", "{directory}/tcpdump.pcap"), "listening on", lost)


def bpftrace() -> Way | None:
    """The bpftrace of the guest's disk, if it can write packets; says so if it cannot."""
    if not os.path.isdir(f"{BPFTRACE_ROOT}/usr"):
        print("bpftrace: left out; there is none")
        return None
    tracer = tracers.bpftrace()
    told = tracers.output_of(tracer, "--info")
    if not re.search(r"libpcap[^\n]*yes", told):
        print(f"bpftrace: left out; {tracers.version(tracer)} is built without libpcap")
        return None
    script = (
        'rawtracepoint:netif_receive_skb { skboutput("{directory}/bpftrace.pcap", args.skb, '
        "args.skb.len, 0); }"
    )
    lost = r"Lost (\d+) events"
    return Way("bpftrace", (*tracer.command, "-e", script), "Attach", lost, tracer.root)


def found() -> list[Way]:
    """The programs that can be had; tcpdump comes first."""
    place = "net:netif_receive_skb"
    peer = bpftrace()
    return [
        tcpdump("tcpdump"),
        kcap("kcap, pcap", place, "kcap.pcap"),
        kcap("kcap, pcapng", place, "kcap.pcapng"),
        kcap("kcap, kprobe", "kprobe:ip_rcv", "kprobe.pcap"),
        *([peer] if peer else []),
    ]


class Capture:
    """A way that captures; a context manager that ends it.

    :param nice: how far it stands back behind others.
    :raises RuntimeError: it did not start.
    """

    def __init__(self, way: Way, directory: str, nice: int = 0) -> None:
        self._file = way.file(directory)
        self._losses = way.losses
        words = [word.replace("{directory}", directory) for word in way.command]
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            words, stdout=self._output, stderr=self._output, preexec_fn=tracers.entering(way.root)
        )
        self._wait_for(way.ready)
        os.setpriority(os.PRIO_PROCESS, self.process.pid, nice)

    def _said(self) -> str:
        """What the program has printed."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def _wait_for(self, text: str) -> None:
        """Wait until the program says that it captures."""
        while text not in self._said():
            if self.process.poll() is not None:
                raise RuntimeError(self._said())
            time.sleep(0.1)
        time.sleep(1)

    def settle(self) -> None:
        """Wait until it has nothing left to do."""
        before = -1.0
        time.sleep(2)
        while (now := tracers.running_time(self.process.pid)) - before > 0.02:
            before = now
            time.sleep(1)

    def end(self) -> Captured:
        """End it; how many packets it has written, and how many it says it has lost."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        written = count_packets(self._file)
        os.unlink(self._file)
        reported = re.findall(self._losses, self._said(), re.MULTILINE)
        return Captured(written, sum(map(int, reported)))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()
        Path(self._file).unlink(missing_ok=True)


def measure(way: Way, directory: str, load: Load, nice: int = 0) -> Result:
    """One run: packets are sent while a way captures.

    :raises RuntimeError: the program did not start.
    """
    with Capture(way, directory, nice) as capture:
        meter = Meter(capture.process.pid)
        sent = traffic.send(load)
        capture.settle()
        used = meter.stop()
        return Result(sent, capture.end(), used)


def time_on_the_way(way: Way | None, directory: str, load: Load) -> float:
    """Seconds that the sender runs for packets of which the reader, stopped, reads none."""
    if way is None:
        return traffic.send(load).running
    with Capture(way, directory) as capture:
        traffic.send(load)  # memory is there, code has run
        capture.settle()
        capture.process.send_signal(signal.SIGSTOP)
        sent = traffic.send(load)
        capture.process.send_signal(signal.SIGCONT)
        return sent.running


def count_packets(path: str) -> int:
    """How many packets of the generator a file has, as tcpdump reads it."""
    done = subprocess.run(
        ["tcpdump", "-n", "-r", path, "--count", f"udp port {traffic.PORT}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"(\d+) packet", done.stdout + done.stderr)
    assert found is not None
    return int(found[1])
