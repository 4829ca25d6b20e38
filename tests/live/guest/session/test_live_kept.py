# SPDX-License-Identifier: Apache-2.0
"""Scripts that were kept compiled do the same again, while the kernel is the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import kcap
from kcap.functions import events
from kcap.kernel.tracefs import Tracefs
from kcap.lang.diagnostic import ScriptError
from kcap.session.trace import Trace


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path))


EVENT = "kcap_test/opened"


def define(arguments: str) -> None:
    """Have an event at vfs_read() with these arguments; none at all with ''."""
    file = os.open(f"{Tracefs.find().path}/kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        with suppress(OSError):  # there may be none
            os.write(file, f"-:{EVENT}\n".encode())
        if arguments:
            os.write(file, f"p:{EVENT} vfs_read {arguments}\n".encode())
    finally:
        os.close(file)


@pytest.fixture
def no_event_stays() -> Iterator[None]:
    yield
    define("")


def was_kept(trace: Trace) -> bool:
    return not trace.script.compiled.ir


def run(text: str) -> tuple[bool, list[object]]:
    """Whether a script was found compiled, and what it did while a file was read."""
    with kcap.trace(text.replace("OWN_PID", str(os.getpid()))) as trace:
        trace.attach()
        with open("/proc/self/comm", "rb") as file:
            file.read()
        seen = list(trace)
        return was_kept(trace), seen


def printed(seen: list[object]) -> str:
    return "".join(event.text for event in seen if isinstance(event, events.Printf))


OWN = "/pid == OWN_PID/"


@pytest.mark.parametrize(
    "text",
    [
        f'kprobe:vfs_read {OWN} {{ printf("%s %d\\n", func, pid); exit(); }}',
        f'kprobe:vfs_rea* {OWN} {{ printf("%s %d\\n", probe, pid); exit(); }}',
        f'tracepoint:syscalls:sys_enter_read {OWN} {{ printf("%s\\n", probe); exit(); }}',
    ],
)
def test_a_kept_script_prints_what_it_did_before(text: str) -> None:
    kept, before = run(text)
    assert not kept
    kept, after = run(text)
    assert kept
    assert printed(after) == printed(before) != ""


def test_maps_of_a_kept_script_are_read_as_before() -> None:
    text = "interval:ms:1 { @n[comm] = count(); @h[1] = hist(elapsed / 60000000000); exit(); }"
    for wanted in (False, True):
        kept, seen = run(text)
        assert kept == wanted
        maps = {e.map.name: e.entries for e in seen if isinstance(e, events.MapPrinted)}
        ((key, histogram),) = maps["@h"]
        assert (key, [bucket.low for bucket in histogram.buckets]) == (1, [0])  # since this start
        assert sum(count for _, count in maps["@n"]) == histogram.total


@pytest.mark.usefixtures("no_event_stays")
def test_an_event_that_is_defined_anew_makes_it_another_script() -> None:
    text = "tracepoint:kcap_test:opened { @ = arg0; }"
    for arguments in ("first=%ax:u64", "other=%ax:u64 first=%ax:u32"):
        define(arguments)
        for wanted in (False, True):
            with kcap.trace(text) as trace:
                assert was_kept(trace) == wanted
    define("")
    with pytest.raises(ScriptError, match="kcap_test"):
        kcap.trace(text)
