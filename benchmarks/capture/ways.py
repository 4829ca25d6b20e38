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
from typing import NamedTuple

from benchmarks.capture import traffic
from benchmarks.capture.meter import Meter, Used
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
    :ivar root: the root directory it runs in, or ''.
    """

    name: str
    command: tuple[str, ...]
    ready: str
    root: str = ""

    def file(self, directory: str) -> str:
        """The file that it writes to."""
        words = " ".join(self.command).replace("{directory}", directory)
        found = re.search(rf"{re.escape(directory)}/[\w.-]+", words)
        assert found is not None
        return found[0]


class Result(NamedTuple):
    """What one run came to."""

    sent: traffic.Sent
    lost: int
    used: Used


def kcap(name: str, place: str, file: str, *options: str) -> Way:
    """This kcap, at a place."""
    words = (sys.executable, "-m", "kcap", "capture", place, "-i", traffic.RECEIVER, *options)
    return Way(name, (*words, "-w", f"{{directory}}/{file}"), "capturing at")


def tcpdump(name: str, *options: str) -> Way:
    """The guest's tcpdump."""
    words = ("tcpdump", "-n", "-i", traffic.RECEIVER, "-Q", "in", "-s", "262144", *options)
    return Way(name, (*words, "-w", "{directory}/tcpdump.pcap"), "listening on")


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
    return Way("bpftrace", (*tracer.command, "-e", script), "Attach", tracer.root)


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
        words = [word.replace("{directory}", directory) for word in way.command]
        with tempfile.TemporaryFile() as said:
            self.process = subprocess.Popen(
                words, stdout=said, stderr=said, preexec_fn=tracers.entering(way.root)
            )
            self._wait_for(way.ready, said.fileno())
        os.setpriority(os.PRIO_PROCESS, self.process.pid, nice)

    def _wait_for(self, text: str, said: int) -> None:
        """Wait until the program says that it captures."""
        while text not in os.pread(said, 1 << 16, 0).decode():
            if self.process.poll() is not None:
                raise RuntimeError(os.pread(said, 1 << 16, 0).decode())
            time.sleep(0.1)
        time.sleep(1)

    def settle(self) -> None:
        """Wait until it has nothing left to do."""
        before = -1.0
        time.sleep(2)
        while (now := tracers.running_time(self.process.pid)) - before > 0.02:
            before = now
            time.sleep(1)

    def end(self) -> int:
        """End it; how many packets it has written."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        written = count_packets(self._file)
        os.unlink(self._file)
        return written

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        Path(self._file).unlink(missing_ok=True)


def measure(
    way: Way, directory: str, count: int, size: int, pause_ns: int, nice: int = 0
) -> Result:
    """One run: packets are sent while a way captures.

    :raises RuntimeError: the program did not start.
    """
    with Capture(way, directory, nice) as capture:
        meter = Meter(capture.process.pid)
        sent = traffic.send(count, size, pause_ns)
        capture.settle()
        used = meter.stop()
        return Result(sent, sent.packets - capture.end(), used)


def time_on_the_way(way: Way | None, directory: str, count: int, size: int) -> float:
    """Seconds that the sender runs for packets of which the reader, stopped, reads none."""
    if way is None:
        return traffic.send(count, size, 0).running
    with Capture(way, directory) as capture:
        traffic.send(count, size, 0)  # memory is there, code has run
        capture.settle()
        capture.process.send_signal(signal.SIGSTOP)
        sent = traffic.send(count, size, 0)
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
