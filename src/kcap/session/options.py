# SPDX-License-Identifier: Apache-2.0
"""What a script is run with, beside its text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kcap.records import dataclass, field

if TYPE_CHECKING:
    from kcap.probes.system import Mode, System
    from kcap.sema.config import Config


@dataclass(slots=True)
class Options:
    """What a script is checked and run with, beside its text.

    :param parameters: positional parameters, ``$1`` first.
    :param named: named parameters, for ``getopt()``.
    :param include_directories: where C headers are looked for (``-I``).
    :param includes: headers that are included before the script's own (``--include``).
    :param pid: trace this process only (``-p``), or None.
    :param command: a command to run while tracing (``-c``); the trace ends with it.
    :param child_pid: its process id, for ``cpid``; set by the session.
    :param dwarf_pids: further processes whose stacks ``dw_ustack()`` can walk (``--dwarf-pid``).
    :param unsafe: allow ``system()`` and its like, and probes at functions that nobody lists
        (``--unsafe``).
    :param unsafe_functions: allow such functions alone; for who does not run the script.
    :param helper_errors: report failing BPF helpers at run time (``-k``).
    :param traceable_file: a list of traceable functions to take instead of the kernel's.
    :param cached: take compiled programs from the cache, and keep them there (``--no-cache``).
    :param without: features of the kernel not to use (``--no-feature``).
    :param probe_filter: a regular expression: attach only probes whose name matches.
    :param debug_directories: where debugging information of programs is looked for first.
    :param mode: ``test`` or ``bench``: run these probes and end; '' for an ordinary trace.
    :param verbose: ask for the verifier's log of every program if ``log_size`` is set (``-v``).
    :param verifier_log: ask for it in any case.
    :param environment: where ``BPFTRACE_*`` variables are looked up.
    """

    parameters: Sequence[str] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    include_directories: Sequence[str] = ()
    includes: Sequence[str] = ()
    pid: int | None = None
    command: str = ""
    child_pid: int = 0
    dwarf_pids: Sequence[int] = ()
    unsafe: bool = False
    unsafe_functions: bool = False
    helper_errors: bool = False
    traceable_file: str = ""
    cached: bool = True
    without: Sequence[str] = ()
    probe_filter: str = ""
    mode: Mode = ""
    debug_directories: Sequence[str] = ()
    verbose: bool = False
    verifier_log: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)


def make_system(options: Options, config: Config) -> System:
    """The machine that this runs on, seen with a script's options."""
    from kcap.probes.system import Files, System

    types = options.environment.get("BPFTRACE_BTF", "")
    return System(
        params=options.parameters,
        pid=options.pid,
        unsafe=options.unsafe,
        missing_probes=config.missing_probes,
        max_probes=config.max_probes,
        max_bpf_progs=config.max_bpf_progs,
        without=options.without,
        probe_filter=options.probe_filter,
        mode=options.mode,
        debug_directories=options.debug_directories,
        files=Files(traceable=options.traceable_file, types=types),
    )
