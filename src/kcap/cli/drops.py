# SPDX-License-Identifier: Apache-2.0
"""``kcap drops``: which packets the kernel drops, why, and where."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcap.cli import selection
from kcap.cli.errors import use_color
from kcap.cli.signals import ended_by_signals
from kcap.cli.started import started
from kcap.records import replace

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from kcap.session.drops import Drop, DroppedPacket, Drops
    from kcap.session.namespaces import NetnsNames

#: To the top left; the rest of a line away; everything below away.
_HOME, _LINE_END, _BELOW = "\x1b[H", "\x1b[K\n", "\x1b[J"
_RED, _DIM, _RESET = "\x1b[31m", "\x1b[2m", "\x1b[0m"
#: Names of interfaces and processes in a cell of the table.
_NAMES = 3


def _parser() -> argparse.ArgumentParser:
    from kcap.cli.parser import Parser, natural, seconds

    parser = Parser(
        prog="kcap drops",
        description="Show dropped packets with reason and place (tracepoint skb:kfree_skb): on a "
        "terminal a live table of what was counted, otherwise a line for each packet; at the end "
        "the table.",
    )
    selection.add_options(parser)
    add = parser.add_argument
    add("-w", "--write", default="", metavar="FILE", help="write the dropped packets to FILE, too")
    add("--pid", type=natural, default=0, metavar="PID", help="only while this process is current")
    add("-d", "--duration", type=seconds, default=0, metavar="SECONDS", help="end after so long")
    add("-l", "--lines", action="store_true", help="a line for each packet on a terminal, too")
    add("--stack", action="store_true", help="a line for each packet, and its call stack")
    add("--source", action="store_true",
        help="with source lines of places; needs the kernel's debugging information")  # fmt: skip
    add("--json", action="store_true", help="a line of JSON for each packet, no table")
    add("-q", "--quiet", action="store_true", help="count only: nothing but the table at the end")
    add("-v", "--verbose", action="store_true",
        help="print the script and the phases of the start, too")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Show drops; the exit status.

    :raises KcapError: what went wrong; nothing is left attached then.
    """
    parser = _parser()
    arguments = parser.parse_args(list(argv))
    if arguments.write == "-":
        parser.error("-w needs a file: kcap capture net:kfree_skb -w - writes a stream")
    request = replace(selection.request(arguments), pid=arguments.pid)
    from kcap.session.drops import Drops

    each = arguments.lines or arguments.stack or arguments.json or bool(arguments.count)
    each = (each or not sys.stdout.isatty()) and not arguments.quiet
    trace = Drops(request, each=each, stacks=arguments.stack, source=arguments.source)
    with trace as drops, ended_by_signals(drops.stop):
        if arguments.verbose:
            print(drops.script, end="", file=sys.stderr)
        drops.attach()
        started(drops.trace, verbose=arguments.verbose)
        print("counting dropped packets; Ctrl-C ends", file=sys.stderr, flush=True)
        drops.trace.on_tick = tick = _Tick(drops, arguments, table=not each)
        _show(drops, arguments)
        table = drops.table
    tick.clear()
    if not arguments.json:
        print(*table_lines(table), sep="\n")
    _report_losses(drops)
    return 0


def _show(drops: Drops, arguments: argparse.Namespace) -> None:
    """Print packets as they come, until the end."""
    colours = use_color(sys.stdout)
    for dropped in drops.packets():
        if arguments.json:
            from json import dumps

            print(dumps(as_json(dropped)))
        else:
            print(*packet_lines(dropped, drops.netns, colours=colours), sep="\n")


def _report_losses(drops: Drops) -> None:
    from kcap.functions.events import Lost

    for kind, what in (("packet", "packets"), ("event", "packets' places"), ("map", "counts")):
        lost = sum(e.count for e in drops.messages if isinstance(e, Lost) and e.kind == kind)
        if lost:
            print(f"{lost} {what} were lost: the ring or map was full", file=sys.stderr)


class _Tick:
    """Flushes lines or shows the table every second, and ends the trace when its time is over.

    :param arguments: the command line.
    :param table: the table is wanted, not lines.
    """

    def __init__(self, drops: Drops, arguments: argparse.Namespace, *, table: bool) -> None:
        self._drops = drops
        self._live = table and sys.stdout.isatty() and not arguments.quiet
        self._next = time.monotonic()
        self._end = self._next + arguments.duration if arguments.duration else float("inf")
        self._before: dict[tuple[str, str], int] = {}
        self.clear()

    def clear(self) -> None:
        """Take the live table away: the last one follows."""
        if self._live:
            sys.stdout.write(_HOME + _BELOW)

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._end:
            self._drops.stop()
        if not self._live:
            sys.stdout.flush()
        elif now >= self._next:
            self._next = now + 1
            lines = self._lines()
            with contextlib.suppress(BlockingIOError):
                # Written over what is there: a screen that is cleared first flickers.
                print(_HOME + _LINE_END.join([*lines, ""]) + _BELOW, end="", flush=True)

    def _lines(self) -> list[str]:
        """The table with what came since the last look: what the screen holds, and how much more
        there is."""
        import shutil

        table = self._drops.table
        rates = [each.count - self._before.get((each.reason, each.place), 0) for each in table]
        self._before = {(each.reason, each.place): each.count for each in table}
        size = shutil.get_terminal_size()
        lines, height = table_lines(table, rates), max(size.lines - 1, 2)
        if len(lines) > height:
            lines[height - 1 :] = [f"... {len(lines) - height + 1} more"]
        return [line[: size.columns] for line in lines]


def table_lines(table: Sequence[Drop], rates: Sequence[int] | None = None) -> list[str]:
    """Drops as a table, the most frequent first.

    :param rates: how many came in the last second, for each row.
    """
    head = ["count", "reason", "place", "interface", "process"]
    rows = [
        [str(each.count), each.reason or "-", _place(each), _few(each.interfaces),
         _few(each.processes)]
        for each in table
    ]  # fmt: skip
    if rates is not None:
        head.insert(1, "/s")
        for row, rate in zip(rows, rates, strict=True):
            row.insert(1, str(rate) if rate else "")
    rows.insert(0, head)
    numbers = 1 if rates is None else 2
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if column < numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _place(drop: Drop | DroppedPacket) -> str:
    """The place, with its source line if that is known."""
    return f"{drop.place} ({drop.source})" if drop.source else drop.place or "-"


def _few(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    from kcap.packet.summary import printable

    shown = ",".join(map(printable, names[:_NAMES]))
    return f"{shown},+{len(names) - _NAMES}" if len(names) > _NAMES else shown or "-"


def packet_lines(dropped: DroppedPacket, netns: NetnsNames, *, colours: bool = False) -> list[str]:
    """A dropped packet as a line, and a line for each function of its stack.

    :param netns: tells interfaces of several namespaces apart.
    """
    from kcap.packet.summary import clock, printable, summarise

    packet = dropped.packet
    red, dim, reset = (_RED, _DIM, _RESET) if colours else ("", "", "")
    what = summarise(packet.link_type, packet.data, packet.original_length)
    interface = printable(netns.interface(packet.interface, packet.netns)) or "-"
    reason = dropped.reason or "-"
    head = (
        f"{clock(packet.time_ns)} {interface} {red}{reason}{reset} "
        f"{_place(dropped)} {dim}{printable(packet.comm)}[{packet.pid}]{reset} {what}"
    )
    return [head, *(f"    {dim}{frame}{reset}" for frame in dropped.stack)]


def as_json(dropped: DroppedPacket) -> dict[str, Any]:
    """A dropped packet as what json.dumps() takes. The time is in nanoseconds."""
    from kcap.packet.summary import summarise

    packet = dropped.packet
    return {
        "time": packet.time_ns,
        "reason": dropped.reason or None,
        "place": dropped.place or None,
        "source": dropped.source or None,
        "interface": packet.interface or None,
        "netns": packet.netns or None,
        "mark": packet.mark,
        "cpu": packet.cpu,
        "pid": packet.pid,
        "comm": packet.comm,
        "what": summarise(packet.link_type, packet.data, packet.original_length),
        "stack": list(dropped.stack) or None,
    }
