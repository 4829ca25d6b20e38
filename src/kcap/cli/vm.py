# SPDX-License-Identifier: Apache-2.0
"""``kcap vm``: run a command in a guest with a chosen kernel, and see to the kernels."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from kcap.vm.command import Command
    from kcap.vm.guest import Guest
    from kcap.vm.sources import Share

_EPILOG = """\
The guest has this machine's Python and this kcap, a shell, iproute2, ethtool, ping, tcpdump and
nftables. The command runs as root in it; nothing here is changed but what it changes in the shared
directories. Kernels are fetched from Debian with this machine's apt and kept in ~/.cache/kcap.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``kcap vm`` to ``parser``."""
    from kcap.cli.parser import natural
    from kcap.vm import kernels

    actions = parser.add_subparsers(dest="action", required=True, metavar="run | kernels")
    run_parser = actions.add_parser("run", help="run a command in a guest", epilog=_EPILOG)
    run_parser.add_argument(
        "--kernel",
        default=kernels.DEFAULT,
        choices=list(kernels.SUITES),
        help=f"the kernel to boot (default: {kernels.DEFAULT})",
    )
    run_parser.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="DIR[:PATH]",
        help="let the guest see DIR (at PATH, by default where it lies here); "
        "what the command changes in it is brought back when it has ended",
    )
    run_parser.add_argument("--memory", type=natural, default=1536, metavar="MIB")
    run_parser.add_argument("--cpus", type=natural, default=2, metavar="N")
    run_parser.add_argument(
        "--console", action="store_true", help="show the kernel's console on standard error"
    )
    run_parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    run_parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after --")
    kernels_parser = actions.add_parser("kernels", help="list the kernels, or fetch them")
    kernels_parser.add_argument("--fetch", action="store_true", help="fetch what is not there yet")
    kernels_parser.add_argument(
        "--update", action="store_true", help="look for newer ones and fetch them"
    )
    kernels_parser.add_argument(
        "kernels", nargs="*", metavar="KERNEL", help="which; by default all of them"
    )


def main(argv: Sequence[str]) -> int:
    """Run ``kcap vm`` with the arguments after ``vm``; return the exit status."""
    from kcap.cli.parser import Parser

    parser = Parser(prog="kcap vm", description="Try things in a QEMU guest with a chosen kernel.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Do what the parsed arguments ask; return the exit status.

    :raises KcapError: when a kernel cannot be had or the guest does not come up.
    """
    from kcap.vm.errors import VmError

    try:
        if arguments.action == "kernels":
            return _kernels(arguments)
        return _run(arguments)
    except VmError as error:
        if error.log:
            print(error.log.rstrip(), file=sys.stderr)
        raise


def progress(text: str) -> None:
    """Show a line about what is being done."""
    print(f"kcap vm: {text}", file=sys.stderr, flush=True)


def _kernels(arguments: argparse.Namespace) -> int:
    from kcap.vm import kernels

    wanted = [kernels.check_series(one) for one in arguments.kernels or kernels.SUITES]
    for series in wanted:
        if arguments.update:
            kernels.fetch(series, progress)
        elif arguments.fetch:
            kernels.kernel(series, progress)
        found = kernels.known(series)
        state = f"{found.package} {found.version}" if found else "not fetched yet"
        print(f"{series:6} Debian {kernels.SUITES[series]:10} {state}")
    return 0


def parse_share(text: str) -> Share:
    """Parse ``DIR`` or ``DIR:PATH``."""
    from kcap.vm.sources import share

    directory, colon, point = text.rpartition(":")
    return share(directory, point) if colon and point.startswith("/") else share(text)


def working_directory(shares: Sequence[Share], here: str) -> str | None:
    """Return where in the guest a command shall run: here, if a share shows this directory."""
    for shared in shares:
        top = str(shared.directory)
        if here == top or here.startswith(f"{top}/"):
            return shared.point + here[len(top) :]
    return None


def _run(arguments: argparse.Namespace) -> int:
    from kcap.vm.guest import Guest, say_nothing

    shares = [parse_share(text) for text in arguments.share]
    with Guest(
        arguments.kernel,
        shares=shares,
        memory=arguments.memory,
        processors=arguments.cpus,
        progress=say_nothing if arguments.quiet else progress,
        on_console=_show_console if arguments.console else None,
    ) as guest:
        return _command(guest, arguments.command, working_directory(shares, os.getcwd()))


def _show_console(data: bytes) -> None:
    os.write(2, data)


def _write_all(descriptor: int, data: bytes) -> None:
    # A reader that went away (`| head`) is no error of the command's.
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def _command(guest: Guest, argv: Sequence[str], cwd: str | None) -> int:
    """Run the command with this process's standard streams; return a shell's exit status."""
    import threading

    command = guest.start(
        argv,
        cwd=cwd,
        stdin=True,
        on_stdout=lambda data: _write_all(1, data),
        on_stderr=lambda data: _write_all(2, data),
    )
    threading.Thread(target=_forward_input, args=[command], daemon=True).start()
    with _forwarding(command):
        status = command.wait().status
    return status if status >= 0 else 128 - status


def _forward_input(command: Command) -> None:
    """Send what comes on standard input until it or the command ends (a thread of its own)."""
    from kcap.vm.errors import VmError

    with contextlib.suppress(OSError, VmError):
        while command.running:
            data = os.read(0, 65536)
            if not data:
                command.close_stdin()
                return
            command.write(data)


@contextlib.contextmanager
def _forwarding(command: Command) -> Iterator[None]:
    """Forward Ctrl-C and requests to end to the command while the block runs."""
    forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {
        number: signal.signal(number, lambda number, _: command.signal(number))
        for number in forwarded
    }
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
