# SPDX-License-Identifier: Apache-2.0
"""The blocks of a pcapng file: their numbers, how packets' blocks begin, what a file has of them.

Format: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.packet.files import Buffer

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
INTERFACE_STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6
#: Type, length of the block, interface, both halves of the time, captured and original length.
EPB: Final = struct.Struct("<IIIIIII")
_EPB_START: Final = struct.Struct("<IIIII")


@dataclass(slots=True)
class Interface:
    """One Interface Description Block's running figures."""

    id: int
    packets: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def count(self, time_ns: int) -> None:
        """One more packet of it is in the file."""
        self.packets += 1
        self.last_ns = max(self.last_ns, time_ns)
        self.first_ns = min(self.first_ns or time_ns, time_ns)


def kind(block: Buffer) -> int:
    """The type of a block."""
    return int.from_bytes(bytes(block[:4]), "little")


def tally(blocks: Iterable[Buffer], held: dict[int, Interface]) -> None:
    """Count blocks to what a file holds.

    :param held: the file's interfaces by number: those that are described in ``blocks`` are added.
    """
    for block in blocks:
        type_, _, interface, high, low = _EPB_START.unpack_from(block)
        if type_ == ENHANCED_PACKET:
            held[interface].count(high << 32 | low)
        elif type_ == INTERFACE_DESCRIPTION:
            held[len(held)] = Interface(len(held))
