# SPDX-License-Identifier: Apache-2.0
"""A reader of pcapng files for tests: blocks and options as they stand, nothing taken for granted.

Written from draft-ietf-opsawg-pcapng, since the readers that a guest has show neither interfaces
nor comments.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple


class Interface(NamedTuple):
    """An Interface Description Block."""

    name: str
    description: str
    link_type: int

    @property
    def netns(self) -> int:
        """The network namespace's number."""
        found = re.search(r"network namespace (\d+)", self.description)
        return int(found[1]) if found else 0


class Block(NamedTuple):
    """An Enhanced Packet Block.

    :ivar length: its length before it was cut.
    """

    interface: Interface
    time_ns: int
    data: bytes
    length: int
    comment: str

    @property
    def function(self) -> str:
        """The function or event that captured it."""
        return self.comment.split()[0].rpartition(":")[2]


class Statistics(NamedTuple):
    """An Interface Statistics Block: received, lost, written."""

    interface: Interface
    received: int
    dropped: int
    delivered: int


class File(NamedTuple):
    """A whole file."""

    packets: list[Block]
    statistics: list[Statistics]


def read(path: Path) -> File:
    """Read a file of one section.

    :raises AssertionError: it is not well formed.
    """
    data = path.read_bytes()
    interfaces: list[Interface] = []
    found = File([], [])
    at = 0
    while at < len(data):
        kind, total = struct.unpack_from("<II", data, at)
        assert total % 4 == 0
        assert struct.unpack_from("<I", data, at + total - 4) == (total,)
        body = data[at + 8 : at + total - 4]
        at += total
        if kind == 1:
            options = _options(body[8:])
            assert options[9] == [b"\x09"], "nanoseconds"
            interfaces.append(
                Interface(options[2][0].decode(), options[3][0].decode(), body[0] | body[1] << 8)
            )
        elif kind == 6:
            number, high, low, captured, length = struct.unpack_from("<IIIII", body)
            end = 20 + (captured + 3 & ~3)
            assert not any(body[20 + captured : end]), "padding is zeros"
            comment = _options(body[end:])[1][0].decode()
            packet = body[20 : 20 + captured]
            found.packets.append(
                Block(interfaces[number], high << 32 | low, packet, length, comment)
            )
        elif kind == 5:
            options = _options(body[12:])
            figures = [int.from_bytes(options[code][0], "little") for code in (4, 7, 8)]
            found.statistics.append(Statistics(interfaces[body[0] | body[1] << 8], *figures))
        else:
            assert kind == 0x0A0D0D0A, f"block type {kind}"
    return found


def _options(data: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", data, at)
        at += 4
        if code == 0:
            assert at == len(data), "nothing behind the end of options"
            return found
        found.setdefault(code, []).append(data[at : at + length])
        at += length + 3 & ~3
