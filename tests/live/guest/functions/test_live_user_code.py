# SPDX-License-Identifier: Apache-2.0
"""Names for the code of processes, and how traces with much to do end."""

from __future__ import annotations

import re
import subprocess
import threading

import kcap
from kcap.functions.events import Message
from kcap.output.text import TextRenderer
from kcap.session.script import Options

AT_EXIT = "tracepoint:syscalls:sys_enter_exit_group /comm == str($1)/"


def of_a_process_that_has_ended(body: str) -> str:
    """What a probe at the end of /bin/true prints, which is looked at when that has ended."""
    options = Options(parameters=["true"])
    with kcap.trace(f"{AT_EXIT} {{ {body} }}", options=options) as trace:
        trace.attach()
        subprocess.run(["/bin/true"], check=True)
        trace.stop()
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        return "".join(renderer.output(event) for event in trace)


def test_code_of_a_process_that_has_ended_has_a_name() -> None:
    printed = of_a_process_that_has_ended('printf("%s", ustack(perf, 1));')
    assert re.search(r"^\t[0-9a-f]+ _exit\+\d+ \(/\S*libc\S*\)$", printed, re.M), printed


def test_build_ids_say_which_file_a_frame_is_in() -> None:
    printed = of_a_process_that_has_ended("print(ustack(build_id, 1));")
    assert re.search(r"^[0-9a-f]{40} 0x[0-9a-f]+$", printed, re.M), printed


def test_an_iterator_goes_on_when_exit_was_called_and_the_status_is_kept() -> None:
    with kcap.trace("iter:task { @[0] = count(); exit(3); }") as trace:
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        printed = "".join(renderer.output(event) for event in trace)
        assert trace.exit_status == 3
    found = re.search(r"@\[0\]: (\d+)", printed)
    assert found is not None
    assert int(found[1]) > 2


def test_a_trace_with_more_commands_than_it_can_run_ends_soon_and_says_what_it_left_out() -> None:
    text = 'interval:ms:5 { system("sleep 0.3"); } end { system("echo end"); }'
    options = Options(unsafe=True)
    with kcap.trace(text, options=options) as trace:
        trace.attach()
        timer = threading.Timer(2.0, trace.stop)
        timer.start()
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        events = list(trace)
    messages = [event.text for event in events if isinstance(event, Message)]
    assert len(messages) == 1
    assert re.fullmatch(
        r"\d+ commands of system\(\) were not run: the trace was stopped", messages[0]
    )
    assert "".join(renderer.output(event) for event in events).endswith("end\n\n\n")
