# SPDX-License-Identifier: Apache-2.0
"""``kcap follow``: packets' ways through the kernel."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcap.cli import selection
from kcap.cli.errors import use_color
from kcap.cli.progress import ProgressLine
from kcap.cli.signals import ended_by_signals
from kcap.cli.started import started

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kcap.session.follow import Follow, FollowRequest
    from kcap.session.journey import Journey

_EPILOG = """\
A packet is followed from the first function at which EXPR matches until it is freed, whatever
becomes of its headers meanwhile, and so are its copies. Where the kernel has kprobe_multi (Linux
5.18 with CONFIG_FPROBE), all functions that tell of the way are looked at, elsewhere the main ones.

examples:
  kcap follow -f 'icmp and host 10.0.0.2'
  kcap follow -f 'tcp port 80' -c 20 --html way.html
  kcap follow -f 'udp port 53' --json | jq .end.text
  kcap follow -f 'tcp[tcpflags] & tcp-syn != 0' -F 'ip_*' -F 'nf_*' -F 'tcp_*'
"""


def _parser() -> argparse.ArgumentParser:
    from argparse import RawDescriptionHelpFormatter

    from kcap.cli.parser import Parser, seconds

    parser = Parser(
        prog="kcap follow",
        description="Show the way of packets through the kernel: functions, times, what changed.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    selection.add_options(parser, count="follow COUNT packets (and their copies), then end")
    add = parser.add_argument
    add("-d", "--duration", type=seconds, default=0, metavar="SECONDS", help="end after so long")
    add("-F", "--function", action="append", default=[], metavar="PATTERN",
        help="look at these functions, with *; may be repeated")  # fmt: skip
    add("--no-copies", action="store_true", help="don't follow copies")
    add("--stack", action="store_true", help="with the call stack at every function")
    add("-b", "--brief", action="store_true",
        help="print only where packets change, are copied, or get elsewhere")  # fmt: skip
    add("--json", action="store_true", help="print a line of JSON for each packet")
    add("--html", default="", metavar="FILE", help="write a page with a timeline to FILE")
    add("-w", "--write", default="", metavar="FILE",
        help="write the packet as it is at every function to FILE, too")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="print no ways")
    add("-v", "--verbose", action="store_true",
        help="print the script and the phases of the start, too")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Follow packets; the exit status.

    :raises KcapError: what went wrong; nothing is left attached then.
    """
    parser = _parser()
    arguments = parser.parse_args(list(argv))
    if arguments.write == "-":
        parser.error("-w needs a file")
    request = _request(arguments)
    if not (arguments.filter or arguments.interface or arguments.netns or arguments.mark):
        print("without -f, -i, --netns or --mark all packets are followed", file=sys.stderr)
    return _run(request, arguments)


def _request(arguments: argparse.Namespace) -> FollowRequest:
    from kcap.session.follow import FollowRequest

    capture = selection.request(arguments)
    return FollowRequest(
        capture, tuple(arguments.function), not arguments.no_copies, arguments.stack
    )


def _run(request: FollowRequest, arguments: argparse.Namespace) -> int:
    from kcap.packet.files import OutputFile
    from kcap.session.follow import Follow

    kept: list[Journey] = []
    show = _shower(arguments)
    with contextlib.ExitStack() as stack:
        # What cannot be written is to be said before, not after.
        page = stack.enter_context(OutputFile(arguments.html)) if arguments.html else None
        progress = ProgressLine()
        stack.callback(progress.clear)  # what goes wrong gets a line of its own
        progress.say("attaching to the functions that take packets ...")
        follow = stack.enter_context(Follow(request, progress))
        stack.enter_context(ended_by_signals(follow.stop))
        if arguments.verbose:
            print(follow.script, end="", file=sys.stderr)
        follow.attach()
        progress.clear()
        started(follow.trace, verbose=arguments.verbose)
        print(
            f"following packets through {follow.functions} functions; Ctrl-C ends",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        if arguments.duration:
            follow.trace.on_tick = _Until(follow, time.monotonic() + arguments.duration)
        for journey in follow.journeys():
            show(journey)
            if page is not None:
                kept.append(journey)
        if page is not None:
            from kcap.session.follow_page import page_of

            page.begin()
            page.write([page_of(kept, arguments.filter).encode()])
        lost = follow.losses
    if lost:
        print(f"{lost} sights of packets were lost: the rings were full", file=sys.stderr)
    return 0


class _Until:
    """Ends a trace at a time."""

    def __init__(self, follow: Follow, end: float) -> None:
        self._follow, self._end = follow, end

    def __call__(self) -> None:
        if time.monotonic() >= self._end:
            self._follow.stop()


def _shower(arguments: argparse.Namespace) -> Callable[[Journey], None]:
    """What prints a way."""
    from kcap.session.follow_text import TextWays, as_json

    if arguments.quiet:
        return lambda journey: None
    if arguments.json:
        from json import dumps

        return lambda journey: print(dumps(as_json(journey)), flush=True)
    ways = TextWays(colours=use_color(sys.stdout), brief=arguments.brief)
    return lambda journey: print(*ways.lines(journey), "", sep="\n", flush=True)
