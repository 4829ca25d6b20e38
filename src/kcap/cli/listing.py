# SPDX-License-Identifier: Apache-2.0
"""``-l``: listing probes that match a pattern, or those of a script."""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING

from kcap.cli.errors import as_bpftrace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.cli.options import Arguments
    from kcap.probes.system import System


def list_probes(arguments: Arguments) -> int:
    """Print what ``-l`` asks for; the exit status.

    :raises ScriptError: the script to list the probes of cannot be parsed.
    :raises UsageError: ``-p`` is no process.
    """
    from kcap.probes.system import Files, System

    system = System(
        params=arguments.parameters,
        pid=arguments.pid_number,
        unsafe=arguments.unsafe,
        debug_directories=arguments.debug_directories,
        files=Files(traceable=arguments.traceable_file),
    )
    found = _found(arguments, system)
    nothing = True
    while some := list(islice(found, 4096)):
        sys.stdout.write("\n".join([*some, ""]))
        nothing = False
    sys.stdout.flush()
    if nothing and not arguments.no_warnings and not as_bpftrace():
        _warn_of_nothing(arguments, system)
    return 0


def _warn_of_nothing(arguments: Arguments, system: System) -> None:
    """Say why a list is empty, as far as that is known."""
    what = f"'{arguments.file}'" if arguments.file else "the script"
    print(f"WARNING: no probe matches {what}", file=sys.stderr)
    if system.tracefs is None:
        print("HINT: tracefs can't be read, which lists the kernel's functions and events: "
              "run as root, see kcap doctor", file=sys.stderr)  # fmt: skip


def _found(arguments: Arguments, system: System) -> Iterator[str]:
    from kcap.probes import listing

    is_script = arguments.program is not None or os.path.isfile(arguments.file)
    if not is_script:
        _warn_of_file_name(arguments)
        return listing.list_probes(arguments.file, system, arguments.verbose)
    from kcap.cli.script import script_of
    from kcap.lang.parser import parse
    from kcap.lang.source import Source

    name, text = script_of(arguments)
    program = parse(Source(name, text))
    points = [point for probe in program.probes for point in probe.attach_points]
    return listing.list_points(points, system, arguments.verbose)


def _warn_of_file_name(arguments: Arguments) -> None:
    """Say so where a search pattern looks like a script that is not there."""
    search = arguments.file
    if search.endswith(".bt") and not arguments.no_warnings:
        print(
            f"WARNING: It appears that '{search}' is a filename but the file does not exist. "
            f"Treating '{search}' as a search pattern.",
            file=sys.stderr,
        )
