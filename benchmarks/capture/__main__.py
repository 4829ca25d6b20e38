# SPDX-License-Identifier: Apache-2.0
"""What capturing costs: kcap, tcpdump and bpftrace on the same traffic, in turn (A B A B).

    python -m benchmarks.capture [--kernel 6.12] [--packets N] [--rounds N] [--bpftrace ROOT]

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

``loss``: the same at a steady rate, which rises; ``--packets`` are sent at each.

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
from statistics import median
from typing import NamedTuple

from benchmarks.capture import traffic, ways
from benchmarks.capture.ways import Result, Way
from benchmarks.guest.peers import BPFTRACE_ROOT

ROOT = Path(__file__).resolve().parents[2]
#: Fewer than tcpdump's ring holds of the longest.
ON_THE_WAY = 1000
PARTS = "cost,path,burst,loss"
#: Nanoseconds from packet to packet: a third more packets with each step.
PAUSES = (56_000, 42_000, 32_000, 24_000, 18_000, 13_500, 10_000, 7_500)
#: Packets of a burst, a third more with each step, for packets of so many bytes or more.
BURSTS = {
    0: (6_000, 8_000, 10_500, 14_000, 18_500, 24_500, 33_000, 44_000),
    1000: (800, 1_050, 1_400, 1_850, 2_450, 3_300, 4_400, 6_000),
}


def costs(
    found: Sequence[Way], sizes: Sequence[int], count: int, rounds: int, directory: str
) -> Iterator[str]:
    """CPU a packet, and in parts of tcpdump's."""
    yield f"ns of CPU a packet, medians of {rounds} rounds of {count} packets; ÷ tcpdump"
    yield "| bytes | | packets/s | user | ÷ | system | user + system | ÷ | BPF | lost |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for size in sizes:
        results: dict[str, list[Result]] = {way.name: [] for way in found}
        for _ in range(rounds):
            for way in found:
                results[way.name].append(ways.measure(way, directory, count, size, ways.PAUSE_NS))
        first = results[found[0].name]
        user, both = _each(first, _user), _each(first, _both)
        for name, all_ in results.items():
            rate = median(one.sent.packets / one.sent.seconds for one in all_)
            bpf = _each(all_, lambda one: one.used.bpf_ns / 1e9)
            yield (
                f"| {size} | {name} | {rate:.0f} | {_each(all_, _user):.0f} "
                f"| **{_each(all_, _user) / user:.2f}** | {_each(all_, _system):.0f} "
                f"| {_each(all_, _both):.0f} | **{_each(all_, _both) / both:.2f}** "
                f"| {bpf:.0f} | {sum(one.lost for one in all_)} |"
            )


def _user(one: Result) -> float:
    return one.used.user


def _system(one: Result) -> float:
    return one.used.system


def _both(one: Result) -> float:
    return one.used.user + one.used.system


def _each(results: Sequence[Result], seconds: Callable[[Result], float]) -> float:
    """Nanoseconds a packet, the median."""
    return median(1e9 * seconds(one) / one.sent.packets for one in results)


def paths(found: Sequence[Way], sizes: Sequence[int], directory: str) -> Iterator[str]:
    """What is done in the kernel for the program that captures, on each packet's way."""
    yield "ns that a packet takes its sender more than with nobody capturing; ÷ tcpdump"
    yield "| bytes | | ns | ÷ |"
    yield "|---|---|---|---|"
    for size in sizes:
        ways.time_on_the_way(None, directory, ON_THE_WAY, size)
        plain = ways.time_on_the_way(None, directory, ON_THE_WAY, size)
        yield f"| {size} | nobody captures | {1e9 * plain / ON_THE_WAY:.0f} in all | |"
        first = 0.0
        for way in found:
            more = ways.time_on_the_way(way, directory, ON_THE_WAY, size) - plain
            first = first or more
            each = 1e9 * more / ON_THE_WAY
            yield f"| {size} | {way.name} | {each:.0f} | **{more / first:.2f}** |"


class Load(NamedTuple):
    """Packets that are sent.

    :ivar packets: how many.
    :ivar pause_ns: nanoseconds from the start of one to the start of the next, at least.
    """

    packets: int
    pause_ns: int


def bursts(found: Sequence[Way], sizes: Sequence[int], directory: str, nice: int) -> Iterator[str]:
    """The longest burst that each way takes without a loss."""
    for size in sizes:
        counts = next(BURSTS[least] for least in sorted(BURSTS, reverse=True) if size >= least)
        yield f"packets lost of a burst of packets of {size} bytes, the reader at nice {nice}"
        loads = [Load(count, 0) for count in counts]
        yield from _until_lost(found, size, loads, directory, nice)


def losses(
    found: Sequence[Way], sizes: Sequence[int], directory: str, count: int, nice: int
) -> Iterator[str]:
    """The steady rate at which each way begins to lose packets."""
    for size in sizes:
        yield f"packets lost of {count} of {size} bytes, the reader at nice {nice}"
        loads = [Load(count, pause_ns) for pause_ns in PAUSES]
        yield from _until_lost(found, size, loads, directory, nice)


def _until_lost(
    found: Sequence[Way], size: int, loads: Sequence[Load], directory: str, nice: int
) -> Iterator[str]:
    """A line for each load, each worse than the one before, with what each way lost; one that has
    lost packets need not show it again."""
    alike = ways.tcpdump("tcpdump -B 4096", "-B", str(ways.KCAP_RING_KIB))
    tried = [found[0], alike, *found[1:]]
    yield "| packets | packets/s | " + " | ".join(way.name for way in tried) + " |"
    yield "|---|---|" + "---|" * len(tried)
    least: dict[str, str] = {}
    for load in loads:
        results = {
            way.name: ways.measure(way, directory, load.packets, size, load.pause_ns, nice)
            for way in tried
            if way.name not in least
        }
        if not results:
            break
        rates = {name: one.sent.packets / one.sent.seconds for name, one in results.items()}
        cells = " | ".join(
            str(results[way.name].lost) if way.name in results else "-" for way in tried
        )
        fastest, slowest = max(rates.values()), min(rates.values())
        yield f"| {load.packets} | {slowest:.0f} to {fastest:.0f} | {cells} |"
        for name, one in results.items():
            if one.lost:
                least[name] = f"{load.packets} packets, {rates[name]:.0f} a second"
    yield ""
    for way in tried:
        yield f"{way.name}: first lost at {least.get(way.name, 'none of these')}"


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
    found = [way for way in ways.found() if re.search(arguments.ways, way.name)]
    traffic.set_up()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for way in found:
            ways.measure(way, directory, 100, 64, 0)  # compiles what will then be kept
        sizes = [int(size) for size in arguments.sizes.split(",")]
        count = arguments.packets
        parts = {
            "cost": lambda: costs(found, sizes, count, arguments.rounds, directory),
            "path": lambda: paths(found, sizes, directory),
            "burst": lambda: bursts(found, sizes, directory, arguments.nice),
            "loss": lambda: losses(found, sizes, directory, count, arguments.nice),
        }
        for part in arguments.parts.split(","):
            print(flush=True)
            for line in parts[part]():
                print(line, flush=True)
    return 0


def main() -> int:
    """Boot a guest and measure there, or here with ``--inside``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--packets", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--bpftrace", default="", metavar="ROOT")
    parser.add_argument("--parts", default=PARTS)
    parser.add_argument("--sizes", default="64,1500", help="bytes of a packet")
    parser.add_argument("--ways", default="", help="only those that this matches (re)")
    parser.add_argument("--inside", action="store_true")
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments)
    words = [f"--packets={arguments.packets}", f"--rounds={arguments.rounds}"]
    words += [f"--nice={arguments.nice}", f"--parts={arguments.parts}"]
    words += [f"--ways={arguments.ways}", f"--sizes={arguments.sizes}"]
    return outside(arguments.kernel, arguments.bpftrace, words)


if __name__ == "__main__":
    sys.exit(main())
