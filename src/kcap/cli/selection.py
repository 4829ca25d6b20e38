# SPDX-License-Identifier: Apache-2.0
"""Which packets are meant: the options that ``kcap capture``, ``drops`` and ``follow`` share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from kcap.session.capture import CaptureRequest


def add_options(
    parser: argparse._ActionsContainer, *, count: str = "end after COUNT packets"
) -> None:
    """Let a command take ``-f``, ``-c``, ``-i``, ``--netns`` and ``--mark``.

    :param parser: the command's, or a group of its options.
    :param count: what ``-c`` does, for the help.
    """
    from kcap.cli.parser import natural

    add = parser.add_argument
    add("-f", "--filter", default="", metavar="EXPR", help="only packets that match")
    add("-c", "--count", type=natural, default=0, metavar="COUNT", help=count)
    add(
        "-i",
        "--interface",
        default="",
        metavar="IFACE",
        help="only packets of this interface; any: of all, as without",
    )
    add(
        "--netns",
        default="",
        metavar="NETNS",
        help="only packets in this network namespace: its name, inode number or path",
    )
    add("--mark", default="", metavar="MARK[/MASK]", help="only packets with this mark")


def request(arguments: argparse.Namespace) -> CaptureRequest:
    """What these options and ``-w`` ask for, at no place yet; warns of an interface that is not
    there."""
    from kcap.session.capture import CaptureRequest

    interface = "" if arguments.interface == "any" else arguments.interface  # as tcpdump has it
    if interface and not arguments.netns:
        _warn_of_interface(interface)
    return CaptureRequest(
        places=(),
        expression=arguments.filter,
        path=arguments.write,
        count=arguments.count,
        interface=interface,
        netns=arguments.netns,
        mark=arguments.mark,
    )


def _warn_of_interface(name: str) -> None:
    """Say so if no interface is called so here: one may be elsewhere, or come later."""
    from socket import if_nameindex

    from kcap.symbols.nearest import nearest

    try:
        there = [each for _, each in if_nameindex()]
    except OSError:
        return  # nobody tells
    if name not in there:
        near = nearest(name, there)
        meant = f" (did you mean {', '.join(near)}?)" if near else ""
        print(
            f"warning: this network namespace has no interface {name}{meant}: waiting for packets "
            "of one that is called so",
            file=sys.stderr,
        )
