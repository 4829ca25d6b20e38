# SPDX-License-Identifier: Apache-2.0
"""What a packet costs on its way to a file, by the ways of ``benchmarks.capture``."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator

from benchmarks.capture import traffic, ways
from benchmarks.guest import programs
from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import FailedError, Tracer

GROUP = "packets"
PACKETS = 20_000
SIZES = (64, 512, 1500)
ROUNDS = 2


def cost(tracer: Tracer, size: int) -> Figures:
    """Send packets slowly enough for all; CPU time for each."""
    _set_up()
    way = _ways()[tracer.name]
    try:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
            programs.statistics(),
        ):
            load = traffic.Load(PACKETS, size, ways.PAUSE_NS)
            result = ways.measure(way, directory, load)
    except RuntimeError as error:
        raise FailedError(str(error).strip()) from error
    used, packets = result.used, result.sent.packets
    figures = {
        ("CPU a packet", "ns"): 1e9 * (used.user + used.system) / packets,
        ("in user space", "ns"): 1e9 * used.user / packets,
        ("lost", "packets"): float(result.lost),
    }
    if used.bpf_runs:
        figures["BPF time", "ns"] = used.bpf_ns / used.bpf_runs
    return figures


@functools.cache
def _ways() -> dict[str, ways.Way]:
    return {way.name: way for way in ways.found()}


@functools.cache
def _set_up() -> None:
    """The veth pair and the packet generator, unless a former round has made them."""
    if not os.path.exists(f"/sys/class/net/{traffic.RECEIVER}"):
        traffic.set_up()


def cases() -> Iterator[Case]:
    """Short and long packets; the last way, tcpdump, is the peer."""
    peer, *others = [Tracer(way.name, way.command, way.root) for way in _ways().values()]
    for size in SIZES:
        yield Case(GROUP, f"{size} bytes", [*others, peer], cost, (size,), rounds=ROUNDS)
