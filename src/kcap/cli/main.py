# SPDX-License-Identifier: Apache-2.0
"""The entry point: subcommands, and everything that bpftrace's command line does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from kcap.cli.errors import print_error
from kcap.errors import KcapError

#: kcap's own subcommands, each a module of this package with ``main(argv) -> int``.
SUBCOMMANDS = {
    "cache": "cache",
    "check": "check",
    "capture": "capture",
    "doctor": "doctor",
    "drops": "drops",
    "explain": "explain",
    "fix": "fix",
    "run": "script",
    "vm": "vm",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments; those of the process by default.
    :returns: the exit status: 0, 1 after an error, 130 after a second Ctrl-C, or
        what the script's ``exit()`` asked for.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _set_process_name()
    try:
        if words and words[0] in SUBCOMMANDS:
            module = import_module(f"kcap.cli.{SUBCOMMANDS[words[0]]}")
            status: int = module.main(words[1:])
            return status
        from kcap.cli import script

        return script.main(words)
    except KcapError as error:
        print_error(error, verbose="-v" in words)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _set_process_name() -> None:
    """Be called what the user typed, not python3: pidof and ``comm`` go by it."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "kcap"
    try:
        with open("/proc/self/comm", "w", encoding="utf-8", errors="surrogateescape") as comm:
            comm.write("kcap" if name == "__main__.py" else name[:15])
    except OSError:
        pass  # a name only: no /proc, or not writable
