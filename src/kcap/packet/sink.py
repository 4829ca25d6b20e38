# SPDX-License-Identifier: Apache-2.0
"""Where a session's packets go: files by site, CPUs merged by time, and what became of them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kcap.closing import Closing
from kcap.functions import skb_record as layout
from kcap.packet import copy_code, linktype
from kcap.packet.copier import Copier, Outlet, Ring
from kcap.packet.files import OutputFile
from kcap.packet.frame import Frame, convert, finish
from kcap.packet.keeper import Keeper, Kept
from kcap.packet.pcap import PcapWriter
from kcap.packet.pcapng import Loss, PcapngWriter
from kcap.packet.record import HEAD, Names, Record, Sample, Site, unpack
from kcap.packet.stream import StreamFile
from kcap.records import dataclass, field
from kcap.words import plural

if TYPE_CHECKING:
    from kcap.codegen.native import NativeCode

#: How long a record may be on its way from bpf_ktime_get_ns() into the ring, nanoseconds.
HOLD_BACK_NS: Final = 2_000_000

#: mono_ns, arrival (which makes entries unique, so that sorting never compares the rest), what to
#: write, site, and how.
_Entry = tuple[int, int, Sample, int, int]
_FINISH: Final = 0  # a sample, which needs a finishing touch
_COPY: Final = 1  # a pcap record: the part of a sample that goes into a pcap file as it is
_FOREVER: Final = (1 << 64) - 1
_BLOCK: Final = 2  # a sample that goes into a pcapng file with its frame as it is


@dataclass(slots=True)
class SiteStats:
    """What became of one skboutput call's packets.

    :param written: packets in the file.
    :param converted: packets among them that were given another link type than their own.
    :param unfit: packets left out because the file's link type cannot carry them.
    :param lost: packets that the BPF program could not send (the ring was full).
    """

    written: int = 0
    converted: int = 0
    unfit: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Target:
    """One capture file: its writer, and whether its link type is settled."""

    writer: PcapWriter | PcapngWriter
    link_type: int
    settled: bool
    sites: list[int] = field(default_factory=list)

    @property
    def way(self) -> int:
        """How a record goes into the file that is a whole Ethernet frame."""
        if self.link_type != linktype.ETHERNET:
            return _FINISH
        return _COPY if isinstance(self.writer, PcapWriter) else _BLOCK


class PacketSink(Closing):
    """Writes the packets of a script to its files.

    The files are opened at once, so that one that cannot be written stops the trace before it
    starts; nothing is changed in them until :meth:`start`. A path that ends in ``.pcapng`` gives a
    pcapng file, any other a pcap file with nanoseconds.

    A file has one link type. It is Ethernet as soon as one of its sites has no offset argument;
    packets that an offset argument leads elsewhere then get a made header. When all its sites have
    one, the file is raw IP, unless the first packet turns out to stand elsewhere. What cannot be
    said in the file's link type is left out of a pcap file and gets an interface of its own in a
    pcapng file; both are counted.

    :param sites: all skboutput calls of the script.
    :param names: what probe numbers are called.
    :param comment: a comment on the whole of a pcapng file, for example the script.
    :param hold_back_ns: how long packets wait for earlier ones of other CPUs.
    :param limit: how many packets to write in all; 0 for any number.
    :param files: what to write to for a path, instead of a file of that name (``packet.stream``).
    :raises FileError: when a file cannot be written; none is left behind then.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        names: Names,
        *,
        comment: str = "",
        hold_back_ns: int = HOLD_BACK_NS,
        limit: int = 0,
        files: Mapping[str, OutputFile] | None = None,
    ) -> None:
        self._names = names
        self._files = files or {}
        self._room = limit or 1 << 62
        self._hold_back_ns = hold_back_ns
        self._targets: list[_Target] = []
        self._by_site: dict[int, _Target] = {}
        self._paths = {site.id: site.path for site in sites}
        self._held: list[_Entry] = []
        self._arrivals = 0
        self._last_ns = 0
        self._started = self._closed = False
        self._copier: Copier | None = None
        #: Says of which interfaces packets could not be sent so far.
        self.read_losses: Callable[[], Sequence[Loss]] = tuple
        self._keeper: Keeper | None = None
        #: Packets of a later time than this (CLOCK_MONOTONIC, nanoseconds) are dropped.
        self.end_ns = _FOREVER
        self._stats = {site.id: SiteStats() for site in sites}
        self._malformed = self._late = 0
        try:
            self._open(sites, comment)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Empty the files and write their headers: the trace has begun.

        :raises FileError: when that fails.
        """
        self._started = True
        for target in self._targets:
            target.writer.begin()

    def consume(self, samples: Iterable[Sample], drained_at_ns: int | None = None) -> int:
        """Write samples; those too young to be in order yet are kept for the next call.

        :param samples: of any CPU, in any order; each must stay as it is until this call returns
            (so advance a ring's tail only afterwards). Those kept are copied.
        :param drained_at_ns: CLOCK_MONOTONIC before the first ring was looked at; by default, the
            time of this call, right when ``samples`` reads the rings as it goes.
        :returns: packets written.
        :raises FileError: when a file cannot take them; it ends with a whole packet.
        """
        if drained_at_ns is None:
            drained_at_ns = time.monotonic_ns()
        if not self._started:
            self.start()
        batch, self._held = self._held, []
        self._collect(batch, samples)
        batch.sort()
        del batch[bisect_left(batch, (self.end_ns + 1,)) :]
        ready = bisect_left(batch, (drained_at_ns - self._hold_back_ns,))
        self._held = [(e[0], e[1], bytes(e[2]), e[3], e[4]) for e in batch[ready:]]
        del batch[ready:]
        self._write(batch)
        return len(batch)

    def use(self, code: NativeCode, rings: Sequence[Ring]) -> None:
        """Let machine code do the copying from now on: :meth:`drain` instead of :meth:`consume`.

        :param code: ``copy_loop``'s module, compiled.
        :param rings: one for each CPU.
        """
        size = sum(ring.size for ring in rings)
        outlets = {id(target): Outlet(target.writer, size) for target in self._targets}
        ways = {_FINISH: 0, _COPY: copy_code.WAY_PCAP, _BLOCK: copy_code.WAY_PCAPNG}
        sites = {
            site: (outlets[id(target)], ways[target.way]) for site, target in self._by_site.items()
        }
        self._copier = Copier(code, rings, sites, self._odd)

    def keep(self) -> None:
        """Let a process see to it that the files end with a whole packet if this one is killed.

        To be called before anything is opened that must not outlive this process.
        """
        files = [
            Kept(target.writer.file, target.writer.record_length)
            for target in self._targets
            if not isinstance(target.writer.file, StreamFile)
        ]
        if files:
            with suppress(OSError):  # no more processes: the capture itself is not in danger
                self._keeper = Keeper(files)

    def drain(self, drained_at_ns: int | None = None) -> int:
        """Write what the rings of :meth:`use` hold, but for what is too young to be in order yet.

        :param drained_at_ns: CLOCK_MONOTONIC before the rings are looked at; None to write all.
        :returns: packets written.
        :raises FileError: when a file cannot take them; it ends with a whole packet.
        """
        assert self._copier is not None, "use() comes first"
        if not self._started:
            self.start()
        until = _FOREVER if drained_at_ns is None else drained_at_ns - self._hold_back_ns
        until = min(until, self.end_ns + 1)
        written = self._copier.drain(until, self._room)
        self._room -= written
        return written

    def _odd(self, sample: Sample) -> None:
        """A record that the machine code leaves to Python."""
        _, site, _, _, flags, _ = HEAD.unpack_from(sample)
        writer = self._by_site[site].writer
        if flags & layout.FLAG_FIXUP or self._by_site[site].way == _FINISH:
            self._finish(sample, site)
            return
        if isinstance(writer, PcapngWriter):
            writer.copy(sample)
        else:
            writer.pending.append(sample[layout.PCAP_HEADER_OFFSET :])
        self._stats[site].written += 1

    @property
    def stats(self) -> dict[int, SiteStats]:
        """Site id -> what became of its packets so far."""
        if self._copier is not None:
            for site, stats in self._stats.items():
                stats.written += self._copier.written(site)
        return self._stats

    @property
    def malformed(self) -> int:
        """Samples so far that were no packet records."""
        return self._malformed + (self._copier.malformed if self._copier is not None else 0)

    @property
    def late(self) -> int:
        """Packets so far that came after a later one had been written."""
        return self._late + (self._copier.late if self._copier is not None else 0)

    @property
    def complete(self) -> bool:
        """Whether as many packets have been written as were wanted."""
        return self._room == 0

    def set_lost(self, site: int, count: int) -> None:
        """Tell how many packets of a site the BPF program could not send, in all."""
        self.stats[site].lost = count

    def set_losses(self, losses: Sequence[Loss]) -> None:
        """Tell of which interfaces packets could not be sent, in all."""
        self.read_losses = lambda: losses

    def close(self) -> None:
        """Write what was held back, end the files, close them. May be called twice.

        Files of a trace that never started are left as they were, or removed if they are new.

        :raises FileError: when a file cannot take its last packets; all are closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        failure: Exception | None = None
        if self._copier is not None:
            self._copier.settle()
        if self._started:
            held, self._held = self._held, []
            try:
                self._write(held)
            except Exception as error:
                failure = error
        for target in self._targets:
            try:
                self._close_target(target)
            except Exception as error:
                failure = failure or error
        if self._keeper is not None:
            self._keeper.close()
        if failure is not None:
            raise failure

    def summary(self) -> list[str]:
        """What to tell the user at the end, a line for each fact worth a line."""
        lines = []
        for target in self._targets:
            stats = [self.stats[site] for site in target.sites]
            path = target.writer.file.path
            lost = sum(each.lost for each in stats)
            unfit = sum(each.unfit for each in stats)
            unwritten = target.writer.unwritten
            written = sum(each.written for each in stats) - unwritten
            line = f"{path}: {plural(written, 'packet')} written"
            if unwritten:
                line += f", {unwritten} that the file could not take"
            lines.append(line + (f", {lost} lost (the ring was full)" if lost else ""))
            name = linktype.NAMES[target.link_type]
            converted = sum(each.converted for each in stats)
            if converted:
                lines.append(
                    f"{path}: {plural(converted, 'packet')} got another link layer than their "
                    f"own, for the file to have one link type ({name})"
                )
            if unfit and isinstance(target.writer, PcapWriter):
                lines.append(
                    f"{path}: {plural(unfit, 'packet')} left out: they do not start where link "
                    f"type {name} does; write them to another file, or to a .pcapng file"
                )
            elif unfit:
                lines.append(
                    f"{path}: {plural(unfit, 'packet')} with another link type than {name}; "
                    "Wireshark reads the file, tcpdump does not"
                )
        if self.malformed:
            lines.append(f"{plural(self.malformed, 'packet record')} malformed and left out")
        if self.late:
            lines.append(f"{plural(self.late, 'packet')} written out of order")
        return lines

    def _open(self, sites: Sequence[Site], comment: str) -> None:
        by_path: dict[str, _Target] = {}
        by_identity: dict[tuple[int, int], _Target] = {}
        for site in sites:
            target = by_path.get(site.path)
            if target is None:
                target = self._open_target(site.path, by_identity, comment)
                by_path[site.path] = target
            target.sites.append(site.id)
            self._by_site[site.id] = target
            if site.offset == 0:
                target.link_type, target.settled = linktype.ETHERNET, True
        for target in self._targets:
            if isinstance(target.writer, PcapWriter):
                target.writer.link_type = target.link_type

    def _open_target(
        self, path: str, by_identity: dict[tuple[int, int], _Target], comment: str
    ) -> _Target:
        import os

        # Two spellings of one path would meet at flock(): look who has it first.
        try:
            status = os.stat(path, follow_symlinks=False)
            known = by_identity.get((status.st_dev, status.st_ino))
        except (OSError, ValueError):
            known = None
        if known is not None:
            return known
        file = self._files.get(path) or OutputFile(path)
        writer: PcapWriter | PcapngWriter
        if layout.is_pcapng(path):
            writer = PcapngWriter(file, self._names, time.time_ns(), comment=comment)
        else:
            writer = PcapWriter(file, linktype.RAW)
        target = _Target(writer, linktype.RAW, settled=False)
        if isinstance(writer, PcapngWriter):
            writer.read_losses = lambda: [
                loss for loss in self.read_losses() if loss.site in target.sites
            ]
        self._targets.append(target)
        by_identity[file.identity] = target
        return target

    def _collect(self, batch: list[_Entry], samples: Iterable[Sample]) -> None:
        """Look at each sample's head and append it to ``batch``."""
        head = HEAD.unpack_from
        start, prefix_offset, fixup = (
            layout.PCAP_HEADER_OFFSET,
            layout.PREFIX_OFFSET,
            layout.FLAG_FIXUP,
        )
        ways = {site: target.way for site, target in self._by_site.items()}
        arrival = self._arrivals
        for sample in samples:
            if len(sample) < prefix_offset:
                self._malformed += 1
                continue
            mono, site, payload, prefix, flags, caplen = head(sample)
            end = prefix_offset + caplen
            if caplen != prefix + payload or end > len(sample) or site not in ways:
                self._malformed += 1
                continue
            arrival += 1
            way = _FINISH if flags & fixup else ways[site]
            data = sample[start:end] if way == _COPY else sample
            batch.append((mono, arrival, data, site, way))
        self._arrivals = arrival

    def _write(self, batch: list[_Entry]) -> None:
        """Hand sorted records to their files, and write."""
        del batch[self._room :]
        if not batch:
            return
        self._room -= len(batch)
        if batch[0][0] < self._last_ns:
            self._late += bisect_left(batch, (self._last_ns,))
        self._last_ns = max(self._last_ns, batch[-1][0])
        pending = {site: target.writer.pending for site, target in self._by_site.items()}
        copy = {
            site: target.writer.copy
            for site, target in self._by_site.items()
            if isinstance(target.writer, PcapngWriter)
        }
        for _, _, data, site, way in batch:
            if way == _COPY:
                pending[site].append(data)
            elif way == _BLOCK:
                copy[site](data)
            else:
                self._finish(data, site)
        for site, stats in self._stats.items():
            stats.written += sum(1 for e in batch if e[3] == site and e[4] != _FINISH)
        self._flush()

    def _flush(self) -> None:
        """Write what is pending for every file, also when one fails: nothing may refer to the
        caller's samples afterwards.
        """
        failure: Exception | None = None
        for target in self._targets:
            try:
                target.writer.flush()
            except Exception as error:  # raised below
                failure = failure or error
        if failure is not None:
            raise failure

    def _finish(self, sample: Sample, site: int) -> None:
        """A record that needs a finishing touch, or goes to a file that is not Ethernet."""
        record = unpack(sample)
        target = self._by_site[site]
        stats = self._stats[site]
        function = self._names.function(record) if not record.position else ""
        frame = finish(sample, record, function)
        if not target.settled:
            self._settle(target, frame)
        fitting = convert(frame, target.link_type)
        if fitting is None:
            stats.unfit += 1
            if isinstance(target.writer, PcapWriter):
                return
            fitting = frame
        elif fitting is not frame:
            stats.converted += 1
        self._add(target, fitting, record)
        stats.written += 1

    def _settle(self, target: _Target, frame: Frame) -> None:
        """Let the first packet decide the link type of a file whose sites all have an offset.

        A packet at its network header that is not IP came with a made Ethernet header: it says
        nothing about where the others start.
        """
        if frame.link_type == linktype.ETHERNET and frame.data[:12] == bytes(12):
            return
        target.settled = True
        if frame.link_type != target.link_type:
            target.link_type = frame.link_type
            if isinstance(target.writer, PcapWriter):
                target.writer.set_link_type(frame.link_type)

    def _add(self, target: _Target, frame: Frame, record: Record) -> None:
        time_ns = record.sec * 1_000_000_000 + record.nsec
        if isinstance(target.writer, PcapngWriter):
            target.writer.add(time_ns, frame, record)
        else:
            target.writer.add(time_ns, frame)

    def _close_target(self, target: _Target) -> None:
        if not self._started:
            target.writer.file.close()
        elif isinstance(target.writer, PcapngWriter):
            lost = sum(self.stats[site].lost for site in target.sites)
            target.writer.close(time.time_ns(), lost)
        else:
            target.writer.close()
