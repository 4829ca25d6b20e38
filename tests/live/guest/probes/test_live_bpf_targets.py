# SPDX-License-Identifier: Apache-2.0
"""``fentry:bpf:…``: tracing loaded BPF programs."""

from __future__ import annotations

import os
import time

import pytest

import kcap
from kcap.kernel.info import program_ids
from kcap.probes.listing import list_probes
from kcap.probes.system import System
from support.tracing import Running

TARGET = """
tracepoint:syscalls:sys_enter_getpriority { @seen = count(); }
tracepoint:syscalls:sys_enter_setpriority { for ($i : 0..3) { @sum = sum($i); } }
"""
NAME = "tracepoint_syscalls_sys_enter_getpriority_1"


def wait_for(running: Running, name: str, least: int) -> dict[object, int]:
    """Return a map's entries when they add up to so many."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = dict(running.trace.runtime.read_map(running.trace.checked.script.maps[name]))
        if sum(found.values()) >= least:
            return found
        time.sleep(0.05)
    raise AssertionError(f"@{name} has {found}")


def test_entry_and_return_of_a_program_are_traced_and_it_still_works() -> None:
    with Running(TARGET) as target:
        listed = list(list_probes(f"fentry:bpf:*:{NAME}", System()))
        (probe,) = listed
        number = int(probe.split(":")[2])
        assert number in set(program_ids())
        script = (
            f"fentry:bpf:{NAME} {{ @[probe] = count(); }} "
            f"fexit:bpf:{number}:{NAME} {{ @[probe] = count(); }}"
        )
        with Running(script) as tracer:
            os.getpriority(os.PRIO_PROCESS, 0)
            os.getpriority(os.PRIO_PROCESS, 0)
            found = wait_for(tracer, "@", 4)
        assert found == {probe: 2, probe.replace("fentry", "fexit"): 2}
        assert wait_for(target, "@seen", 2) == {None: 2}


@pytest.mark.needs("loop")
def test_a_wildcard_stands_for_the_functions_of_all_programs() -> None:
    with (
        Running(TARGET) as target,
        Running("fentry:bpf:*priority* { @[func] = count(); }") as tracer,
    ):
        os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
        assert sum(wait_for(tracer, "@", 3).values()) == 3
        assert wait_for(target, "@sum", 3) == {None: 3}
        assert not tracer.trace.system.skipped


def test_a_program_that_is_not_there_is_said_so() -> None:
    with pytest.raises(kcap.KcapError) as caught:
        kcap.compile("fentry:bpf:no_such_program { }")
    assert "no BPF program has such a function" in str(caught.value) or "No matches" in str(
        caught.value
    )
