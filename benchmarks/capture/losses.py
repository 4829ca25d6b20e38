# SPDX-License-Identifier: Apache-2.0
"""Losses: of bursts that grow, and at the steady rate from which on tcpdump loses packets."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from benchmarks.capture import ways
from benchmarks.capture.traffic import Load
from benchmarks.capture.ways import Way

#: Packets of a burst, a third more with each step, for packets of so many bytes or more.
BURSTS = {
    0: (6_000, 8_000, 10_500, 14_000, 18_500, 24_500, 33_000, 44_000),
    1000: (800, 1_050, 1_400, 1_850, 2_450, 3_300, 4_400, 6_000),
}
#: Packets a second at which the search for the rate begins. It ends when the rate at which
#: packets are lost is so much of one at which none are.
FIRST_RATE, CLOSE_ENOUGH = 10_000, 1.1
#: The generator cannot go faster when it reaches less than this part of what was asked for.
REACHED = 0.95
#: Every way is tried at so much of the rate that was found.
FACTORS = (1.0, 1.1, 1.5)


def bursts(found: Sequence[Way], sizes: Sequence[int], directory: str, nice: int) -> Iterator[str]:
    """Bursts without a pause, each longer than the one before, until each way has lost packets; one
    that has lost some need not show it again."""
    tried = with_large_ring(found)
    for size in sizes:
        yield f"packets lost of a burst of packets of {size} bytes, the reader at nice {nice}"
        yield "| packets | packets/s | " + " | ".join(way.name for way in tried) + " |"
        yield "|---|---|" + "---|" * len(tried)
        least: dict[str, str] = {}
        for count in _burst_lengths(size):
            load = Load(count, size)
            results = {
                way.name: ways.measure(way, directory, load, nice)
                for way in tried
                if way.name not in least
            }
            if not results:
                break
            rates = [one.sent.rate for one in results.values()]
            cells = (str(results[way.name].lost) if way.name in results else "-" for way in tried)
            yield f"| {count} | {min(rates):.0f} to {max(rates):.0f} | {' | '.join(cells)} |"
            for name, one in results.items():
                if one.lost:
                    least[name] = f"{count} packets, {one.sent.rate:.0f} a second"
        yield ""
        for way in tried:
            yield f"{way.name}: first lost at {least.get(way.name, 'none of these')}"


def _burst_lengths(size: int) -> Sequence[int]:
    return BURSTS[max(least for least in BURSTS if size >= least)]


def with_large_ring(found: Sequence[Way]) -> list[Way]:
    """The ways, tcpdump first, and behind it tcpdump with a ring as large as kcap's."""
    alike = ways.tcpdump("tcpdump -B 4096", "-B", str(ways.KCAP_RING_KIB))
    return [found[0], alike, *found[1:]]


def at_tcpdumps_limit(
    found: Sequence[Way], sizes: Sequence[int], directory: str, seconds: float, nice: int
) -> Iterator[str]:
    """The least steady rate at which tcpdump loses packets; then all ways in turn at that rate and
    above."""
    for size in sizes:
        yield f"{size} bytes for {seconds:g} s at a steady rate, the reader at nice {nice}"
        rate = yield from _first_loss(found[0], size, directory, seconds, nice)
        yield ""
        yield "| rate | | packets/s | sent | captured | reported lost | lost |"
        yield "|---|---|---|---|---|---|---|"
        for factor in FACTORS:
            load = _steady(rate * factor, size, seconds)
            for way in with_large_ring(found):
                result = ways.measure(way, directory, load, nice)
                sent, (captured, reported), _ = result
                yield (
                    f"| {factor:g} | {way.name} | {sent.rate:.0f} | {sent.packets} | {captured} "
                    f"| {reported} | **{100 * result.lost / sent.packets:.2f} %** |"
                )
        yield ""


def _steady(rate: float, size: int, seconds: float) -> Load:
    return Load(int(rate * seconds), size, int(1e9 / rate))


def _first_loss(
    way: Way, size: int, directory: str, seconds: float, nice: int
) -> Generator[str, None, float]:
    """The least rate at which a way loses packets, to :data:`CLOSE_ENOUGH`: a line for each that is
    tried. Without a loss, the highest rate that the generator reaches."""
    without, rate, lossy = 0.0, float(FIRST_RATE), 0.0
    while not (lossy and without) or lossy / without > CLOSE_ENOUGH:
        result = ways.measure(way, directory, _steady(rate, size, seconds), nice)
        yield f"{way.name}: {result.lost} lost of {result.sent.packets} at {rate:.0f} packets/s"
        if result.lost:
            lossy = rate
        else:
            without = rate
        if not result.lost and result.sent.rate < REACHED * rate:
            yield f"{way.name} loses none: the generator sends {result.sent.rate:.0f} packets/s"
            return result.sent.rate
        if not lossy:
            rate *= 2
        elif without:
            rate = (without * lossy) ** 0.5
        else:
            rate /= 2
    yield f"{way.name} begins to lose packets at {lossy:.0f} packets/s"
    return lossy
