# SPDX-License-Identifier: Apache-2.0
"""The repaired scripts of the corpus, run on a real kernel: attached, with something to see, and
ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from kcap.errors import KcapError
from kcap.kernel.info import Statistics, program_runs
from kcap.lang.diagnostic import ScriptError
from kcap.session.preparation import Preparation
from kcap.session.script import Options
from kcap.session.trace import Trace
from support.frames import icmp_echo, icmpv6_echo

FIXED = Path(__file__).parents[3] / "unit/diagnose/corpus/fixed"
SCRIPTS = sorted(FIXED.glob("*.bt"))

#: What older kernels lack, by the code of the diagnostic that says so.
LACKING = {
    "5.10": {
        "no-map-loops": "bpf_for_each_map_elem, 5.13",
        "unknown-field": "task_struct.__state, 5.14",
    },
}
#: Probes that nothing is done for, so that their programs need not have run.
QUIET = ("begin", "end", "interval")
#: How often it is done: a busy machine may be late with it, and with what is to see it.
ATTEMPTS = 30


@pytest.fixture(scope="module", autouse=True)
def _loopback() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def something_happens(path: Path) -> None:
    """Open, read and close a file; ICMP echoes to this machine; a process is born."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with open(path, "rb", buffering=0) as file, open(path, "rb", buffering=0) as other:
        file.read(200)
        os.dup2(file.fileno(), other.fileno())  # close(2) does without filp_close from 6.6 on
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(icmp_echo(b"kcap"), ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.sendto(icmpv6_echo("::1", "::1", b"kcap"), ("::1", 0))


def run(path: Path) -> list[str]:
    """Run a script to its end; the probes that did not run.

    :raises KcapError: it does not work.
    """
    with (
        Preparation(Options(unsafe=True)) as preparation,
        preparation.trace(preparation.check(path.read_text(), path.name), packets=True) as trace,
    ):
        events = iter(trace)
        next(events)
        for _ in range(ATTEMPTS):
            something_happens(path)
            if not idle(trace):
                break
            time.sleep(0.1)
        trace.stop()
        for _ in events:
            pass
        return idle(trace)


def idle(trace: Trace) -> list[str]:
    """The probes of a trace whose programs never ran."""
    return [
        probe.compiled.context.name
        for probe in trace.loaded.probes
        if probe.compiled.context.provider not in QUIET
        and not all(program_runs(program.fileno()).runs for _, program in probe.programs)
    ]


def test_every_repaired_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    import llvmlite.binding  # noqa: F401 - loaded once, so that each compiler need not

    monkeypatch.chdir(tmp_path)
    assert len(SCRIPTS) > 75
    wrong, lacking = {}, []
    with Statistics():
        for path in SCRIPTS:
            try:
                if idle := run(path):
                    wrong[path.stem] = f"never ran: {idle}"
            except ScriptError as error:
                if {one.code for one in error.errors} <= set(LACKING.get(kernel, ())):
                    lacking.append(path.stem)
                else:
                    wrong[path.stem] = str(error)
            except KcapError as error:
                wrong[path.stem] = str(error)
    assert wrong == {}
    assert len(lacking) <= 2
    assert os.listdir(tmp_path)  # the packets
