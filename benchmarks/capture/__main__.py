# SPDX-License-Identifier: Apache-2.0
"""What capturing costs: kcap, tcpdump and bpftrace on the same traffic, in turn (A B A B).

    python -m benchmarks.capture [--kernel 6.12] [--parts cost,loss] [--sizes 64,1500]

Boots a guest of one CPU whose clock counts instructions (docs/performance.md), so that figures do
not depend on what else this machine does; ``--inside`` runs on the machine that it is started on,
as root, on a real CPU. The kernel's own packet generator (pktgen) sends UDP packets into a veth
pair; every way captures them whole at the other end to a file in memory: tcpdump from its packet
socket, the others at net:netif_receive_skb, the tracepoint beside it (and once at a kprobe, where
another helper has to do).

``cost``: packets come slowly enough for all. Printed are nanoseconds of CPU a packet, of the
program in user space and in the kernel, and of its BPF programs where there are any.

``path``: what a packet costs its sender more than if nobody captured, in nanoseconds, while the
program that captures is stopped: all that is done for it in the kernel, BPF or not.

``burst``: more and more packets come without a pause, while the program that captures stands back
behind all others (``--nice``), until everybody has lost some: who loses from when on. Each way has
the ring that it has by default; tcpdump runs once more with one as large as kcap's (``-B 4096``).

``loss``: the steady rate from which on tcpdump loses packets is sought, each tried for
``--seconds``, the reader at ``--nice``; then all run in turn at this rate, 1.1 and 1.5 times of it.
Printed are packets sent, those in the file, and those that the program itself says it has lost.

bpftrace is Debian forky's, which is built without libpcap and so left out; ``--bpftrace`` names a
root directory with another one (/usr/bin/bpftrace and its libraries).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.capture import costs, losses, traffic, ways
from benchmarks.capture.ways import Way
from benchmarks.guest.peers import BPFTRACE_ROOT

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cost", "path", "burst", "loss")
#: What a part of the benchmark prints.
Part = Callable[[], Iterator[str]]


def outside(kernel: str, bpftrace: str, words: list[str]) -> int:
    """Boot a guest and measure there."""
    from benchmarks.guest import peers
    from benchmarks.guest.__main__ import IN_GUEST, progress, write
    from kcap.vm.guest import Guest
    from kcap.vm.sources import Share

    root = Path(bpftrace).resolve() if bpftrace else peers.bpftrace(progress)
    shares = [
        Share(ROOT / "benchmarks", f"{IN_GUEST}/benchmarks", bring_back=False),
        Share(root, BPFTRACE_ROOT, bring_back=False),
    ]
    with Guest(kernel, shares=shares, processors=1, counted=True, progress=progress) as guest:
        return guest.run(
            ["python3", "-m", "benchmarks.capture", "--inside", *words],
            cwd=IN_GUEST,
            on_stdout=lambda data: write(1, data),
            on_stderr=lambda data: write(2, data),
        ).status


def inside(arguments: argparse.Namespace) -> int:
    """Measure on this machine."""
    print(f"kernel {os.uname().release}, {os.cpu_count()} CPUs", flush=True)
    peer, *others = ways.found()
    found = [peer, *(way for way in others if re.search(arguments.ways, way.name))]
    traffic.set_up()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for way in found:
            ways.measure(way, directory, traffic.Load(100, 64))  # compiles what will then be kept
        parts = _parts(found, directory, arguments)
        for part in arguments.parts:
            print(flush=True)
            for line in parts[part]():
                print(line, flush=True)
    return 0


def _parts(found: Sequence[Way], directory: str, arguments: argparse.Namespace) -> dict[str, Part]:
    sizes, nice = arguments.sizes, arguments.nice
    return {
        "cost": lambda: costs.costs(found, sizes, arguments.packets, arguments.rounds, directory),
        "path": lambda: costs.paths(found, sizes, directory),
        "burst": lambda: losses.bursts(found, sizes, directory, nice),
        "loss": lambda: losses.at_tcpdumps_limit(found, sizes, directory, arguments.seconds, nice),
    }


def _words(text: str) -> list[str]:
    """Names of parts."""
    words = text.split(",")
    if not set(words) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"parts are {', '.join(PARTS)}")
    return words


def _numbers(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kernel", default="6.12", help="of the guest (%(default)s)")
    add("--parts", type=_words, default=PARTS, help="what to measure (all of the above)")
    add("--sizes", type=_numbers, default=[64, 1500], help="bytes of a packet (64,1500)")
    add("--ways", default="", metavar="RE", help="tcpdump and only the others that this matches")
    add("--packets", type=int, default=30_000, help="to send for cost (%(default)s)")
    add("--rounds", type=int, default=2, help="of cost (%(default)s)")
    add("--nice", type=int, default=10, help="of the reader, for burst and loss (%(default)s)")
    add("--seconds", type=float, default=2.0, help="at each rate, for loss (%(default)s)")
    add("--bpftrace", default="", metavar="ROOT", help="a root directory with a bpftrace")
    add("--inside", action="store_true", help="measure on this machine, as root")
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    sys.exit(inside(given) if given.inside else outside(given.kernel, given.bpftrace, sys.argv[1:]))
