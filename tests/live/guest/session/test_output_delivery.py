# SPDX-License-Identifier: Apache-2.0
"""What a script prints comes out while it runs: at once after a pause, as lines to a pipe, all to a
terminal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

from support import PATIENCE
from support.net import wait_until
from support.tracing import KCAP, Running

SCRIPT = r'begin { printf("one\n"); printf("which? ") } interval:s:1000 { print(1) }'


def read_until(wanted: bytes, reader: int) -> bytes:
    """What comes up to ``wanted``."""
    seen = b""
    while wanted not in seen:
        assert select.select([reader], [], [], PATIENCE)[0], f"nothing comes after {seen!r}"
        data = os.read(reader, 4096)
        assert data, f"it ends after {seen!r}"
        seen += data
    return seen


def test_a_pipe_is_given_lines_while_the_script_runs() -> None:
    with subprocess.Popen([*KCAP, "-e", SCRIPT], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = read_until(b"one\n", process.stdout.fileno())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert (first + rest).startswith(b"one\nwhich? ")
    assert process.returncode == 0


def test_a_terminal_is_shown_lines_without_an_end_too() -> None:
    shown, terminal = os.openpty()
    with subprocess.Popen([*KCAP, "-e", SCRIPT], stdout=terminal) as process:
        assert read_until(b"which? ", shown).endswith(b"one\r\nwhich? ")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    os.close(shown)
    os.close(terminal)


def test_the_first_event_after_a_pause_wakes_the_reader() -> None:
    running = Running("tracepoint:syscalls:sys_enter_getpriority { print(args.who) }")
    running.trace.tick = 2 * PATIENCE
    with running:
        time.sleep(0.3)  # it sleeps by now
        os.getpriority(os.PRIO_PROCESS, 1)
        wait_until(lambda: "1\n" in running.text)
