# SPDX-License-Identifier: Apache-2.0
"""Writing pcapng files: what pcap has no place for stands in blocks and options.

One Section Header, an Interface Description for each (network namespace, device, link type) before
its first packet, an Enhanced Packet for each packet, Interface Statistics at the end.

Format: draft-ietf-opsawg-pcapng; option codes in the comments below are its names.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from kcap.functions import skb_record as layout
from kcap.packet import blocks, linktype
from kcap.packet.blocks import Interface
from kcap.packet.files import Buffer, OutputFile, RecordWriter
from kcap.packet.frame import Frame
from kcap.packet.linktype import SNAPLEN
from kcap.packet.record import Names, Record, Sample, direction, text, unpack
from kcap.packet.rotation import RotatingFile
from kcap.records import dataclass
from kcap.version import __version__

_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D

_OPT_COMMENT: Final = 1
_SHB_HARDWARE: Final = 2
_SHB_OS: Final = 3
_SHB_USERAPPL: Final = 4
_IF_NAME: Final = 2
_IF_DESCRIPTION: Final = 3
_IF_TSRESOL: Final = 9
_IF_HARDWARE: Final = 15
_EPB_FLAGS: Final = 2
_EPB_PACKETID: Final = 5
_EPB_QUEUE: Final = 6
_ISB_STARTTIME: Final = 2
_ISB_ENDTIME: Final = 3
_ISB_IFRECV: Final = 4
_ISB_FILTERACCEPT: Final = 6
_ISB_OSDROP: Final = 7
_ISB_USRDELIV: Final = 8
#: Device types by name: include/uapi/linux/if_arp.h.
_HARDWARE: Final = {
    1: "Ethernet", 32: "InfiniBand", 280: "CAN", 512: "PPP", 768: "IPIP tunnel",
    769: "IPv6 tunnel", 772: "loopback", 776: "SIT tunnel", 778: "GRE over IPv4",
    801: "IEEE 802.11", 823: "GRE over IPv6", 824: "netlink", 826: "vsock monitor",
    65534: "no link layer",
}  # fmt: skip
_DIRECTIONS: Final = {"in": 1, "out": 2, "": 0}

#: Options flags, packet id, queue and end of options, then the block's length again.
_EPB_TAIL: Final = struct.Struct("<HHIHHQHHIHHI")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_MAX_OPTION: Final = 65535

_SKB: Final = layout.FIELDS["skb"].offset
#: skb, and sec, nsec, caplen, origlen of the pcap header.
_COPY: Final = struct.Struct(f"<{_SKB}xQ{layout.PCAP_HEADER_OFFSET - _SKB - 8}xIIII")
#: The fields of a record that its interface, comment and options depend on.
_SAME_HEAD: Final = slice(layout.FIELDS["flags"].offset, layout.FIELDS["reserved"].offset)
_SAME_TAIL: Final = slice(layout.FIELDS["func"].offset, layout.FIXED_SIZE)
_LOST: Final = struct.Struct("<IHHII16s")  # layout.LOST_KEY
_CACHE_SIZE: Final = 4096

#: What an interface is known by: netns, ifindex, dev_name, link type.
_Key = tuple[int, int, bytes, int]


@dataclass(frozen=True, slots=True)
class Loss:
    """Packets of one interface that could not be sent; the fields are those of a record."""

    site: int
    dev_type: int
    ifindex: int
    netns: int
    dev_name: bytes
    count: int

    @property
    def place(self) -> tuple[int, int, bytes]:
        """What its interface is known by."""
        return self.netns, self.ifindex, self.dev_name

    @classmethod
    def of(cls, key: bytes, counts: Iterable[bytes]) -> Loss:
        """From an entry of the map that counts losses.

        :param key: the fields of ``skb_record.LOST_KEY``.
        :param counts: what each CPU has counted.
        """
        site, dev_type, _, ifindex, netns, name = _LOST.unpack(key)
        total = sum(int.from_bytes(count, "little") for count in counts)
        return cls(site, dev_type, ifindex, netns, name, total)


class PcapngWriter(RecordWriter):
    """Writes one pcapng file.

    :param file: where; its header is written by :meth:`begin`.
    :param names: what probe numbers are called, for the packets' comments.
    :param start_ns: when the trace began, nanoseconds since 1970 (isb_starttime).
    :param comment: a comment on the whole section, for example the script; "" for none.
    """

    def __init__(self, file: OutputFile, names: Names, start_ns: int, *, comment: str = "") -> None:
        super().__init__(file)
        #: Link types of the file's interfaces.
        self.link_types: set[int] = set()
        self._names = names
        self._start_ns = start_ns
        self._comment = comment
        self._interfaces: dict[_Key, Interface] = {}
        self._comments: dict[tuple[object, ...], bytes] = {}
        self._same: dict[tuple[bytes, bytes], tuple[Interface, bytes, tuple[int, int]]] = {}
        #: Says what has been lost so far; and how much of it files have been told.
        self.read_losses: Callable[[], Sequence[Loss]] = tuple
        self._told: dict[tuple[int | bytes, ...], int] = {}
        if isinstance(file, RotatingFile):
            file.ending = self._end_of_file
        #: A packet's identity must not tell kernel addresses to whoever gets the file.
        self.secret = int.from_bytes(os.urandom(8))

    def begin(self) -> None:
        """Empty the file and write the section header."""
        self.file.begin()
        system = os.uname()
        options = (
            (_option(_OPT_COMMENT, self._comment.encode()) if self._comment else b"")
            + _option(_SHB_HARDWARE, system.machine.encode())
            + _option(_SHB_OS, f"{system.sysname} {system.release} {system.version}".encode())
            + _option(_SHB_USERAPPL, f"kcap {__version__}".encode())
            + _option(0, b"")
        )
        body = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1) + options
        self.file.write([_block(blocks.SECTION_HEADER, body)])

    def add(self, time_ns: int, frame: Frame, record: Record) -> None:
        """Append a packet.

        :param time_ns: nanoseconds since 1970.
        :param record: where interface, direction, mark, process and so on are taken from.
        """
        interface = self._interface(record, frame.link_type, time_ns)
        comment, numbers = self._packet_comment(record), self._numbers(record)
        self._append(interface, time_ns, frame.data, frame.original_length, comment, numbers,
                     record.skb)  # fmt: skip

    def copy(self, sample: Sample) -> None:
        """Append the packet of a sample that needs no finishing touch: an Ethernet frame.

        Most packets agree with one before in everything but time, address and bytes; what was made
        of those fields then is used again.
        """
        skb, sec, nsec, caplen, original = _COPY.unpack_from(sample)
        time_ns = sec * 1_000_000_000 + nsec
        interface, comment, numbers = self._shared(sample, time_ns)
        data = sample[layout.PREFIX_OFFSET : layout.PREFIX_OFFSET + caplen]
        self._append(interface, time_ns, data, original, comment, numbers, skb)

    def block_tail(self, sample: Sample) -> tuple[Interface, bytes]:
        """What stands behind the packet in the block of a sample that :meth:`copy` has seen: the
        options, with the identity and the length of the block left 0.
        """
        interface, comment, numbers = self._shared(sample, 0)
        return interface, comment + _block_tail(numbers, 0, 0)

    def _shared(self, sample: Sample, time_ns: int) -> tuple[Interface, bytes, tuple[int, int]]:
        """Interface, comment and numbers of a sample, made once for all that agree in them."""
        key = bytes(sample[_SAME_HEAD]), bytes(sample[_SAME_TAIL])
        same = self._same.get(key)
        if same is None:
            record = unpack(sample)
            same = (
                self._interface(record, linktype.ETHERNET, time_ns),
                self._packet_comment(record),
                self._numbers(record),
            )
            if len(self._same) >= _CACHE_SIZE:
                self._same.clear()
            self._same[key] = same
        return same

    def _append(
        self,
        interface: Interface,
        time_ns: int,
        data: Sample,
        original: int,
        comment: bytes,
        numbers: tuple[int, int],
        skb: int,
    ) -> None:
        interface.packets += 1
        if time_ns > interface.last_ns:
            interface.last_ns = time_ns
        length = len(data)
        padding = _PADDING[length & 3]
        total = blocks.EPB.size + length + len(padding) + len(comment) + _EPB_TAIL.size
        head = blocks.EPB.pack(
            blocks.ENHANCED_PACKET, total, interface.id, time_ns >> 32, time_ns & 0xFFFFFFFF,
            length, original,
        )  # fmt: skip
        tail = _block_tail(numbers, skb ^ self.secret, total)
        self.pending.append(b"".join((head, data, padding, comment, tail)))

    @staticmethod
    def record_length(head: Buffer) -> int:
        """The length of a block, from its first 8 bytes."""
        return int.from_bytes(head[4:8], "little")

    def split(self, data: memoryview) -> Iterator[memoryview]:
        """The blocks that stand one behind the other in ``data``."""
        at = 0
        while at < len(data):
            length = self.record_length(data[at : at + 8])
            yield data[at : at + length]
            at += length

    def close(self, end_ns: int = 0, lost: int = 0) -> None:
        """Write the statistics of every interface, and close.

        :param end_ns: when the trace ended, nanoseconds since 1970.
        :param lost: packets that were captured but did not get here. Those that no interface is
            known of (:attr:`read_losses`) are in the statistics of the first, with a comment.
        """
        losses = self.read_losses()
        unknown = lost - sum(loss.count for loss in losses)
        try:
            for loss in losses:
                if self._lossy(loss) is None:  # it lost all that it had
                    key = (*loss.place, linktype.ETHERNET)
                    block = _interface_description(loss, linktype.ETHERNET)
                    self._new_interface(key, block, end_ns)
            try:
                self.flush()
            finally:
                self.pending = self._all_statistics(end_ns, losses, unknown)
                self.flush()
        finally:
            self.file.close()

    def _end_of_file(self) -> list[Buffer]:
        """What the file that is open ends with, if another follows."""
        return self._all_statistics(time.time_ns(), self.read_losses(), 0)

    def _all_statistics(self, end_ns: int, losses: Sequence[Loss], unknown: int) -> list[Buffer]:
        """The statistics of what the file that is open holds and what was lost meanwhile.

        :param unknown: how many more were lost, of which the interface is not known.
        """
        held, started = {i.id: i for i in self._interfaces.values()}, self._start_ns
        if isinstance(self.file, RotatingFile):
            held, started = self.file.held, self.file.begun_ns
        lost = dict.fromkeys(held, 0)
        for loss in losses:
            interface = self._lossy(loss)
            if interface is not None and interface.id in held:
                key = (loss.site, *loss.place)
                lost[interface.id] += loss.count - self._told.get(key, 0)
                self._told[key] = loss.count
        found: list[Buffer] = []
        for number, interface in held.items():
            found.append(self._statistics(interface, started, end_ns, lost[number], unknown))
            unknown = 0
        return found

    def _lossy(self, loss: Loss) -> Interface | None:
        """The interface that lost packets; None if it is not in the file."""
        for key, interface in self._interfaces.items():
            if key[:3] == loss.place:
                return interface
        return None

    def _interface(self, record: Record, link_type: int, time_ns: int) -> Interface:
        key = (record.netns, record.ifindex, record.dev_name, link_type)
        found = self._interfaces.get(key)
        if found is None:
            found = self._new_interface(key, _interface_description(record, link_type), time_ns)
        return found

    def _new_interface(self, key: _Key, block: bytes, time_ns: int) -> Interface:
        interface = Interface(len(self._interfaces), first_ns=time_ns, last_ns=time_ns)
        self._interfaces[key] = interface
        self.link_types.add(key[3])
        self.pending.append(block)
        return interface

    def _numbers(self, record: Record) -> tuple[int, int]:
        """The values of epb_flags and epb_queue."""
        way = direction(record, self._names.function(record))
        # Received: the number plus one, 0 for none (skb_record_rx_queue(), linux/skbuff.h).
        queue = record.queue_mapping - (way == "in")
        return _DIRECTIONS[way], max(queue, 0)

    def _packet_comment(self, record: Record) -> bytes:
        """The comment option: probe, process, CPU, network namespace, mark, drop reason."""
        key = (
            record.probe, record.func, record.comm, record.pid, record.cpu, record.netns,
            record.mark, record.reason,
        )  # fmt: skip
        option = self._comments.get(key)
        if option is None:
            said = f"{self._names.probe(record)} {text(record.comm)}[{record.pid}] cpu {record.cpu}"
            if record.netns:
                said += f" netns {record.netns}"
            if record.mark:
                said += f" mark {record.mark:#x}"
            if reason := self._names.reason(record):
                said += f" dropped {reason}"
            option = _option(_OPT_COMMENT, said.encode())
            if len(self._comments) >= _CACHE_SIZE:
                self._comments.clear()
            self._comments[key] = option
        return option

    def _statistics(
        self, interface: Interface, started_ns: int, end_ns: int, known: int, unknown: int
    ) -> bytes:
        end_ns = max(end_ns, interface.last_ns)
        lost, options = known + unknown, b""
        taken = (interface.packets + lost).to_bytes(8, "little")
        if unknown and len(self._interfaces) > 1:
            said = f"{unknown} of the lost packets may have been of other interfaces"
            options = _option(_OPT_COMMENT, said.encode())
        options += (
            _option(_ISB_STARTTIME, _time(min(started_ns, interface.first_ns or started_ns)))
            + _option(_ISB_ENDTIME, _time(end_ns))
            + _option(_ISB_IFRECV, taken)
            + _option(_ISB_FILTERACCEPT, taken)
            + _option(_ISB_OSDROP, lost.to_bytes(8, "little"))
            + _option(_ISB_USRDELIV, interface.packets.to_bytes(8, "little"))
            + _option(0, b"")
        )
        body = interface.id.to_bytes(4, "little") + _time(end_ns) + options
        return _block(blocks.INTERFACE_STATISTICS, body)


def _block_tail(numbers: tuple[int, int], identity: int, total: int) -> bytes:
    """The end of an Enhanced Packet Block: what is behind its comment."""
    return _EPB_TAIL.pack(
        _EPB_FLAGS, 4, numbers[0], _EPB_PACKETID, 8, identity,
        _EPB_QUEUE, 4, numbers[1], 0, 0, total,
    )  # fmt: skip


def _interface_description(record: Record | Loss, link_type: int) -> bytes:
    name = text(record.dev_name) or "no-device"
    said = f"network namespace {record.netns}, ifindex {record.ifindex}"
    if not record.ifindex:
        said = "skb->dev was not set"
    options = (
        _option(_IF_NAME, name.encode())
        + _option(_IF_DESCRIPTION, said.encode())
        + _option(_IF_TSRESOL, b"\x09")
        + (_option(_IF_HARDWARE, hardware(record.dev_type).encode()) if record.ifindex else b"")
        + _option(0, b"")
    )
    return _block(
        blocks.INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, SNAPLEN) + options
    )


def hardware(dev_type: int) -> str:
    """What a device type (ARPHRD_*) is called."""
    name = _HARDWARE.get(dev_type)
    return f"{name} (ARPHRD type {dev_type})" if name else f"ARPHRD type {dev_type}"


def _time(time_ns: int) -> bytes:
    """A timestamp as two halves, the upper first."""
    return struct.pack("<II", time_ns >> 32, time_ns & 0xFFFFFFFF)


def _option(code: int, value: bytes) -> bytes:
    if len(value) > _MAX_OPTION:
        value = value[:_MAX_OPTION].decode("utf-8", "ignore").encode()
    return struct.pack("<HH", code, len(value)) + value + _PADDING[len(value) & 3]


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)
