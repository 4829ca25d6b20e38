# SPDX-License-Identifier: Apache-2.0
"""How many printf events per second the reader takes: from a ring's bytes to text on a file.

Runs anywhere, without root and without BPF: the ring is made up here. Three ways are compared in
turn (A B C A B C), by CPU time: ``naive`` decodes every value by its type, ``events`` makes an
event of every record as the library yields them, ``text`` is what the command line does::

    python benchmarks/reader.py [--rounds 5] [--events 50000] ['FORMAT, ARGUMENTS' ...]
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from kcap.codegen.compile import generate
from kcap.codegen.environment import Environment
from kcap.codegen.module import Features
from kcap.codegen.site import HEADER_SIZE
from kcap.kernel.ringbuf import walk
from kcap.output.text import TextRenderer
from kcap.output.writer import Writer
from kcap.session import script
from kcap.session.reading import EventReader
from kcap.session.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.site import Site

PRINTS = (
    r'"hello\n"',
    r'"%d\n", pid',
    r'"%d %d %lld\n", pid, tid, nsecs',
    r'"%-6d %-16s %d\n", pid, comm, cpu',
)


def ring(site: Site, events: int) -> tuple[memoryview, int]:
    """A ring with that many records of a site (number 0); its data and the bytes written."""
    text = b"firefox".ljust(16, b"\0")
    payload = (struct.pack("<Q", 4242) + text * 4)[: site.payload.size].ljust(site.payload.size)
    record = struct.pack("<II", 0, 0) + payload
    whole = struct.pack("<II", len(record), 0) + record
    whole += bytes(-len(whole) % 8)
    data = whole * events
    size = 1 << (len(data) - 1).bit_length()
    return memoryview(data.ljust(size, b"\0") + bytes(size)), len(data)


class Ring:
    """What EventReader asks of a ring.

    :param data: its memory, twice.
    :param end: the bytes written.
    """

    def __init__(self, data: memoryview, end: int) -> None:
        self.size, self.data, self.words, self._end = len(data) >> 1, data, data.cast("I"), end

    def pending(self) -> tuple[int, int]:
        return 0, self._end

    def walk(self, start: int, end: int) -> tuple[list[memoryview], int]:
        return walk(self.words, self.data, start, end)

    def release(self, position: int) -> None:
        """Nobody waits for the space."""


def ways(site: Site, runtime: Runtime) -> dict[str, Callable[[Ring, Writer], None]]:
    """What is compared: each reads a ring once."""
    renderer = TextRenderer(runtime.environment)

    def render(event: object, output: Writer) -> None:
        output.write(renderer.output(event))
        renderer.message(event)

    def naive(ring: Ring, output: Writer) -> None:
        for record in ring.walk(*ring.pending())[0]:
            for event in site.handle(site.payload.decode(record, HEADER_SIZE), runtime):
                render(event, output)

    def events(ring: Ring, output: Writer) -> None:
        for event in EventReader([site], runtime).read_ring(ring):  # type: ignore[arg-type]
            render(event, output)

    def each(ring: Ring, output: Writer) -> None:
        reader = EventReader([site], runtime)
        reader.on_text = output.write
        for event in reader.read(ring.walk(*ring.pending())[0]):
            render(event, output)

    def runs(ring: Ring, output: Writer) -> None:
        reader = EventReader([site], runtime)
        reader.on_text = output.write
        for event in reader.read_ring(ring):  # type: ignore[arg-type]
            render(event, output)

    return {"naive": naive, "events": events, "each": each, "runs": runs}


def compare(arguments: str, events: int, rounds: int) -> None:
    """Print a line for one printf()."""
    checked = script.compile(f"begin {{ printf({arguments}) }}")
    (site,) = generate(checked.script, Features()).sites
    runtime = Runtime({}, Environment(checked.script.config))
    data, end = ring(site, events)
    spent: dict[str, list[float]] = {}
    with open(os.devnull, "wb") as sink:
        for _ in range(rounds):
            for name, way in ways(site, runtime).items():
                output = Writer(sink.fileno())
                before = time.process_time()
                way(Ring(data, end), output)
                output.flush()
                spent.setdefault(name, []).append(time.process_time() - before)
    medians = {name: median(values) for name, values in spent.items()}
    columns = "".join(
        f"{1e9 * value / events:7.0f} ns {value / medians['naive']:5.2f}"
        for value in medians.values()
    )
    print(f"{columns}  {arguments}")


def main() -> None:
    """Compare for each printf() of the command line, or for the built-in ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("prints", nargs="*", default=PRINTS)
    options = parser.parse_args()
    print("".join(f"{name:>10} ratio" for name in ("naive", "events", "each", "runs")))
    for arguments in options.prints:
        compare(arguments, options.events, options.rounds)


if __name__ == "__main__":
    main()
