# SPDX-License-Identifier: Apache-2.0
"""What a packet costs on its way to a file, by the ways of ``benchmarks/capture.py``."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator

from benchmarks import capture
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
    way = capture.Way(tracer.name, list(tracer.command), _ways()[tracer.name].ready)
    try:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
            programs.statistics(),
        ):
            found = capture.capture(way, PACKETS, size, capture.PAUSE, directory)
    except RuntimeError as error:
        raise FailedError(str(error).strip()) from error
    figures = {
        ("CPU a packet", "ns"): 1e9 * found.cpu / found.packets,
        ("lost", "packets"): float(found.lost),
    }
    if found.bpf_runs:
        figures["BPF time", "ns"] = found.bpf_ns / found.bpf_runs
    return figures


@functools.cache
def _ways() -> dict[str, capture.Way]:
    return {way.name: way for way in capture.ways("")}


@functools.cache
def _set_up() -> None:
    """The veth pair and the packet generator, unless a former round has made them."""
    if not os.path.exists("/sys/class/net/bench1"):
        capture.set_up()


def cases() -> Iterator[Case]:
    """Short and long packets; the last way, tcpdump, is the peer."""
    ways = [Tracer(way.name, tuple(way.command)) for way in _ways().values()]
    for size in SIZES:
        yield Case(GROUP, f"{size} bytes", ways, cost, (size,), rounds=ROUNDS)
