# SPDX-License-Identifier: Apache-2.0
"""The kprobe and the kretprobe of the same functions: one program where the kernel has sessions,
two elsewhere, and the same events either way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import kcap
from kcap.functions import events
from kcap.kernel import features
from kcap.output.text import TextRenderer
from kcap.session.script import Options
from kcap.session.trace import Trace

READS = 7


def read_file(path: Path) -> None:
    """Let this process enter and leave vfs_read() a known number of times."""
    path.write_bytes(bytes(100 * READS))
    with path.open("rb", buffering=0) as file:
        for _ in range(READS):
            assert len(file.read(100)) == 100


def entries(trace: Trace, name: str) -> dict[Any, Any]:
    return dict(trace.runtime.read_map(trace.checked.script.maps[name]))


def own(script: str) -> str:
    """The script with its blocks for this process only."""
    return script.replace("{", f"/pid == {os.getpid()}/ {{")


@pytest.fixture(params=["", "kprobe_session"], ids=["as the kernel can", "without sessions"])
def without(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Features that are not to be used."""
    return (request.param,) if request.param else ()


def programs(without: tuple[str, ...]) -> int:
    """How many programs the two probes take."""
    able = features.kprobe_session() and features.kprobe_multi()
    return 1 if able and not without else 2


@pytest.mark.parametrize("function", ["vfs_read", "vfs_rea*"])
def test_each_entry_and_each_return_is_seen(
    tmp_path: Path, without: tuple[str, ...], function: str
) -> None:
    script = own(
        f"kprobe:{function} {{ @in[probe, func] = count(); @asked = sum(arg2); "
        "@start[tid] = nsecs; return 1; } "
        f"kretprobe:{function} {{ @out[probe, func] = count(); @got = sum(retval); "
        "@took = count(); @missing = sum((uint64)(@start[tid] == 0)); } "
    )
    with kcap.trace(script, options=Options(without=without)) as trace:
        trace.attach()
        read_file(tmp_path / "file")
        assert len(trace.compiled.programs) == programs(without)
        assert entries(trace, "@got") == {None: 100 * READS}
        assert entries(trace, "@asked") == {None: 100 * READS}
        assert entries(trace, "@took") == {None: READS}
        assert entries(trace, "@missing") == {None: 0}
        named = [
            [probe for (probe, _), count in entries(trace, name).items() if count == READS]
            for name in ("@in", "@out")
        ]
        assert named == [["kprobe:vfs_read"], ["kretprobe:vfs_read"]]


def test_one_session_is_one_probe_and_says_so(without: tuple[str, ...]) -> None:
    script = "kprobe:vfs_read { @a = count(); } kretprobe:vfs_read { @b = count(); }"
    with kcap.trace(script, options=Options(without=without)) as trace:
        assert trace.attach() == programs(without)
        links = sum(len(link.bpf_links) for link in trace.loaded.links)
        ways = trace.ways()
    if programs(without) == 1:
        assert links == 1
        way = "1 target, 1 program, one kprobe_session link, entry and return"
        assert ways == [f"kprobe:vfs_read: {way}"]
    else:
        assert ways == []


def test_stacks_and_predicates_are_those_of_each_end(
    tmp_path: Path, without: tuple[str, ...], live_kernel: str
) -> None:
    # Before 5.15 the kernel can't unwind a stack whose return address a kretprobe has replaced.
    unwinds = tuple(map(int, live_kernel.split("."))) >= (5, 15)
    callers = ["ksys_read+", "ksys_read+" if unwinds else "kretprobe_trampoline+"]
    script = own(
        "kprobe:vfs_read { @in[kstack] = count(); } kretprobe:vfs_read { @out[kstack] = count(); }"
    )
    with kcap.trace(script, options=Options(without=without)) as trace:
        trace.attach()
        read_file(tmp_path / "file")
        # Naming functions reads files, which would be counted, too: so the maps come first.
        maps = [trace.checked.script.maps[name] for name in ("@in", "@out")]
        printed = [events.MapPrinted(map_, trace.runtime.read_map(map_)) for map_ in maps]
        renderer = TextRenderer(trace.runtime.environment)
        for event, caller in zip(printed, callers, strict=True):
            assert [count for _, count in event.entries] == [READS]
            assert caller in renderer.output(event)
