# SPDX-License-Identifier: Apache-2.0
"""The Python side of ``copy_loop``: its structures in memory, and what it leaves to Python.

Speed only: without it ``PacketSink.consume`` writes the same files.
"""

from __future__ import annotations

import ctypes
import errno
from contextlib import suppress
from mmap import PAGESIZE, mmap
from typing import TYPE_CHECKING, Final, Protocol

from kcap.errors import FileError
from kcap.functions import skb_record as layout
from kcap.kernel.errors import SyscallError
from kcap.packet import copy_code as loop
from kcap.packet import copy_write
from kcap.packet.pcapng import PcapngWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kcap.codegen.native import NativeCode
    from kcap.packet.blocks import Interface
    from kcap.packet.files import Buffer
    from kcap.packet.pcap import PcapWriter
    from kcap.packet.record import Sample

#: Least and most bytes that are collected for a file before they are written: all that the rings
#: hold if possible, so that they are empty before the file is waited for.
BUFFER_LEAST: Final = 1 << 20
BUFFER_MOST: Final = 64 << 20
#: Bytes of structures that are there from the start.
_WARM: Final = 1 << 18
_LARGEST_RECORD: Final = 1 << 16
_SMALLEST_RECORD: Final = (12 + layout.PREFIX_OFFSET + 7) // 8 * 8
_MASK: Final = (1 << 64) - 1
#: Members of the structure for a look at the rings, each of which sets and reads them.
_UNTIL, _ROOM, _NOTED, _CORRUPT = map(loop.DRAIN.index, ("until", "room", "noted", "corrupt"))
_USED, _COUNT = map(loop.TARGET.index, ("used", "count"))
#: Members of a ring's list of records that were taken from among younger ones.
_TAKEN: Final = tuple(f"place{number}" for number in range(loop.TAKEN_MOST))


class Ring(Protocol):
    """What the loop needs of a ring (``kcap.kernel.perf.PerfRing``)."""

    cpu: int
    size: int

    @property
    def address(self) -> int:
        """Where its data are in memory: behind the page with ``data_head`` and ``data_tail``."""


def touch(memory: mmap, size: int) -> None:
    """Let the first bytes of anonymous memory be there, so that the first packets need not wait
    while the kernel finds pages.

    :param size: how many bytes.
    """
    pages = range(0, min(size, len(memory)), PAGESIZE)
    memory[: pages.stop : PAGESIZE] = bytes(len(pages))


class Struct:
    """One structure, or an array of them, in memory that the loop shares.

    :param members: names of its members.
    :param count: how many structures.
    :ivar words: all members as they stand in memory, for who is in a hurry.
    """

    def __init__(self, members: tuple[str, ...], count: int = 1) -> None:
        self._index = {name: index for index, name in enumerate(members)}
        self._length = len(members)
        # Anonymous memory: only what is used takes any.
        self._memory = mmap(-1, max(8 * len(members) * count, 8))
        touch(self._memory, _WARM)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.words = memoryview(self._memory).cast("Q")

    def get(self, name: str, number: int = 0) -> int:
        """A member of structure ``number``."""
        return self.words[number * self._length + self._index[name]]

    def set(self, name: str, value: int, number: int = 0) -> None:
        """Set a member of structure ``number``."""
        self.words[number * self._length + self._index[name]] = value

    def take(self, name: str, number: int = 0) -> int:
        """A counter, which starts again at 0."""
        value = self.get(name, number)
        self.set(name, 0, number)
        return value


class Outlet:
    """A file that the loop writes to: a buffer, and for pcapng the templates of its blocks.

    :param writer: the file's writer; records that Python makes go through the buffer, too.
    :param size: how much the rings can hold, bytes.
    """

    def __init__(self, writer: PcapWriter | PcapngWriter, size: int) -> None:
        self.writer = writer
        self._size = min(max(size, BUFFER_LEAST), BUFFER_MOST)
        # Only what is used takes any memory. The end of a block is written in whole pieces.
        self._memory = mmap(-1, self._size + copy_write.TAIL_PIECE)
        touch(self._memory, BUFFER_LEAST)
        self._view = memoryview(self._memory)
        self.struct = Struct(loop.TARGET)
        self.struct.set("buffer", ctypes.addressof(ctypes.c_char.from_buffer(self._memory)))
        self.struct.set("capacity", self._size)
        self._templates: Struct | None = None
        self._kept: dict[int, tuple[Interface, object]] = {}
        if isinstance(writer, PcapngWriter):
            self._templates = Struct(loop.TEMPLATE, loop.TEMPLATES)
            self.struct.set("templates", self._templates.address)
            self.struct.set("latest", self._templates.address)
            self.struct.set("secret", writer.secret)

    def adopt(self) -> None:
        """Take over the records that the writer has pending.

        :raises FileError: the file cannot take what has to go before them.
        """
        records, self.writer.pending = self.writer.pending, []
        for record in records:
            self._append(record)

    def _append(self, record: Buffer) -> None:
        used = self.struct.get("used")
        if used + len(record) > self._size:
            self.flush()
            used = 0
        self._view[used : used + len(record)] = record
        self.struct.set("used", used + len(record))
        self.struct.set("count", self.struct.get("count") + 1)

    def flush(self) -> None:
        """Write what is in the buffer.

        :raises FileError: when the file cannot take it.
        """
        words = self.struct.words
        used, count = words[_USED], words[_COUNT]
        if used:
            words[_USED] = words[_COUNT] = 0
            self.writer.write_joined(self._view[:used], count)

    def learn(self, sample: Sample) -> None:
        """Let the loop make the blocks of packets like this one from now on."""
        templates, writer = self._templates, self.writer
        if templates is None or not isinstance(writer, PcapngWriter):
            return
        interface, tail = writer.block_tail(sample)
        key = _key(sample)
        slot = _slot(key)
        self._settle(slot)
        for at, word in zip(loop.KEY_WORDS, key, strict=False):
            templates.set(f"at{at}", word, slot)
        templates.set("rest", key[-1], slot)
        kept = ctypes.create_string_buffer(tail, len(tail) + copy_write.TAIL_PIECE)
        self._kept[slot] = (interface, kept)
        templates.set("interface", interface.id, slot)
        templates.set("tail", ctypes.addressof(kept), slot)
        templates.set("tail_size", len(tail), slot)

    def settle(self) -> None:
        """Bring the interfaces' figures up to date."""
        for slot in self._kept:
            self._settle(slot)

    def _settle(self, slot: int) -> None:
        known = self._kept.get(slot)
        if known is not None and self._templates is not None:
            interface = known[0]
            interface.packets += self._templates.take("packets", slot)
            interface.last_ns = max(interface.last_ns, self._templates.get("last_ns", slot))


class Copier:
    """Writes the packets of rings to files.

    :param code: ``copy_loop``'s module, compiled.
    :param rings: one for each CPU.
    :param sites: for each site's number, its file, and whether its records go into that file as
        they come (WAY_PCAP, WAY_PCAPNG) or through Python (0).
    :param odd: what writes a record that the loop cannot: it gets the sample, which stays as it is,
        and leaves what it makes of it with the file's writer.
    """

    def __init__(
        self,
        code: NativeCode,
        rings: Sequence[Ring],
        sites: Mapping[int, tuple[Outlet, int]],
        odd: Callable[[bytes], None],
    ) -> None:
        self._run = code.function("run")
        self._rings = rings  # whose memory is used as long as this is
        self._outlets = list({id(outlet): outlet for outlet, _ in sites.values()}.values())
        self._by_site = {site: outlet for site, (outlet, _) in sites.items()}
        self._odd = odd
        self._ring = Struct(loop.RING, len(rings))
        self._scratch = mmap(-1, _LARGEST_RECORD * max(len(rings), 1))
        scratch = ctypes.addressof(ctypes.c_char.from_buffer(self._scratch))
        self._taken = [Struct(_TAKEN) for _ in rings]
        for number, ring in enumerate(rings):
            self._ring.set("data", ring.address, number)
            self._ring.set("size", ring.size, number)
            self._ring.set("control", ring.address - PAGESIZE, number)
            self._ring.set("scratch", scratch + number * _LARGEST_RECORD, number)
            self._ring.set("number", number, number)
            self._ring.set("taken", self._taken[number].address, number)
        self._entries = Struct(loop.ENTRY, sum(ring.size for ring in rings) // _SMALLEST_RECORD + 1)
        site_count = max(sites, default=-1) + 1
        self._site = Struct(loop.SITE, site_count)
        for site, (outlet, way) in sites.items():
            self._site.set("target", outlet.struct.address, site)
            self._site.set("way", way, site)
        self._drain = Struct(loop.DRAIN)
        libc = ctypes.CDLL(None)
        memcpy = ctypes.cast(libc.memcpy, ctypes.c_void_p).value or 0
        for name, value in (
            ("rings", self._ring.address), ("ring_count", len(rings)), ("memcpy", memcpy),
            ("entries", self._entries.address), ("sites", self._site.address),
            ("site_count", site_count),
        ):  # fmt: skip
            self._drain.set(name, value)

    @property
    def malformed(self) -> int:
        """Records so far that were none."""
        return self._drain.get("malformed")

    @property
    def late(self) -> int:
        """Records so far that came after a later one."""
        return self._drain.get("late")

    def drain(self, until_ns: int, room: int) -> int:
        """Write the records that are older than ``until_ns``; the rest stays in the rings.

        They are copied first, and the rings are free again before a file is waited for.

        :param room: how many to write at most; what is left of the older ones is dropped then.
        :returns: how many were written.
        :raises FileError: a file cannot take them; it ends with a whole packet.
        :raises SyscallError: a ring is corrupt.
        """
        words = self._drain.words
        words[_UNTIL] = until_ns
        words[_ROOM] = room
        try:
            self._copy_all()
        except BaseException:
            self._give_up()
            raise
        finally:
            if words[_NOTED]:
                self._forget()
        self._flush()
        if words[_CORRUPT]:
            raise SyscallError("a perf ring is corrupt", errno.EIO)
        return room - words[_ROOM]

    def written(self, site: int) -> int:
        """How many packets of a site the loop has written since this was asked before."""
        return self._site.take("written", site)

    def settle(self) -> None:
        """Bring the interfaces' figures up to date, before the files are ended."""
        for outlet in self._outlets:
            outlet.settle()

    def _copy_all(self) -> None:
        """Bring what is in the rings to the buffers of the files."""
        drain = self._drain
        while (why := self._run(drain.address)) != loop.DONE:
            sample = self._sample(drain.get("next"))
            if why == loop.FULL:
                self._by_site[_site(sample)].flush()
            else:
                self._leave_to_python(sample)

    def _flush(self) -> None:
        """Write what is in the buffers, to every file, also when one fails.

        :raises FileError: the first failure.
        """
        failure: FileError | None = None
        for outlet in self._outlets:
            try:
                outlet.flush()
            except FileError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _leave_to_python(self, sample: bytes) -> None:
        """Record ``next`` is one that Python writes."""
        drain = self._drain
        drain.set("next", drain.get("next") + 1)
        outlet = self._by_site.get(_site(sample))
        if outlet is None:
            drain.set("malformed", drain.get("malformed") + 1)
            return
        mono, last = int.from_bytes(sample[:8], "little"), drain.get("last")
        drain.set("late", drain.get("late") + (mono < last))
        drain.set("last", max(mono, last))
        drain.set("room", drain.get("room") - 1)
        self._odd(sample)
        outlet.adopt()
        if not _u16(sample, "flags") & layout.FLAG_FIXUP:
            outlet.learn(sample)

    def _sample(self, number: int) -> bytes:
        address = self._entries.get("sample", number)
        caplen_at = layout.PCAP_HEADER_OFFSET + 8
        caplen = int.from_bytes(ctypes.string_at(address + caplen_at, 4), "little")
        return ctypes.string_at(address, layout.PREFIX_OFFSET + caplen)

    def _forget(self) -> None:
        """Of the records taken from among younger ones, keep those that are still in the rings."""
        for number, taken in enumerate(self._taken):
            count, tail = self._ring.take("taken_count", number), self._ring.get("tail", number)
            places = [taken.get(name) for name in _TAKEN[:count]]
            kept = [place for place in places if place >= tail]
            for name, place in zip(_TAKEN, kept, strict=False):
                taken.set(name, place)
            self._ring.set("taken_count", len(kept), number)

    def _give_up(self) -> None:
        """A file has failed: account for what is listed and will not be written, write what the
        others can take, and give the rings back."""
        self._count_rest()
        with suppress(FileError):  # counted by the writer; the first failure is on its way
            self._flush()
        self._drain.set("room", 0)
        self._run(self._drain.address)

    def _count_rest(self) -> None:
        """Count what is listed and not written."""
        drain = self._drain
        first, count = drain.get("next"), drain.get("count")
        for number in range(first, min(count, first + drain.get("room"))):
            site = _site(self._sample(number))
            outlet_ = self._by_site.get(site)
            if outlet_ is not None:
                self._site.set("written", self._site.get("written", site) + 1, site)
                outlet_.writer.unwritten += 1


def _u16(sample: Sample, name: str) -> int:
    at = layout.FIELDS[name].offset
    return sample[at] | sample[at + 1] << 8


def _site(sample: Sample) -> int:
    at = layout.FIELDS["site"].offset
    return int.from_bytes(sample[at : at + 4], "little")


def _key(sample: Sample) -> list[int]:
    """The words by which the loop finds a record's template."""
    words = [int.from_bytes(sample[at : at + 8], "little") for at in loop.KEY_WORDS]
    reason = layout.FIELDS["reason"].offset
    words.append(
        _u16(sample, "flags")
        | sample[layout.FIELDS["position"].offset] << 16
        | int.from_bytes(sample[reason : reason + 4], "little") << 32
    )
    return words


def _slot(key: Sequence[int]) -> int:
    """Where a template stands: the hash of the loop."""
    mixed = key[0]
    for word in key[1:]:
        mixed = mixed * loop.HASH & _MASK ^ word
    return (mixed * loop.HASH & _MASK) >> 64 - (loop.TEMPLATES.bit_length() - 1)
