# SPDX-License-Identifier: Apache-2.0
"""Writing pcap files with nanoseconds.

Format: draft-ietf-opsawg-pcap, magic number 0xa1b23c4d (nanoseconds), little endian. The file is
readable at any moment: its header is written first, then whole records only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kcap.packet.files import Buffer, OutputFile, RecordWriter
from kcap.packet.frame import Frame
from kcap.packet.linktype import SNAPLEN
from kcap.packet.record import PCAP_HEADER

MAGIC_NANOSECONDS: Final = 0xA1B23C4D
_FILE_HEADER: Final = struct.Struct("<IHHiIII")
_LINK_TYPE_OFFSET: Final = 20


class PcapWriter(RecordWriter):
    """Writes one pcap file.

    :param file: where; its header is written by :meth:`begin`.
    :param link_type: the file's only link type.
    """

    def __init__(self, file: OutputFile, link_type: int) -> None:
        super().__init__(file)
        self.link_type = link_type

    def begin(self) -> None:
        """Empty the file and write its header."""
        self.file.begin()
        header = _FILE_HEADER.pack(MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAPLEN, self.link_type)
        self.file.write([header])

    def set_link_type(self, link_type: int) -> None:
        """Change the link type in the header; only before the first packet."""
        self.link_type = link_type
        self.file.overwrite(link_type.to_bytes(4, "little"), _LINK_TYPE_OFFSET)

    def add(self, time_ns: int, frame: Frame) -> None:
        """Append a frame of this file's link type.

        :param time_ns: nanoseconds since 1970.
        """
        sec, nsec = divmod(time_ns, 1_000_000_000)
        header = PCAP_HEADER.pack(sec, nsec, len(frame.data), frame.original_length)
        self.pending.append(header + frame.data)

    @staticmethod
    def record_length(head: Buffer) -> int:
        """The length of a record, from its first 16 bytes."""
        return PCAP_HEADER.size + int(PCAP_HEADER.unpack_from(head)[2])

    def split(self, data: memoryview) -> Iterator[memoryview]:
        """The records that stand one behind the other in ``data``."""
        at = 0
        while at < len(data):
            length = self.record_length(data[at : at + PCAP_HEADER.size])
            yield data[at : at + length]
            at += length

    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()
        finally:
            self.file.close()
