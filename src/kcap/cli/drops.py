# SPDX-License-Identifier: Apache-2.0
"""``kcap drops``: which packets the kernel drops, why, and where."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcap.cli.capture import signals

if TYPE_CHECKING:
    import argparse

    from kcap.session.drops import Drop, Drops

_CLEAR = "\x1b[H\x1b[2J"


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="kcap drops",
        description="Count dropped packets by reason and place (tracepoint skb:kfree_skb).",
    )
    add = parser.add_argument
    add("-f", "--filter", default="", metavar="EXPR", help="only packets that match")
    add("-w", "--write", default="", metavar="FILE", help="write the dropped packets to FILE, too")
    add("-i", "--interface", default="", metavar="IFACE", help="only packets of this interface")
    add("--netns", default="", metavar="NETNS", help="only packets in this network namespace")
    add("--mark", default="", metavar="MARK[/MASK]", help="only packets with this mark")
    add("-d", "--duration", type=float, default=0, metavar="SECONDS", help="end after so long")
    add("-q", "--quiet", action="store_true", help="no live table, only the one at the end")
    return parser


def main(argv: Sequence[str]) -> int:
    """Count drops; the exit status.

    :raises KcapError: what went wrong; nothing is left attached then.
    """
    parser = _parser()
    arguments = parser.parse_args(list(argv))
    if arguments.write == "-":
        parser.error("-w needs a file: kcap capture net:kfree_skb -w - writes a stream")
    from kcap.session.capture import Request
    from kcap.session.drops import Drops

    request = Request(
        places=(),
        expression=arguments.filter,
        path=arguments.write,
        interface=arguments.interface,
        netns=arguments.netns,
        mark=arguments.mark,
    )
    with Drops(request) as drops, signals(drops):
        drops.attach()
        print("counting dropped packets; Ctrl-C ends", file=sys.stderr, flush=True)
        drops.trace.on_tick = _Live(drops, arguments)
        for _ in drops:
            pass
        table = drops.table
    print(*table_lines(table), sep="\n")
    return 0


class _Live:
    """Shows the table every second on a terminal, and ends the trace when its time is over.

    :param arguments: the command line.
    """

    def __init__(self, drops: Drops, arguments: argparse.Namespace) -> None:
        self._drops = drops
        self._live = sys.stdout.isatty() and not arguments.quiet
        self._next = time.monotonic()
        self._end = self._next + arguments.duration if arguments.duration else float("inf")

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._end:
            self._drops.stop()
        if self._live and now >= self._next:
            self._next = now + 1
            with contextlib.suppress(BlockingIOError):
                print(_CLEAR + "\n".join(table_lines(self._drops.table)), flush=True)


def table_lines(table: Sequence[Drop]) -> list[str]:
    """Drops as a table, the most frequent first."""
    rows = [("count", "reason", "place")]
    rows += [(str(each.count), each.reason or "-", each.place) for each in table]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{row[0].rjust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}" for row in rows]
