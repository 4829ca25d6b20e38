# SPDX-License-Identifier: Apache-2.0
"""Bytes of a packet under its line, as ``tcpdump -x``, ``-X`` and ``-A`` print them."""

from __future__ import annotations

from collections.abc import Iterator

from kcap.packet import linktype
from kcap.packet.frame import ethernet_header

_LINE = 16
#: What a line's bytes take as hexadecimal digits, in groups of two bytes.
_WIDTH = 5 * _LINE // 2


def behind_link_header(link_type: int, data: bytes) -> bytes:
    """A frame without its Ethernet header and VLAN tags."""
    return data[ethernet_header(data)[0] :] if link_type == linktype.ETHERNET else data


def hex_lines(data: bytes, *, ascii_too: bool = False) -> Iterator[str]:
    """A line for every 16 bytes: the place, the bytes, and with ``ascii_too`` as text, too."""
    for at in range(0, len(data), _LINE):
        part = data[at : at + _LINE]
        groups = "".join(f" {part[n : n + 2].hex()}" for n in range(0, len(part), 2))
        text = "".join(chr(byte) if 32 < byte < 127 else "." for byte in part)
        yield f"\t0x{at:04x}: " + (f"{groups:<{_WIDTH}}  {text}" if ascii_too else groups)


def ascii_text(data: bytes) -> str:
    """The bytes as text: blanks, tabs and line ends stay, what else is not ASCII is a dot."""
    text = data.replace(b"\r\n", b"\n")
    return "".join(chr(byte) if 32 <= byte < 127 or byte in b"\t\n" else "." for byte in text)
