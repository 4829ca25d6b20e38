# SPDX-License-Identifier: Apache-2.0
"""CPU time a packet from sample to file: kcap's ways, and the naive one, for comparison.

    python benchmarks/packet_writer.py [--packets N] [--directory DIR]

Times are user + system CPU of this process, the best of several rounds; the directory should be in
memory (default: /dev/shm). Samples are memoryviews into one buffer, as they stand in a ring.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from ctypes import addressof, c_char
from mmap import PAGESIZE, mmap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from kcap.codegen.native import NativeCode  # noqa: E402
from kcap.codegen.objects import NativeObject  # noqa: E402
from kcap.functions import skb_record as layout  # noqa: E402
from kcap.packet import copy_loop  # noqa: E402
from kcap.packet.decode import PacketDecoder  # noqa: E402
from kcap.packet.pcap import PcapWriter  # noqa: E402
from kcap.packet.record import Names, Site, unpack  # noqa: E402
from kcap.packet.sink import PacketSink  # noqa: E402
from unit.packet import skb_samples  # noqa: E402

#: The copying loop, compiled for this machine.
CODE = NativeCode(NativeObject(copy_loop.module()).wait())
NAMES = Names({1: "fentry:ip_rcv"})
BATCH = 512


def samples_of(size: int, count: int) -> list[memoryview]:
    """``count`` samples of packets of ``size`` bytes, one behind the other in one buffer."""
    frame = (bytes(range(14)) + b"\x45" + bytes(size))[:size]
    frame = frame[:12] + b"\x08\x00" + frame[14:]
    one = skb_samples.sample(skb_samples.received(frame))
    ring = bytearray(one * count)
    for number in range(count):
        struct.pack_into("<Q", ring, number * len(one), number)
    view = memoryview(ring)
    return [view[at : at + len(one)] for at in range(0, len(ring), len(one))]


def sink(path: str, samples: Sequence[memoryview]) -> None:
    """kcap's way."""
    with PacketSink([Site(1, path)], NAMES) as out:
        for start in range(0, len(samples), BATCH):
            out.consume(samples[start : start + BATCH], drained_at_ns=1 << 62)


class Ring:
    """A ring as the kernel leaves it: a perf header before each sample."""

    cpu = 0

    def __init__(self, samples: Sequence[memoryview]) -> None:
        length = (12 + len(samples[0]) + 7) // 8 * 8
        head = struct.pack("<IHHI", 9, 0, length, length - 12)
        data = b"".join(head + bytes(one).ljust(length - 12, b"\0") for one in samples)
        self.size = 1 << (len(data) - 1).bit_length()
        self._memory = mmap(-1, PAGESIZE + self.size)
        self._memory[PAGESIZE : PAGESIZE + len(data)] = data
        self.address = addressof(c_char.from_buffer(self._memory)) + PAGESIZE
        self._positions = memoryview(self._memory)[1024:1040].cast("Q")
        self._end, self._step = len(data), BATCH * length

    def rewind(self) -> None:
        """Make all records new."""
        self._positions[0] = self._positions[1] = 0

    def fill(self) -> bool:
        """Let more records be there; False when there are no more."""
        self._positions[0] = min(self._positions[1] + self._step, self._end)
        return self._positions[0] > self._positions[1]


def native(path: str, samples: Sequence[memoryview]) -> None:
    """kcap's way in machine code, from a ring."""
    if len(samples[0]) not in RINGS:
        RINGS[len(samples[0])] = Ring(samples)
    ring = RINGS[len(samples[0])]
    ring.rewind()
    with PacketSink([Site(1, path)], NAMES) as out:
        out.use(CODE, [ring])
        while ring.fill():
            out.drain()


RINGS: dict[int, Ring] = {}


def naive(path: str, samples: Sequence[memoryview]) -> None:
    """Unpack everything, sort, make a header, write each packet to a buffered file."""
    from kcap.packet.files import OutputFile

    header_writer = PcapWriter(OutputFile(path), 1)
    header_writer.begin()
    header_writer.close()
    with open(path, "ab") as out:
        for start in range(0, len(samples), BATCH):
            records = [(unpack(each), bytes(each)) for each in samples[start : start + BATCH]]
            records.sort(key=lambda each: each[0].mono_ns)
            for record, data in records:
                end = layout.PREFIX_OFFSET + record.prefix_len + record.payload_len
                packet = data[layout.PREFIX_OFFSET : end]
                out.write(
                    struct.pack("<IIII", record.sec, record.nsec, len(packet), record.origlen)
                )
                out.write(packet)


def decode(_path: str, samples: Sequence[memoryview]) -> None:
    """What a Python program that iterates over packets pays."""
    decoder = PacketDecoder([Site(1, "")], NAMES)
    for sample in samples:
        decoder.decode(sample)


def measure(
    way: Callable[[str, Sequence[memoryview]], None], path: str, samples: Sequence[memoryview]
) -> float:
    """Best of five rounds, nanoseconds of CPU a packet."""
    best = float("inf")
    for _ in range(5):
        Path(path).unlink(missing_ok=True)
        start = time.process_time_ns()
        way(path, samples)
        best = min(best, (time.process_time_ns() - start) / len(samples))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--packets", type=int, default=20_000)
    parser.add_argument("--directory", default="/dev/shm")
    arguments = parser.parse_args()
    ways = {
        "machine code, pcap": (native, "a.pcap"),
        "machine code, pcapng": (native, "a.pcapng"),
        "sink, pcap": (sink, "a.pcap"),
        "naive, pcap": (naive, "b.pcap"),
        "sink, pcapng": (sink, "a.pcapng"),
        "decode only": (decode, "none"),
    }
    sizes = (64, 512, 1500)
    print(f"{'ns of CPU a packet':20}" + "".join(f"{size:>8} B" for size in sizes))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for name, (way, file) in ways.items():
            costs = [
                measure(way, os.path.join(directory, file), samples_of(size, arguments.packets))
                for size in sizes
            ]
            print(f"{name:20}" + "".join(f"{cost:>10.0f}" for cost in costs))


if __name__ == "__main__":
    main()
