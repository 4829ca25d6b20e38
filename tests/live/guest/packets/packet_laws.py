# SPDX-License-Identifier: Apache-2.0
"""What the kernel makes of frames on their way: joins fragments, splits streams, forwards."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from support import frames

IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
_IPPROTO_TCP, _IPPROTO_FRAGMENT = 6, 44


def network_part(frame: bytes) -> bytes:
    """EtherType and what follows, tags left out."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return frame[at:]


def forwarded(packet: bytes) -> bytes:
    """An IPv4 packet (with its EtherType) one hop further."""
    head = bytearray(packet[2:22])
    head[8] -= 1
    return packet[:2] + _summed(head) + packet[22:]


def _summed(head: bytearray) -> bytes:
    """An IPv4 header with its checksum."""
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", frames.checksum(bytes(head)))
    return bytes(head)


class _Fragment(NamedTuple):
    """A fragment of an IP packet without options.

    :ivar key: what tells its packet.
    :ivar at: where in the packet its data belong.
    :ivar link: the link-layer header.
    :ivar header: the IP header, with nothing about fragments.
    """

    key: bytes
    at: int
    link: bytes
    header: bytes
    data: bytes


def _fragment(frame: bytes) -> _Fragment | None:
    """A frame as a fragment; None if it is none."""
    packet = network_part(frame)[2:]
    link = frame[: len(frame) - len(packet)]
    if link[-2:] == IPV4 and (field := struct.unpack_from("!H", packet, 6)[0]) & 0x3FFF:
        key = packet[4:6] + packet[9:10] + packet[12:20]
        head = packet[:6] + b"\0\0" + packet[8:20]
        return _Fragment(key, (field & 0x1FFF) * 8, link, head, packet[20:])
    if link[-2:] == IPV6 and packet[6] == _IPPROTO_FRAGMENT:
        following, _, field = struct.unpack_from("!BBH", packet, 40)
        head = packet[:6] + bytes([following]) + packet[7:40]
        return _Fragment(packet[8:40] + packet[44:48], field & 0xFFF8, link, head, packet[48:])
    return None


def reassembled(frames_: Iterable[bytes]) -> set[bytes]:
    """The datagrams that were sent in fragments, with the Ethernet header of the first."""
    parts: dict[bytes, dict[int, _Fragment]] = {}
    for frame in frames_:
        if (found := _fragment(frame)) is not None:
            parts.setdefault(found.key, {})[found.at] = found
    whole = set()
    for fragments in parts.values():
        first, head = fragments[0], bytearray(fragments[0].header)
        data = b"".join(fragments[at].data for at in sorted(fragments))
        if first.link[-2:] == IPV4:
            head[2:4] = struct.pack("!H", len(head) + len(data))
            whole.add(first.link + _summed(head) + data)
        else:
            head[4:6] = struct.pack("!H", len(data))
            whole.add(first.link + bytes(head) + data)
    return whole


class Stream:
    """TCP connections that carry the same bytes, each from its first byte on.

    :param data: the bytes.
    :param parts: frames from their EtherType on, handshakes among them.
    """

    def __init__(self, data: bytes, parts: Iterable[bytes]) -> None:
        self.data = data
        self._starts = {
            (part[14:22], part[22:26]): struct.unpack_from("!I", part, 26)[0] + 1
            for part in parts
            if part[:2] == IPV4 and part[11] == _IPPROTO_TCP and part[35] & 0x3F == 2  # SYN
        }

    def segment(self, frame: bytes, length: int) -> tuple[int, range] | None:
        """The port that a segment goes to, and which bytes it has; None where they aren't those
        that belong there.

        :param length: the frame's before it was cut.
        """
        packet = network_part(frame)
        if packet[:2] != IPV4 or packet[11] != _IPPROTO_TCP:
            return None
        transport = packet[22:]
        start = self._starts.get((packet[14:22], transport[:4]))
        if start is None:
            return None
        total = struct.unpack_from("!H", packet, 4)[0]
        assert total in (len(packet) - 2 + length - len(frame), 0)
        at = (struct.unpack_from("!I", transport, 4)[0] - start) & 0xFFFFFFFF
        data = transport[transport[12] >> 4 << 2 :]
        if not data or self.data[at : at + len(data)] != data:
            return None
        port = struct.unpack_from("!H", transport, 2)[0]
        return port, range(at, at + len(data) + length - len(frame))
