# SPDX-License-Identifier: Apache-2.0
"""Captures in several files, one after the other, with tcpdump's meaning of -C, -G and -W.

Every file stands alone: the header, and in a pcapng the interfaces, are written at its start, the
statistics of what it holds at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kcap.errors import UsageError
from kcap.packet import blocks
from kcap.packet.blocks import Interface
from kcap.packet.files import Buffer, OutputFile, Split
from kcap.packet.stream import StreamClosedError
from kcap.records import dataclass

_HEADERS: Final = (blocks.SECTION_HEADER, blocks.INTERFACE_DESCRIPTION)
#: tcpdump counts in millions of bytes where no unit is given.
_UNITS: Final = {"": 1_000_000, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class LastFileError(StreamClosedError):
    """As many files as were wanted are written: the capture has nothing left to do."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When the next file begins.

    :param size: with the first packet after the file has become larger, bytes; 0 for never (-C).
    :param seconds: with the first packet after so long; 0 for never (-G). The name is then a format
        for strftime(3); a name without one is written over again and again.
    :param count: with ``size``, the files are a ring of so many; with ``seconds`` alone, the
        capture ends after so many (-W).
    """

    size: int = 0
    seconds: int = 0
    count: int = 0


def parse_size(text: str) -> int:
    """Bytes of ``-C``: millions, or with k, m, g behind it KiB, MiB, GiB.

    :raises UsageError: it is no size.
    """
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not digits.isdigit() or not int(digits) or unit not in _UNITS:
        raise UsageError(f"-C {text}: not a size", hint="such as 10 (millions of bytes), 64k, 2g")
    return int(digits) * _UNITS[unit]


class RotatingFile(OutputFile):
    """In the place of one capture file: several.

    :param path: the name as the user gives it.
    :param rotation: when the next file begins.
    :param pcapng: that is what they are; otherwise pcap.
    :param now: the time, seconds since 1970.
    :raises FileError: the first file cannot be written.
    """

    def __init__(
        self,
        path: str,
        rotation: Rotation,
        *,
        pcapng: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._rotation, self._pcapng, self._now = rotation, pcapng, now
        self._headers: list[bytes] = []
        #: How many files there have been, in all and in this interval of time.
        self.files = 1
        self._in_interval = 0
        self._since = now()
        self._file = OutputFile(self._next_name())
        self.fd, self.identity = self._file.fd, self._file.identity
        self.size = self.records = 0
        #: Called with the descriptor of each file that takes the place of the one before.
        self.on_turn: Callable[[int], None] | None = None
        #: What the file that is open holds of each interface of a pcapng, and since when it is;
        #: what makes the blocks that it ends with.
        self.held: dict[int, Interface] = {}
        self.begun_ns = int(now() * 1e9)
        self.ending: Callable[[], Sequence[Buffer]] = tuple

    def _next_name(self) -> str:
        """The name of the next file, as tcpdump calls it."""
        rotation, number = self._rotation, self._in_interval
        path = self.path
        if rotation.seconds:
            path = time.strftime(path, time.localtime(self._since))
        if not rotation.size:
            return path
        if rotation.count and not rotation.seconds:
            return f"{path}{number % rotation.count:0{len(str(rotation.count - 1))}}"
        return f"{path}{number}" if number else path

    def begin(self) -> None:
        """Empty the first file."""
        self._file.begin()

    def write(self, records: Sequence[Buffer]) -> None:
        """Append records, each to the file whose turn it is.

        :raises FileError: a file cannot be written.
        :raises LastFileError: there have been as many files as were wanted.
        """
        self._write(records, sum(map(len, records)))

    def write_joined(self, data: memoryview, count: int, split: Split) -> None:
        """Append records that stand one behind the other; as :meth:`write` otherwise."""
        # Those of a pcapng may have interfaces among them, which every file has to begin with.
        if not self._pcapng and self._headers and self._fits(len(data)):
            self._file.write_joined(data, count, split)
            self._count(len(data), count)
        else:
            self._write(list(split(data)), len(data))

    def _fits(self, size: int) -> bool:
        """Whether records of so many bytes belong to the file that is open."""
        limit = self._rotation.size
        return not self._is_over() and (not limit or self._file.size + size <= limit)

    def _is_over(self) -> bool:
        seconds = self._rotation.seconds
        return bool(seconds) and self._now() - self._since >= seconds

    def _write(self, records: Sequence[Buffer], size: int) -> None:
        if self._headers and self._fits(size) and not self._keep_headers(records):
            self._append(records, size)
            return
        for record in records:
            if self._may_turn(record):
                self._turn()
            self._append([record], len(record))
            self._keep_headers([record])

    def _append(self, records: Sequence[Buffer], size: int) -> None:
        """Append records to the file that is open."""
        self._file.write(records)
        self._count(size, len(records))
        if self._pcapng:
            blocks.tally(records, self.held)

    def _count(self, size: int, records: int) -> None:
        self.size += size
        self.records += records

    def _is_header(self, record: Buffer) -> bool:
        if not self._pcapng:
            return not self._headers
        return blocks.kind(record) in _HEADERS

    def _may_turn(self, record: Buffer) -> bool:
        """Whether the next file may begin with a record: statistics belong to what was before."""
        if self._is_header(record):
            return False
        return not self._pcapng or blocks.kind(record) != blocks.INTERFACE_STATISTICS

    def _keep_headers(self, records: Iterable[Buffer]) -> bool:
        """Keep what every file has to begin with; whether any was among the records."""
        found = [bytes(record) for record in records if self._is_header(record)]
        found = [header for header in found if header not in self._headers]
        self._headers += found
        return bool(found)

    def _turn(self) -> None:
        """Begin the next file if its time has come."""
        rotation = self._rotation
        if self._is_over():
            if rotation.count and not rotation.size and self.files >= rotation.count:
                raise LastFileError(f"{self.files} files are written", self.path)
            self._since, self._in_interval = self._now(), 0
        elif rotation.size and self._file.size > rotation.size:
            self._in_interval += 1
        else:
            return
        self._file.write(self.ending())
        whole = self._file.whole
        self._file.close()
        self._file = OutputFile(self._next_name(), self._headers)
        self.fd = self._file.fd
        self.files += 1
        self._watch_this(whole)
        self._file.begin()
        self.held, self.begun_ns = {}, int(self._now() * 1e9)
        if self._pcapng:
            blocks.tally(self._headers, self.held)

    @property
    def whole(self) -> memoryview | None:
        """Where the file that is open notes how much of it is whole."""
        return self._file.whole

    @whole.setter
    def whole(self, slot: memoryview | None) -> None:
        self._file.whole = slot

    def _watch_this(self, whole: memoryview | None) -> None:
        """Let the ``Keeper`` of the file before, if it had one, watch over this one."""
        if whole is not None and self.on_turn is not None:
            whole[0] = 0
            self.on_turn(self.fd)
            self._file.whole = whole

    def overwrite(self, data: bytes, offset: int) -> None:
        """Change the header, of this file and of those that follow."""
        header = self._headers[0]
        self._headers[0] = header[:offset] + data + header[offset + len(data) :]
        self._file.overwrite(data, offset)

    def close(self) -> None:
        """Close the file that is open. May be called twice."""
        self._file.close()
        self.fd = -1
