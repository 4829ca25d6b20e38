# SPDX-License-Identifier: Apache-2.0
"""What a packet costs: who captures it, and who sends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks.capture import ways
from benchmarks.capture.traffic import Load
from benchmarks.capture.ways import Result, Way

#: Fewer than tcpdump's ring holds of the longest.
ON_THE_WAY = 1000


def costs(
    found: Sequence[Way], sizes: Sequence[int], count: int, rounds: int, directory: str
) -> Iterator[str]:
    """CPU a packet, and in parts of that of the first way."""
    first = found[0].name
    yield f"ns of CPU a packet, medians of {rounds} rounds of {count} packets; ÷ {first}"
    yield "| bytes | | packets/s | user | ÷ | system | user + system | ÷ | BPF | lost |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for size in sizes:
        load = Load(count, size, ways.PAUSE_NS)
        results: dict[str, list[Result]] = {way.name: [] for way in found}
        for _ in range(rounds):
            for way in found:
                results[way.name].append(ways.measure(way, directory, load))
        user, both = _each(results[first], _user), _each(results[first], _both)
        for name, all_ in results.items():
            rate = median(one.sent.rate for one in all_)
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
    yield f"ns that a packet takes its sender more than with nobody capturing; ÷ {found[0].name}"
    yield "| bytes | | ns | ÷ |"
    yield "|---|---|---|---|"
    for size in sizes:
        load = Load(ON_THE_WAY, size)
        ways.time_on_the_way(None, directory, load)
        plain = ways.time_on_the_way(None, directory, load)
        yield f"| {size} | nobody captures | {1e9 * plain / ON_THE_WAY:.0f} in all | |"
        first = 0.0
        for way in found:
            more = ways.time_on_the_way(way, directory, load) - plain
            first = first or more
            each = 1e9 * more / ON_THE_WAY
            yield f"| {size} | {way.name} | {each:.0f} | **{more / first:.2f}** |"
