# SPDX-License-Identifier: Apache-2.0
"""The entry point: subcommands, and everything that bpftrace's command line does."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EPIPE
from importlib import import_module
from typing import Final, NamedTuple

from kcap.cli.errors import choose_format, print_error
from kcap.errors import KcapError


class Command(NamedTuple):
    """A subcommand of kcap's own.

    :param module: the module of this package that has its ``main(argv) -> int``.
    :param help: what it does, in a line.
    """

    module: str
    help: str


SUBCOMMANDS: Final = {
    "cache": Command("cache", "say or remove what is kept to start faster"),
    "capture": Command("capture", "capture packets at kernel functions"),
    "check": Command("check", "see whether a script works, here or on other kernels"),
    "doctor": Command("doctor", "say what this machine can do, and what is missing"),
    "drops": Command("drops", "show which packets are dropped, why and where"),
    "explain": Command("explain", "explain an error, a verifier log or a kernel function"),
    "extcap": Command("extcap", "let Wireshark capture at kernel functions"),
    "fix": Command("fix", "print or write a script with its mistakes mended"),
    "follow": Command("follow", "show the way of packets through the kernel"),
    "run": Command("script", "run a script, as without a command"),
    "vm": Command("vm", "run anything in a QEMU guest with a chosen kernel"),
}

#: Those that trace.
_TRACING = ("capture", "drops", "follow", "run")
#: What writing to standard output fails with: its reader is gone, or its disk is full.
_OUTPUT_FAILS = frozenset({EPIPE, ENOSPC, EDQUOT, EFBIG, EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments; those of the process by default.
    :returns: the exit status: 0, 1 after an error, 130 after a second Ctrl-C, or
        what the script's ``exit()`` asked for.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _open_standard_streams()
        _set_process_name()
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except KcapError as error:
        print_error(error, verbose="-v" in words)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno not in _OUTPUT_FAILS or error.filename is not None:
            raise
        _give_output_up(error)
        return 1
    finally:
        gc.enable()


def _run(words: list[str]) -> int:
    """Do what the words ask; the exit status."""
    words = _with_format_taken(words)
    if not words or words[0] not in SUBCOMMANDS or words[0] in _TRACING:
        gc.disable()  # a tenth of a start, and nothing is garbage yet; started() enables it
    if words and words[0] in SUBCOMMANDS:
        module = import_module(f"kcap.cli.{SUBCOMMANDS[words[0]].module}")
        status: int = module.main(words[1:])
        return status
    from kcap.cli import script

    return script.main(words)


def _open_standard_streams() -> None:
    """Put /dev/null in the place of standard streams that the process was started without: the
    next file that is opened, a capture say, would take their numbers and be printed to. What is
    started (``-c``, ``system()``) gets them, too."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)
            else:
                os.dup2(null, number)
                os.close(null)
            stream = io.TextIOWrapper(io.FileIO(number, mode, closefd=False))
            setattr(sys, name, stream)


def _give_output_up(error: OSError) -> None:
    """Standard output takes no more: say so, unless it is a reader that has seen enough."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())  # what is left in buffers is flushed at the very end
    os.close(null)
    if error.errno != EPIPE:
        print_error(KcapError(f"can't write to standard output: {error.strerror}"))


def _with_format_taken(words: list[str]) -> list[str]:
    """A subcommand's words without ``--diagnostics FORMAT``, which all of them take, and which may
    stand before the subcommand's name, too. Script runs have it among their options, and behind
    ``vm`` it belongs to what is run there.

    :raises UsageError: there is no such format.
    """
    end = words.index("--") if "--" in words else len(words)
    at = next((i for i, word in enumerate(words[:end]) if word.startswith("--diagnostics")), None)
    if at is None:
        return words
    flag, equals, value = words[at].partition("=")
    taken = 1 if equals else 2
    value = value if equals else "".join(words[at + 1 : at + 2])
    rest = words[:at] + words[at + taken :]
    if flag != "--diagnostics" or not rest or rest[0] not in SUBCOMMANDS:
        return words
    if rest[0] == "run":
        return ["run", flag, value, *rest[1:]]
    if rest[0] == "vm" and at:
        return words
    choose_format(value)
    return rest


def _set_process_name() -> None:
    """Be called what the user typed, not python3: ``comm``, ps, pkill and pidof go by it."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "kcap"
    name = "kcap" if name == "__main__.py" else name
    try:
        with open("/proc/self/comm", "w", encoding="utf-8", errors="surrogateescape") as comm:
            comm.write(name[:15])
        _set_command_line([name, *sys.argv[1:]])
    except OSError:
        pass  # a name only: no /proc, or not writable


def _set_command_line(words: list[str]) -> None:
    """Put other words where /proc/PID/cmdline reads them, as many as there is room for.

    :raises OSError: the kernel does not let us.
    """
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, see proc(5)
    if not start:  # the kernel does not tell
        return
    text = b"\0".join(os.fsencode(word) for word in words)
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(text[: end - start - 1].ljust(end - start, b"\0"))
