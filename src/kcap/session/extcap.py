# SPDX-License-Identifier: Apache-2.0
"""Wireshark's extcap interface: kernel functions among its interfaces.

Wireshark, dumpcap and tshark start every executable of their extcap directories with
``--extcap-interfaces`` and ask what there is, and with ``--capture --fifo PATH`` to capture. See
https://www.wireshark.org/docs/wsdg_html_chunked/ChCaptureExtcap.html.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import Final, NamedTuple

from kcap.errors import FileError, UsageError
from kcap.session.replacing import replace_file
from kcap.version import __version__

INTERFACE: Final = "kcap"
DISPLAY: Final = "Linux kernel function (kcap)"
#: What the executable is called.
FILE: Final = "kcap-extcap"
#: Where newer Wiresharks look; taken when none is here to be asked.
_PERSONAL: Final = "~/.local/lib/wireshark/extcap"


class Argument(NamedTuple):
    """A field of Wireshark's dialogue.

    :ivar option: the option that it sets.
    :ivar display: what stands beside it.
    :ivar tooltip: what it is for.
    :ivar kind: ``string``, ``unsigned``, ``boolflag``.
    :ivar default: what is in it at first.
    """

    option: str
    display: str
    tooltip: str
    kind: str = "string"
    default: str = ""


ARGUMENTS: Final = (
    Argument("--function", "Functions", "Kernel functions and tracepoints that take a packet, "
             "separated by spaces: ip_rcv net:netif_receive_skb (kcap capture --list)",
             default="net:netif_receive_skb net:net_dev_start_xmit"),
    Argument("--filter", "Filter", "A pcap-filter expression, run in the kernel; together with "
             "the capture filter of the interface"),
    Argument("--interface", "Interface", "Only packets of this network interface"),
    Argument("--netns", "Network namespace", "Only packets in this one: its name, inode number "
             "or path"),
    Argument("--mark", "Mark", "Only packets with this mark: VALUE or VALUE/MASK"),
    Argument("--pid", "Process", "Only while the process with this number is current",
             "unsigned", "0"),
    Argument("--snaplen", "Bytes", "At most so many bytes of a packet; 0 for all", "unsigned", "0"),
)  # fmt: skip


def interfaces() -> str:
    """What there is to capture on."""
    return (
        f"extcap {{version={__version__}}}"
        "{help=https://www.wireshark.org/docs/man-pages/extcap.html}\n"
        f"interface {{value={INTERFACE}}}{{display={DISPLAY}}}\n"
    )


def dlts() -> str:
    """The link types: packets are whole Ethernet frames at every function."""
    return "dlt {number=1}{name=EN10MB}{display=Ethernet}\n"


def configuration() -> str:
    """The fields of the dialogue."""
    lines = []
    for number, argument in enumerate(ARGUMENTS):
        line = f"arg {{number={number}}}{{call={argument.option}}}{{display={argument.display}}}"
        line += f"{{tooltip={argument.tooltip}}}{{type={argument.kind}}}"
        if argument.default:
            line += f"{{default={argument.default}}}"
        lines.append(line + ("{required=true}" if not number else ""))
    return "\n".join(lines) + "\n"


def both(first: str, second: str) -> str:
    """An expression for what two expressions take."""
    parts = [part for part in (first.strip(), second.strip()) if part]
    if len(parts) < 2:
        return "".join(parts)
    return " and ".join(f"({part})" for part in parts)


def directory(*, everybody: bool = False) -> str:
    """The directory where Wireshark looks for extcap programs.

    :param everybody: that of all users, not the own.
    :raises UsageError: nobody knows: Wireshark is not here to be asked.
    """
    # "Extcap path" and nothing personal is what Wireshark 4.0 and older say: there personal
    # programs are below the configuration.
    wanted = ("Global Extcap path", "Extcap path") if everybody else ("Personal Extcap path",)
    for program in ("tshark", "wireshark"):
        path = shutil.which(program)
        if path is None:
            continue
        done = subprocess.run([path, "-G", "folders"], capture_output=True, text=True, check=False)
        lines = (line.partition(":") for line in done.stdout.splitlines())
        found = {name.strip(): value.strip() for name, _, value in lines}
        for name in wanted:
            if name in found:
                return found[name]
        if not everybody and "Personal configuration" in found:
            return os.path.join(found["Personal configuration"], "extcap")
    if everybody:
        raise UsageError(
            "neither tshark nor wireshark is here to say where extcap programs are kept",
            hint="name the directory: kcap extcap install --directory DIR",
        )
    return os.path.expanduser(_PERSONAL)


def install(where: str) -> str:
    """Put an executable that starts this kcap into a directory; its path.

    :raises FileError: it cannot be written.
    """
    path = os.path.join(where, FILE)
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Wireshark passes little of the environment on, so say where this kcap is.
    text = (
        "#!/bin/sh\n# Made by kcap extcap install.\n"
        f"PYTHONPATH={shlex.quote(source)}${{PYTHONPATH:+:$PYTHONPATH}} "
        f'exec {shlex.quote(sys.executable)} -m kcap extcap "$@"\n'
    )
    try:
        os.makedirs(where, exist_ok=True)
        # Root may install into somebody else's directory: a link there is not followed.
        replace_file(path, text.encode(), 0o755)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}", path, hint=_hint(error.errno)
        ) from error
    return path


def uninstall(where: str) -> str:
    """Remove the executable from a directory; its path.

    :raises FileError: it is not there, or cannot be removed.
    """
    path = os.path.join(where, FILE)
    try:
        os.unlink(path)
    except OSError as error:
        raise FileError(
            f"cannot remove {path}: {error.strerror}", path, hint=_hint(error.errno)
        ) from error
    return path


def _hint(number: int | None) -> str | None:
    import errno

    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the directory of all users (--global) needs root; without it, your own is taken"
    return None
