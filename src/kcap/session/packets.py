# SPDX-License-Identifier: Apache-2.0
"""The packets of a trace: from the perf rings to files, and to Python programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kcap.functions.skb_emit import PACKET_SITES, PACKETS_MAP, REALTIME_MAP, PacketSite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kcap.codegen.compile import Compiled
    from kcap.kernel.maps import Map
    from kcap.kernel.perf import PerfReader
    from kcap.packet.clock import RealtimeOffset
    from kcap.packet.decode import PacketDecoder
    from kcap.packet.sink import PacketSink
    from kcap.session.script import Checked

#: Bytes of a CPU's ring unless ``perf_rb_pages`` says otherwise.
DEFAULT_PAGES = 1024
#: The reader is woken when this part of a ring is full.
WATERMARK_PART = 8


class PacketCapture:
    """What ``skboutput()`` calls of a script send, if there are any.

    :param compiled: the script's programs and sites.
    :param checked: the script.
    :param deliver: also make a :class:`kcap.packet.decode.Packet` of each packet, for
        :meth:`read` to yield.
    :raises FileError: a capture file cannot be written; nothing has been changed then.
    """

    def __init__(self, compiled: Compiled, checked: Checked, *, deliver: bool = False) -> None:
        self._sites = [
            site
            for site in compiled.collected.get(PACKET_SITES, ())
            if isinstance(site, PacketSite)
        ]
        self._lost_slots = {
            slot: self._sites.index(counter.site)
            for slot, counter in enumerate(compiled.lost)
            if isinstance(counter.site, PacketSite)
        }
        self._config = checked.script.config
        self._reader: PerfReader | None = None
        self._clock: RealtimeOffset | None = None
        self._sink: PacketSink | None = None
        self._decoder: PacketDecoder | None = None
        if self._sites:
            self._open_files(compiled, checked, deliver)

    def _open_files(self, compiled: Compiled, checked: Checked, deliver: bool) -> None:
        from kcap.packet.decode import PacketDecoder
        from kcap.packet.record import Names, Site
        from kcap.packet.sink import PacketSink

        probes = {index: p.context.name for index, p in enumerate(compiled.programs)}
        names = Names(probes)
        sites = [
            Site(number, site.path, 1 if site.offset is None else site.offset)
            for number, site in enumerate(self._sites)
        ]
        self._sink = PacketSink(sites, names, comment=checked.source.text)
        if deliver:
            self._decoder = PacketDecoder(sites, names)

    def open(self, maps: Mapping[str, Map]) -> None:
        """Map the rings and set the clock: the programs are loaded, none is attached yet.

        :raises SyscallError: the kernel refuses the rings.
        """
        if self._sink is None:
            return
        from kcap.kernel.perf import PerfReader
        from kcap.packet.clock import RealtimeOffset

        pages = 1 << ((self._config.perf_rb_pages or DEFAULT_PAGES) - 1).bit_length()
        self._reader = PerfReader(maps[PACKETS_MAP], pages, pages * 4096 // WATERMARK_PART)
        clock = maps[REALTIME_MAP]
        self._clock = RealtimeOffset(
            lambda offset: clock.update(bytes(4), offset.to_bytes(8, "little", signed=True))
        )

    def start(self) -> None:
        """Begin the files: the trace starts.

        :raises FileError: a file cannot be written.
        """
        if self._sink is not None:
            self._sink.start()

    def filenos(self) -> Sequence[int]:
        """Descriptors that are readable when there is much to read."""
        return () if self._reader is None else (self._reader.fileno(),)

    def read(self) -> Iterator[object]:
        """Write what the rings hold; yields the packets if they are to be delivered.

        :raises FileError: a file cannot take them.
        """
        if self._reader is None or self._sink is None:
            return
        if self._clock is not None:
            self._clock.refresh()
        # All CPUs' samples at once, and also when there are none: the sink merges them by time,
        # and holds the youngest back for the next call.
        started = time.monotonic_ns()
        samples = [sample for ring in self._reader.rings for sample in ring.read().samples]
        if self._decoder is not None:
            yield from sorted(map(self._decoder.decode, samples), key=lambda p: p.mono_ns)
        try:
            self._sink.consume(samples, started)
        finally:
            del samples
            for ring in self._reader.rings:
                ring.release()

    def finish(self) -> Iterator[object]:
        """The last packets, once nothing is attached any more."""
        yield from self.read()

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
        if self._reader is not None:
            self._reader.close()
        if self._sink is not None:
            self._sink.close()
