# SPDX-License-Identifier: Apache-2.0
"""The packets of a trace: from the perf rings to files, and to Python programs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kcap.functions.packet_site import (
    LOST_MAP,
    PACKET_SITES,
    PACKETS_MAP,
    REALTIME_MAP,
    PacketSite,
)
from kcap.records import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kcap.codegen.objects import NativeObject
    from kcap.kernel.maps import Map
    from kcap.kernel.perf import PerfReader
    from kcap.packet.clock import RealtimeOffset
    from kcap.packet.decode import Packet, PacketDecoder
    from kcap.packet.files import OutputFile
    from kcap.packet.pcapng import Loss
    from kcap.packet.record import Sample
    from kcap.packet.sink import PacketSink, SiteStats
    from kcap.packet.stream import StreamFile
    from kcap.session.compiled import CompiledScript

#: Bytes of a CPU's ring unless ``perf_rb_pages`` says otherwise.
DEFAULT_PAGES = 1024
#: The reader is woken when this part of a ring is full: a look costs as much as copying some
#: hundred packets, and three quarters are still free then.
WATERMARK_PART = 4
#: The clock is looked at this often at most.
CLOCK_INTERVAL_NS = 100_000_000


@dataclass(slots=True)
class PacketOptions:
    """What becomes of a trace's packets, beside what the script says.

    :param deliver: also make a :class:`kcap.packet.decode.Packet` of each packet, for the trace
        to yield; writing them to their files is faster without.
    :param limit: end the trace after this many packets; 0 for any number.
    :param immediate: look at every packet as it comes. The order of packets of different CPUs
        may then be wrong by what they took to the ring.
    :param files: what to write to for a path, instead of a file of that name.
    :param native: copy packets in machine code, which is compiled once and kept; Python alone
        writes the same files. ``KCAP_NATIVE=0`` in the environment switches it off, too.
    :param reasons: names of drop reasons by number, beside those that a probe's argument has:
        subsystems have some of their own.
    """

    deliver: bool = True
    limit: int = 0
    immediate: bool = False
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    native: bool = True
    reasons: Mapping[int, str] = field(default_factory=dict)


class PacketCapture:
    """What ``skboutput()`` calls of a script send, if there are any.

    :param script: the script.
    :param options: what becomes of the packets.
    :param symbol: the function that an address is in, for probes that have several.
    :raises FileError: a capture file cannot be written; nothing has been changed then.
    """

    def __init__(
        self,
        script: CompiledScript,
        options: PacketOptions,
        symbol: Callable[[int], str],
    ) -> None:
        self._options = options
        self._symbol = symbol
        self._undelivered = options.limit or 1 << 62
        self._sites = [
            site
            for site in script.compiled.collected.get(PACKET_SITES, ())
            if isinstance(site, PacketSite)
        ]
        self._lost_slots = {
            slot: self._sites.index(counter.site)
            for slot, counter in enumerate(script.compiled.lost)
            if isinstance(counter.site, PacketSite)
        }
        self._config = script.config
        self._native: NativeObject | None = None
        self._reader: PerfReader | None = None
        self._clock: RealtimeOffset | None = None
        self._next_clock = 0
        self._sink: PacketSink | None = None
        self._streams: list[StreamFile] = []
        self._drains = False
        self._lost_map: Map | None = None
        self._decoder: PacketDecoder | None = None
        if self._sites:
            self._open_files(script)

    def _open_files(self, script: CompiledScript) -> None:
        from kcap.packet.decode import PacketDecoder
        from kcap.packet.record import Names, Site
        from kcap.packet.sink import HOLD_BACK_NS, PacketSink
        from kcap.packet.stream import StreamFile

        options = self._options
        self._streams = [file for file in options.files.values() if isinstance(file, StreamFile)]
        probes = dict(enumerate(script.compiled.probes))
        reasons = next((site.reasons for site in self._sites if site.reasons), {})
        names = Names(probes, self._symbol, {**reasons, **options.reasons})
        sites = [
            Site(number, site.path, 1 if site.offset is None else site.offset)
            for number, site in enumerate(self._sites)
        ]
        self._sink = PacketSink(
            sites,
            names,
            comment=script.source.text,
            hold_back_ns=0 if options.immediate else HOLD_BACK_NS,
            limit=options.limit,
            files=options.files,
        )
        self._sink.keep()
        if options.deliver:
            self._decoder = PacketDecoder(sites, names)
        elif options.native and os.environ.get("KCAP_NATIVE") != "0":
            self._native = _native_loop(script.options.cached)

    def open(self, maps: Mapping[str, Map]) -> None:
        """Map the rings and set the clock: the programs are loaded, none is attached yet.

        :raises SyscallError: the kernel refuses the rings.
        """
        if self._sink is None:
            return
        from kcap.kernel.perf import PerfReader
        from kcap.packet.clock import RealtimeOffset

        pages = 1 << ((self._config.perf_rb_pages or DEFAULT_PAGES) - 1).bit_length()
        watermark = 0 if self._options.immediate else pages * 4096 // WATERMARK_PART
        self._reader = PerfReader(maps[PACKETS_MAP], pages, watermark)
        self._use_native_loop()
        clock = maps[REALTIME_MAP]
        self._lost_map = maps.get(LOST_MAP)
        self._sink.read_losses = self._losses
        self._clock = RealtimeOffset(
            lambda offset: clock.update(bytes(4), offset.to_bytes(8, "little", signed=True))
        )

    def _use_native_loop(self) -> None:
        """Copy in machine code if it can be had: it is quicker, and all there is to it."""
        from kcap.codegen.llvm import CodegenError
        from kcap.codegen.native import NativeCode, NativeError

        native, self._native = self._native, None
        if native is None or self._sink is None or self._reader is None:
            return
        with suppress(CodegenError, NativeError):
            self._sink.use(NativeCode(native.wait()), self._reader.rings)
            self._drains = True

    def start(self) -> None:
        """Begin the files: the trace starts.

        :raises FileError: a file cannot be written.
        """
        if self._sink is not None:
            self._sink.start()

    def filenos(self) -> Sequence[int]:
        """Descriptors that are readable when there is much to read."""
        return () if self._reader is None else (self._reader.fileno(),)

    def read(self, end_ns: int | None = None) -> Iterator[object]:
        """Write what the rings hold; yields the packets if they are to be delivered.

        :param end_ns: when the trace was asked to end, CLOCK_MONOTONIC: later packets are dropped.
        :raises FileError: a file cannot take them.
        """
        if self._reader is None or self._sink is None:
            return
        if end_ns is not None:
            self._sink.end_ns = end_ns
        started = time.monotonic_ns()
        if self._clock is not None and started >= self._next_clock:
            self._clock.refresh()
            self._next_clock = started + CLOCK_INTERVAL_NS
        for stream in self._streams:
            stream.check()
        if self._drains:
            self._sink.drain(started)
            return
        # All CPUs' samples at once, and also when there are none: the sink merges them by time,
        # and holds the youngest back for the next call.
        samples = [sample for ring in self._reader.rings for sample in ring.read().samples]
        delivered = self._decoded(samples, end_ns)
        try:
            self._sink.consume(samples, started)
        finally:
            del samples
            for ring in self._reader.rings:
                ring.release()
        yield from delivered  # at last: who breaks off has in the file what he has seen

    def _decoded(self, samples: Sequence[Sample], end_ns: int | None) -> list[Packet]:
        """The packets to be delivered; ``end_ns`` as for :meth:`read`."""
        if self._decoder is None:
            return []
        found = sorted(map(self._decoder.decode, samples), key=lambda p: p.mono_ns)
        if end_ns is not None:
            found = [packet for packet in found if packet.mono_ns <= end_ns]
        del found[self._undelivered :]
        self._undelivered -= len(found)
        return found

    def finish(self, end_ns: int | None) -> Iterator[object]:
        """The last packets, once nothing is attached any more; ``end_ns`` as for :meth:`read`."""
        yield from self.read(end_ns)
        self._write_rest()
        self._read_losses()

    def _read_losses(self) -> None:
        """Tell the files which interfaces lost packets: nothing is attached any more."""
        if self._sink is not None:
            self._sink.set_losses(self._losses())

    def _losses(self) -> list[Loss]:
        """What has been lost so far, by interface."""
        if self._lost_map is None:
            return []
        from kcap.packet.pcapng import Loss

        map_ = self._lost_map
        return [Loss.of(key, map_.split(value)) for key, value in map_.items()]

    def _write_rest(self) -> None:
        """Write also what was too young to be in order: nothing more will come."""
        if self._drains and self._sink is not None:
            self._drains = False
            self._sink.drain()

    @property
    def complete(self) -> bool:
        """Whether there have been as many packets as were wanted."""
        return self._undelivered == 0 or (self._sink is not None and self._sink.complete)

    @property
    def stats(self) -> list[SiteStats]:
        """What became of the packets of each ``skboutput()`` call, in the script's order."""
        return [] if self._sink is None else list(self._sink.stats.values())

    def set_lost(self, slot: int, total: int) -> None:
        """Tell how many packets a loss counter has counted in all."""
        if self._sink is not None and slot in self._lost_slots:
            self._sink.set_lost(self._lost_slots[slot], total)

    def summary(self) -> list[str]:
        """What to say at the end, a line for each fact."""
        return self._sink.summary() if self._sink is not None else []

    def close(self) -> None:
        """Write what is held back, close files and rings. May be called twice.

        :raises FileError: a file could not take its last packets.
        """
        if self._native is not None:
            self._native.close()
        try:
            self._write_rest()
        finally:
            if self._reader is not None:
                self._reader.close()
            if self._sink is not None:
                self._sink.close()


def _native_loop(cached: bool) -> NativeObject | None:
    """The copying loop, being compiled unless it was before; None where there can be none."""
    from kcap.codegen.llvm import CodegenError
    from kcap.codegen.native import MACHINES
    from kcap.codegen.objects import NativeObject
    from kcap.packet import copy_loop

    if os.uname().machine not in MACHINES:
        return None
    try:
        return NativeObject(copy_loop.module(), cached=cached)
    except CodegenError:  # no process, no memory: Python can do it
        return None
