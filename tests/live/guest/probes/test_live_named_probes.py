# SPDX-License-Identifier: Apache-2.0
"""Events that somebody has defined in tracefs: kprobes and uprobes with names of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kcap
from kcap.diagnose.attaching import NotAttachedError
from kcap.kernel.tracefs import Tracefs
from support.mapped_program import MappedProgram, make_program
from unit.symbols.elf_maker import TEXT_OFFSET

NAMED = "kcap_named"


@contextmanager
def defined(file: str, definition: str) -> Iterator[None]:
    """An event is defined in a file of tracefs, and taken back at the end."""
    events = os.open(f"{Tracefs.find().path}/{file}", os.O_WRONLY | os.O_APPEND)
    kind, _, rest = definition.partition(" ")
    try:
        os.write(events, f"{kind}:{NAMED}/one {rest}\n".encode())
        try:
            yield
        finally:
            os.write(events, f"-:{NAMED}/one\n".encode())
    finally:
        os.close(events)


def seen(script: str, act: Callable[[], object]) -> dict[object, object]:
    """What a script has in its one map after something was done."""
    with kcap.trace(script) as trace:
        trace.attach()
        act()
        (map_,) = trace.checked.script.maps.values()
        return dict(trace.runtime.read_map(map_))


@pytest.mark.parametrize(
    ("definition", "value"),
    [("p vfs_write count=%dx", "arg2"), ("r vfs_write", "retval")],
)
def test_a_named_kprobe_gives_registers(definition: str, value: str) -> None:
    script = f"tracepoint:{NAMED}:o* /pid == {os.getpid()}/ {{ @[probe] = sum({value}); }}"
    with defined("kprobe_events", definition), open(os.devnull, "wb", buffering=0) as file:
        assert seen(script, lambda: file.write(b"12345")) == {f"tracepoint:{NAMED}:one": 5}


def test_a_named_uprobe_fires(tmp_path: Path) -> None:
    path = make_program(tmp_path / "program")
    program = MappedProgram(path)
    try:
        with defined("uprobe_events", f"p {path}:{TEXT_OFFSET:#x}"):
            assert seen(f"tracepoint:{NAMED}:one {{ @[pid] = count(); }}", program.call) == {
                os.getpid(): 1
            }
    finally:
        program.close()


@pytest.mark.needs("event_probes")
def test_an_event_that_no_program_can_be_attached_to_is_explained() -> None:
    script = f"tracepoint:{NAMED}:one {{ @ = count(); }}"
    with defined("dynamic_events", "e sched.sched_switch"), kcap.trace(script) as trace:
        with pytest.raises(NotAttachedError) as caught:
            trace.attach()
        assert "programs only for tracepoints, kprobes" in caught.value.errors[0].help[0]
