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

ME = os.getpid()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path))


EVENT = "kcap_test/opened"


def define(arguments: str) -> None:
    """Have an event at vfs_read() with these arguments; none at all with ''."""
    path = Path(Tracefs.find().path) / "kprobe_events"
    with suppress(OSError), path.open("a") as stream:  # there may be none
        stream.write(f"-:{EVENT}\n")
    if arguments:
        with path.open("a") as stream:
            stream.write(f"p:{EVENT} vfs_read {arguments}\n")


@pytest.fixture
def no_event_stays() -> Iterator[None]:
    yield
    define("")


def was_kept(trace: Trace) -> bool:
    return not trace.script.compiled.ir


def run(text: str) -> tuple[bool, list[object]]:
    """Whether a script was found compiled, and what it did while a file was opened."""
    with kcap.trace(text) as trace:
        trace.attach()
        os.stat("/proc/self/comm")
        with open("/proc/self/comm", "rb") as file:
            file.read()
        seen = list(trace)
        return was_kept(trace), seen


def printed(seen: list[object]) -> str:
    return "".join(event.text for event in seen if isinstance(event, events.Printf))


SCRIPTS = [
    f'kprobe:vfs_read /pid == {ME}/ {{ printf("%s %d\\n", func, pid); exit(); }}',
    f'kprobe:vfs_rea* /pid == {ME}/ {{ printf("%s %d\\n", probe, pid); exit(); }}',
    f'tracepoint:syscalls:sys_enter_read /pid == {ME}/ {{ printf("%s\\n", probe); exit(); }}',
    "interval:ms:1 { @[comm] = count(); @h[1] = hist(elapsed / 0x100000000); exit(); }",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_kept_script_does_what_it_did_before(text: str) -> None:
    kept, before = run(text)
    assert not kept
    kept, after = run(text)
    assert kept
    assert printed(after) == printed(before)
    maps = [
        {event.map.name: event.entries for event in seen if isinstance(event, events.MapPrinted)}
        for seen in (before, after)
    ]
    assert maps[0].keys() == maps[1].keys()
    assert maps[0].get("@h") == maps[1].get("@h")
    assert printed(before) or maps[0]["@h"]


@pytest.mark.usefixtures("no_event_stays")
def test_an_event_that_is_defined_anew_makes_it_another_script() -> None:
    text = f"tracepoint:kcap_test:opened /pid == {ME}/ {{ @ = args.first; exit(); }}"
    for arguments in ("first=%ax:u64", "other=%ax:u64 first=%ax:u32"):
        define(arguments)
        assert not run(text)[0]
        assert run(text)[0]
    define("")
    with pytest.raises(ScriptError, match="kcap_test"):
        kcap.trace(text)
