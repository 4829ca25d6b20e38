# SPDX-License-Identifier: Apache-2.0
"""Packets as ``kcap capture`` prints them: a line each, and their bytes below if wanted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kcap.packet.hexdump import ascii_text, behind_link_header, hex_lines
from kcap.packet.summary import clock, link_header, printable, summarise

if TYPE_CHECKING:
    import argparse

    from kcap.packet.decode import Packet

#: Bold, green, blue, dim, red, and as before (SGR).
_COLOURS = ("\x1b[1m", "\x1b[32m", "\x1b[34m", "\x1b[2m", "\x1b[31m", "\x1b[0m")


def add_options(parser: argparse._ActionsContainer) -> None:
    """Let a command take tcpdump's options that say how a packet is printed."""
    add = parser.add_argument
    add("-e", "--link", action="store_true", help="print the addresses of the link layer, too")
    add("-t", dest="times", action="count", default=0,
        help="no times; -tt: seconds since 1970, -ttt: since the line before, -tttt: with the "
        "date, -ttttt: since the first line")  # fmt: skip
    add("-x", dest="hex", action="count", default=0,
        help="print the bytes, too, without the link-layer header; -xx: with it")  # fmt: skip
    add("-X", dest="text", action="count", default=0,
        help="as -x and -xx, and as text beside that")  # fmt: skip
    add("-A", dest="ascii", action="store_true", help="print the bytes as text below the line")
    add("-n", action="count", help="no names are looked up: this is for who is used to write it")
    add("-l", action="store_true", help="lines are never held back: as -n")


class PacketLines:
    """Makes the lines of packets.

    :param options: the command line: see :func:`add_options`; ``verbose`` asks for CPU, network
        namespace, mark and the skb's address, ``snaplen`` has packets cut.
    :param colours: with colours, for a terminal.
    """

    def __init__(self, options: argparse.Namespace, *, colours: bool = False) -> None:
        self._options = options
        self._colours = _COLOURS if colours else ("",) * len(_COLOURS)
        self._first = self._before = 0

    def text(self, packet: Packet) -> str:
        """A packet's line: time, interface, direction, function, process, protocols, and why it
        is dropped where the function is told; then its bytes, if they are wanted."""
        bold, green, blue, dim, red, reset = self._colours
        where = f"{green}{printable(packet.interface) or '-'}{reset} {packet.direction or '-'}"
        said = f"{dim}{when}{reset} " if (when := self._time(packet.time_ns)) else ""
        said += (
            f"{where} {blue}{packet.function}{reset} "
            f"{dim}{printable(packet.comm)}[{packet.pid}]{reset} {bold}{self._what(packet)}{reset}"
        )
        if packet.reason:
            said += f" dropped {red}{packet.reason}{reset}"
        missing = packet.original_length - len(packet.data)
        if packet.linear_only and missing and not self._options.snaplen:
            said += f" (without the {missing} bytes in fragments)"
        if self._options.verbose:
            said += (
                f" | cpu {packet.cpu} netns {packet.netns} mark {packet.mark:#x} {packet.skb:#x}"
            )
        return "\n".join([said, *self._bytes(packet), ""])

    def _what(self, packet: Packet) -> str:
        what = summarise(packet.link_type, packet.data, packet.original_length)
        if not self._options.link or packet.made_header:
            return what
        header = link_header(packet.link_type, packet.data, packet.original_length)
        return f"{header}: {what}" if header else what

    def _time(self, time_ns: int) -> str:
        """When, in the form that ``-t`` asks for."""
        self._first = self._first or time_ns
        before, self._before = self._before or time_ns, time_ns
        times = self._options.times
        if times == 1:
            return ""
        if times == 2:
            return _seconds(time_ns)
        if times == 4:
            return f"{time.strftime('%Y-%m-%d', time.localtime(time_ns // 10**9))} {clock(time_ns)}"
        if times in (3, 5):
            return _seconds(time_ns - (before if times == 3 else self._first), clock_form=True)
        return clock(time_ns)

    def _bytes(self, packet: Packet) -> list[str]:
        options = self._options
        data = packet.data
        if not packet.made_header and (options.hex > 1 or options.text > 1):
            shown = data
        else:
            shown = behind_link_header(packet.link_type, data)
        if options.text or options.hex:
            return list(hex_lines(shown, ascii_too=bool(options.text)))
        return [ascii_text(shown)] if options.ascii else []


def _seconds(nanoseconds: int, *, clock_form: bool = False) -> str:
    """A time span, or a time since 1970, with microseconds.

    :param clock_form: with hours and minutes.
    """
    sign, (seconds, rest) = "-" * (nanoseconds < 0), divmod(abs(nanoseconds), 1_000_000_000)
    whole = str(seconds)
    if clock_form:
        whole = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{sign}{whole}.{rest // 1000:06}"
