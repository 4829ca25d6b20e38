# SPDX-License-Identifier: Apache-2.0
"""What others than kcap see of packets: packet(7) sockets, and libpcap's view of a capture file."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support import PATIENCE
from support.net import End

SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 1 << 4
ETH_P_ALL = 3


class Seen(NamedTuple):
    """A frame that a packet socket saw.

    :ivar outgoing: whether it left by the interface.
    :ivar frame: all of it, its VLAN tag put back.
    """

    outgoing: bool
    frame: bytes


class Tap:
    """A packet socket that takes everything that goes in and out by an interface.

    :param end: the namespace.
    :param device: the interface; the end's own by default.
    """

    def __init__(self, end: End, device: str = "") -> None:
        with end.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((device or end.device, ETH_P_ALL))
        self.seen: list[Seen] = []

    def read(self) -> list[Seen]:
        """Return all that was seen so far."""
        while True:
            try:
                data, notes, _, address = self.socket.recvmsg(
                    1 << 17, socket.CMSG_SPACE(20), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return self.seen
            self.seen.append(Seen(address[2] == socket.PACKET_OUTGOING, _tagged(data, notes)))

    def frames(self, wanted: Callable[[Seen], bool]) -> list[bytes]:
        """Return the frames that are wanted."""
        return [one.frame for one in self.read() if wanted(one)]

    def wait(
        self, wanted: Callable[[Seen], bool], count: int, seconds: float = PATIENCE
    ) -> list[bytes]:
        """Return the frames that are wanted, once there are ``count`` of them."""
        deadline = time.monotonic() + seconds
        while len(found := self.frames(wanted)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} frames within {seconds} s")
            time.sleep(0.02)
        return found

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _tagged(data: bytes, notes: list[tuple[int, int, bytes]]) -> bytes:
    """Put a VLAN tag back that the kernel keeps beside the data (struct tpacket_auxdata)."""
    for level, kind, note in notes:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, protocol = struct.unpack_from("=IIIHHHH", note)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", protocol, tci) + data[12:]
    return data


class Read(NamedTuple):
    """A packet of a capture file, as libpcap reads it.

    :ivar time_ns: nanoseconds since 1970.
    :ivar length: its length before it was cut.
    :ivar data: what is in the file.
    """

    time_ns: int
    length: int
    data: bytes


class Capture(NamedTuple):
    """A capture file, as libpcap reads it."""

    link_type: int
    packets: list[Read]


def read_capture(path: Path | str) -> Capture:
    """Let tcpdump read a capture file to its end.

    It writes what it read in the simplest form, nanosecond pcap; only that is parsed here.

    :raises AssertionError: when tcpdump has anything to object to.
    """
    done = subprocess.run(
        ["tcpdump", "--nano", "-r", str(path), "-w", "-"], capture_output=True, check=False
    )
    message = done.stderr.decode()
    assert done.returncode == 0, message
    assert "truncated" not in message, message
    magic, _, _, _, _, _, link_type = struct.unpack_from("<IHHiIII", done.stdout)
    assert magic == 0xA1B23C4D, "tcpdump writes nanosecond pcap"
    packets, at = [], 24
    while at < len(done.stdout):
        seconds, nanoseconds, size, length = struct.unpack_from("<IIII", done.stdout, at)
        data = done.stdout[at + 16 : at + 16 + size]
        packets.append(Read(seconds * 10**9 + nanoseconds, length, data))
        at += 16 + size
    return Capture(link_type, packets)
