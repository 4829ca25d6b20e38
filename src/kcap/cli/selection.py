# SPDX-License-Identifier: Apache-2.0
"""Which packets are meant: the options that ``kcap capture``, ``drops`` and ``follow`` share."""

from __future__ import annotations

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
    add("-i", "--interface", default="", metavar="IFACE", help="only packets of this interface")
    add(
        "--netns",
        default="",
        metavar="NETNS",
        help="only packets in this network namespace: its name, inode number or path",
    )
    add("--mark", default="", metavar="MARK[/MASK]", help="only packets with this mark")


def request(arguments: argparse.Namespace) -> CaptureRequest:
    """What these options and ``-w`` ask for, at no place yet."""
    from kcap.session.capture import CaptureRequest

    return CaptureRequest(
        places=(),
        expression=arguments.filter,
        path=arguments.write,
        count=arguments.count,
        interface=arguments.interface,
        netns=arguments.netns,
        mark=arguments.mark,
    )
