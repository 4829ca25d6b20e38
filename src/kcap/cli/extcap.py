# SPDX-License-Identifier: Apache-2.0
"""``kcap extcap``: kernel functions among Wireshark's interfaces."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcap.errors import FileError, UsageError

if TYPE_CHECKING:
    import argparse

    from kcap.session.capture import CaptureRequest

_EPILOG = """\
Wireshark, dumpcap and tshark then list "Linux kernel function (kcap)" among their interfaces, with
fields for functions and filters. Capturing needs root, as kcap capture does: start them as root.

  kcap extcap install
  tshark -i kcap -f 'tcp port 80'
  tshark -i kcap -o extcap.kcap.function:ip_rcv
"""


def _install_parser() -> argparse.ArgumentParser:
    from argparse import RawDescriptionHelpFormatter

    from kcap.cli.parser import Parser

    parser = Parser(
        prog="kcap extcap",
        description="Let Wireshark capture at kernel functions.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("install", "uninstall"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--global", action="store_true", dest="everybody", help="for all users")
    where.add_argument("--directory", default="", metavar="DIR", help="into this directory")
    return parser


def _protocol_parser() -> argparse.ArgumentParser:
    """What Wireshark says."""
    from kcap.cli.parser import Parser
    from kcap.session.extcap import ARGUMENTS

    parser = Parser(prog="kcap extcap", allow_abbrev=False, add_help=False)
    for flag in ("--extcap-interfaces", "--extcap-dlts", "--extcap-config", "--capture"):
        parser.add_argument(flag, action="store_true")
    for option in ("--extcap-interface", "--fifo", "--extcap-capture-filter"):
        parser.add_argument(option, default="")
    for argument in ARGUMENTS:
        if argument.kind == "unsigned":
            parser.add_argument(argument.option, type=int, default=int(argument.default))
        else:
            parser.add_argument(argument.option, default=argument.default)
    return parser


def main(argv: Sequence[str]) -> int:
    """Install, or speak the protocol; the exit status.

    :raises KcapError: what went wrong.
    """
    if not argv or not argv[0].startswith("-") or argv[0] in ("-h", "--help"):
        return _install(_install_parser().parse_args(list(argv)))
    # Newer versions say more than is known here.
    return _speak(_protocol_parser().parse_known_args(list(argv))[0])


def _install(arguments: argparse.Namespace) -> int:
    from kcap.session import extcap

    where = arguments.directory or extcap.directory(everybody=arguments.everybody)
    if arguments.action == "install":
        print(f"installed {extcap.install(where)}")
    else:
        print(f"removed {extcap.uninstall(where)}")
    return 0


def _speak(arguments: argparse.Namespace) -> int:
    from kcap.session import extcap

    if arguments.extcap_interfaces:
        print(extcap.interfaces(), end="")
        return 0
    if arguments.extcap_interface != extcap.INTERFACE:
        raise UsageError(f"there is no interface {arguments.extcap_interface!r}, only kcap")
    if arguments.extcap_dlts:
        print(extcap.dlts(), end="")
    elif arguments.extcap_config:
        print(extcap.configuration(), end="")
    elif arguments.capture:
        return _capture(arguments)
    elif arguments.extcap_capture_filter:
        return _judge(arguments.extcap_capture_filter)
    return 0


def _judge(expression: str) -> int:
    """Say what is wrong with a filter that somebody is typing: nothing if it is right."""
    from kcap.functions.pcap_filter import FilterError, compile_filter

    try:
        compile_filter(expression)
    except FilterError as error:
        print(error)
    return 0


def _request(arguments: argparse.Namespace, descriptor: int) -> CaptureRequest:
    from kcap.session.capture import CaptureRequest
    from kcap.session.extcap import both

    places = arguments.function.replace(",", " ").split()
    if not places:
        raise UsageError("no function to capture at")
    return CaptureRequest(
        places=places,
        expression=both(arguments.filter, arguments.extcap_capture_filter),
        path="-",
        descriptor=descriptor,
        snaplen=arguments.snaplen,
        interface=arguments.interface,
        netns=arguments.netns,
        mark=arguments.mark,
        pid=arguments.pid,
    )


def _capture(arguments: argparse.Namespace) -> int:
    """Capture into the pipe until the reader leaves or a signal comes."""
    from kcap.cli.signals import ended_by_signals
    from kcap.packet.stream import StreamClosedError
    from kcap.session.capture import Capture

    if not arguments.fifo:
        raise UsageError("--capture needs --fifo")
    if os.geteuid():
        raise UsageError(
            "capturing at kernel functions needs root",
            hint="start Wireshark as root, or pipe: sudo kcap capture … -w - | wireshark -k -i -",
        )
    try:
        fifo = os.open(arguments.fifo, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(
            f"cannot open {arguments.fifo}: {error.strerror}", arguments.fifo
        ) from error
    try:
        with (
            contextlib.suppress(StreamClosedError),
            Capture(_request(arguments, fifo)) as capture,
            ended_by_signals(capture.stop),
        ):
            capture.attach()
            for _ in capture:
                pass
    finally:
        os.close(fifo)
    sys.stdout.flush()
    return 0
