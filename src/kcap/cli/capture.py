# SPDX-License-Identifier: Apache-2.0
"""``kcap capture``: packets at kernel functions, with tcpdump's habits."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kcap.cli import selection
from kcap.cli.errors import use_color
from kcap.cli.progress import ProgressLine
from kcap.cli.signals import ended_by_signals
from kcap.cli.started import started
from kcap.errors import UsageError
from kcap.records import replace

if TYPE_CHECKING:
    import argparse

    from kcap.cli.parser import Parser
    from kcap.packet.rotation import Rotation
    from kcap.session.capture import Capture, CaptureRequest, PlaceStats

#: Functions that have another for lists of packets (ip_list_rcv(), since 4.19): what both call.
_FOR_LISTS = {"ip_rcv": "ip_rcv_core", "ipv6_rcv": "ip6_rcv_core"}

#: What packet filters begin with (pcap-filter(7)); no function is called so.
_FILTER_WORDS = frozenset({
    "not", "src", "dst", "host", "net", "port", "portrange", "proto", "ether", "ip", "ip6", "arp",
    "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "vlan", "mpls", "less", "greater", "broadcast",
    "multicast",
})  # fmt: skip

_EPILOG = """\
FUNCTION is a kernel function that takes an sk_buff (ip_rcv), a tracepoint that does
(net:netif_receive_skb), or either with its probe type (kprobe:ip_rcv: the part of packets that is
not in fragments). EXPR is a pcap-filter expression, as tcpdump takes it; it sees the frame from
its MAC header wherever the function finds the packet, with VLAN tags in their place.

examples:
  kcap capture ip_rcv -f 'tcp port 80'
  kcap capture ip_rcv dev_hard_start_xmit -w both.pcapng
  kcap capture net:netif_receive_skb -w - | wireshark -k -i -
  kcap capture --list 'ip_*'
"""


def _parser() -> Parser:
    from argparse import RawDescriptionHelpFormatter

    from kcap.cli.parser import Parser, natural

    parser = Parser(
        prog="kcap capture",
        description="Capture packets at kernel functions.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("functions", nargs="*", metavar="FUNCTION")
    add(
        "--list",
        action="store_true",
        help="list all functions and tracepoints that take a packet (FUNCTION: patterns)",
    )
    which = parser.add_argument_group("which packets, and how much of them")
    selection.add_options(which)
    which.add_argument(
        "--pid", type=natural, default=0, metavar="PID", help="only while this process is current"
    )
    which.add_argument(
        "-s",
        "--snaplen",
        type=natural,
        default=0,
        metavar="BYTES",
        help="capture at most so many bytes from where the function finds the packet",
    )
    which.add_argument(
        "-B",
        "--buffer-size",
        type=natural,
        default=0,
        metavar="KIB",
        help="size of each CPU's ring of packets in KiB (4096)",
    )
    _add_files(parser.add_argument_group("files"))
    _add_lines(parser.add_argument_group("what is printed"))
    return parser


def _add_files(group: argparse._ArgumentGroup) -> None:
    """The options that say where packets are written to."""
    from kcap.cli.parser import natural

    add = group.add_argument
    add(
        "-w",
        "--write",
        default="",
        metavar="FILE",
        help="write to FILE: pcapng if its name ends so, else pcap; - for standard output",
    )
    add("--pcap", action="store_true", help="with -w -: write a pcap, not a pcapng")
    add(
        "-C",
        "--file-size",
        default="",
        metavar="SIZE",
        help="begin another file when one is larger: millions of bytes, or with k, m, g behind it",
    )
    add(
        "-G",
        "--rotate-seconds",
        type=natural,
        default=0,
        metavar="SECONDS",
        help="begin another file every so often; FILE is a format for strftime(3)",
    )
    add(
        "-W",
        "--file-count",
        type=natural,
        default=0,
        metavar="COUNT",
        help="with -C: so many files, over and over again; with -G alone: end after so many",
    )
    add(
        "-Z",
        "--relinquish-privileges",
        dest="user",
        default="",
        metavar="USER",
        help="write as this user, and drop root's privileges once everything is attached",
    )
    add(
        "-U",
        "--immediate",
        "--immediate-mode",
        "--packet-buffered",
        action="store_true",
        help="hand every packet on as it comes (costs more)",
    )


def _add_lines(group: argparse._ArgumentGroup) -> None:
    """The options that say what is printed."""
    from kcap.cli import packet_lines

    add = group.add_argument
    packet_lines.add_options(group)
    add("-q", "--quiet", action="store_true", help="no summary")
    add(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say more of each packet; twice: print the script and the phases of the start, too",
    )


def main(argv: Sequence[str]) -> int:
    """Capture; the exit status.

    :raises KcapError: what went wrong; nothing is left attached then.
    """
    parser = _parser()
    arguments = parser.read(argv)
    if arguments.list:
        return _list(arguments.functions)
    if not arguments.functions:
        raise UsageError(
            "kcap capture: no function to capture at",
            hint="kcap capture --list shows what there is",
        )
    _refuse_filter(arguments.functions)
    if arguments.write == "-" and sys.stdout.isatty():
        raise UsageError(
            "-w - would write packets to a terminal",
            hint="pipe it: kcap capture … -w - | tshark -r -",
        )
    request = _request(arguments)
    if (request.rotation or request.user) and request.path in ("", "-"):
        raise UsageError("-C, -G, -W and -Z are about files: they need -w FILE")
    return _run(request, arguments)


def _refuse_filter(functions: Sequence[str]) -> None:
    """tcpdump takes its filter without an option: tell who expects that here, too.

    :raises UsageError: part of a filter is among the functions.
    """
    at = next((n for n, word in enumerate(functions) if word in _FILTER_WORDS), None)
    if at is not None:
        places, words = " ".join(functions[:at]) or "FUNCTION", " ".join(functions[at:])
        raise UsageError(
            f"kcap capture: '{functions[at]}' is no function, but part of a packet filter",
            hint=f"filters follow -f: kcap capture {places} -f '{words}'",
        )


def _rotation(arguments: argparse.Namespace) -> Rotation | None:
    from kcap.packet.rotation import Rotation, parse_size

    size, seconds, count = arguments.file_size, arguments.rotate_seconds, arguments.file_count
    if not size and not seconds:
        if count:
            raise UsageError("-W says how many files there are: it needs -C or -G")
        return None
    return Rotation(parse_size(size) if size else 0, seconds, count)


def _request(arguments: argparse.Namespace) -> CaptureRequest:
    return replace(
        selection.request(arguments),
        places=arguments.functions,
        pcap=arguments.pcap,
        snaplen=arguments.snaplen,
        pid=arguments.pid,
        immediate=arguments.immediate,
        buffer=arguments.buffer_size,
        rotation=_rotation(arguments),
        user=arguments.user,
    )


def _list(patterns: Sequence[str]) -> int:
    from kcap.probes.system import System
    from kcap.session.skb_functions import list_places, purpose

    system = System()
    missing: list[str] = []
    if system.btf is None:
        raise UsageError("the kernel has no BTF, so nobody knows which functions take packets")
    found: dict[str, str] = {}
    for pattern in patterns or ["*"]:
        points = list(list_places(pattern, system))
        found |= {f"{point.probe} ({point.argument})": purpose(point.name) for point in points}
        if not points:
            missing.append(f"'{pattern}'")
    width = min(max(map(len, found), default=0), 48)
    for place, said in sorted(found.items()):
        print(f"{place.ljust(width)}  {said}".rstrip())
    if missing:
        raise UsageError(
            f"nothing that takes a packet matches {', '.join(missing)}",
            hint="patterns are for names: 'tcp_*', 'net:*'; functions of modules have to be loaded",
        )
    return 0


def _run(request: CaptureRequest, arguments: argparse.Namespace) -> int:
    from kcap.packet.stream import StreamClosedError
    from kcap.session.capture import Capture

    # A reader of the stream that has gone has seen enough: no error.
    with (
        contextlib.suppress(StreamClosedError),
        Capture(request, ProgressLine()) as capture,
        ended_by_signals(capture.stop),
    ):
        detailed = arguments.verbose > 1
        if detailed:
            print(capture.script, end="", file=sys.stderr)
        capture.attach()
        started(capture.trace, verbose=detailed)
        if request.user:
            capture.drop_privileges()
        if not arguments.quiet:
            places = ", ".join(point.probe for point in capture.points)
            print(f"capturing at {places}", file=sys.stderr, flush=True)
        try:
            with contextlib.suppress(StreamClosedError):
                _follow(capture, arguments)
        finally:
            _sum_up(capture, quiet=arguments.quiet)
    return 0


def _sum_up(capture: Capture, *, quiet: bool) -> None:
    """Say what became of the packets, also where the capture could not go on."""
    if not quiet:
        stats = capture.stats
        print(*summary_lines(stats), *passed_by(stats), sep="\n", file=sys.stderr)
    if capture.unjudged:
        print(
            f"warning: {capture.unjudged} packets taken for no match: the filter asks for bytes in "
            "fragments, which it cannot see",
            file=sys.stderr,
        )


def _follow(capture: Capture, arguments: argparse.Namespace) -> None:
    from kcap.cli.packet_lines import PacketLines

    lines = PacketLines(arguments, colours=use_color(sys.stdout))
    capture.trace.on_tick = _flush
    capture.on_message = _teller(capture)
    for packet in capture:
        sys.stdout.write(lines.text(packet))
    _flush()


def _teller(capture: Capture) -> Callable[[object], None]:
    """What says as it happens what the trace has to say: losses, warnings."""
    from kcap.functions.events import Lost
    from kcap.output.text import TextRenderer

    renderer = TextRenderer(capture.trace.runtime.environment, quiet=True)

    def tell(event: object) -> None:
        summed_up = isinstance(event, Lost) and event.kind == "filter"
        if not summed_up and (message := renderer.message(event)):
            _flush()
            print(message, end="", file=sys.stderr, flush=True)

    return tell


def _flush() -> None:
    sys.stdout.flush()


def passed_by(stats: Sequence[PlaceStats]) -> list[str]:
    """A hint for each function that saw nothing, and that packets in lists do not pass."""
    return [
        f"hint: packets that a driver hands on in lists (NAPI) do not pass {each.place}, but "
        f"{_FOR_LISTS[each.place]} and net:netif_receive_skb"
        for each in stats
        if not each.seen and each.place in _FOR_LISTS
    ]


def summary_lines(stats: Sequence[PlaceStats]) -> list[str]:
    """What became of the packets, a line for each place, as a table."""
    head = ("function", "seen", "matched", "captured", "lost")
    rows = [head] + [
        (each.place, str(each.seen), str(each.matched), str(each.captured), str(each.lost))
        for each in stats
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                               zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]  # fmt: skip
