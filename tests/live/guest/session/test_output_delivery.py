# SPDX-License-Identifier: Apache-2.0
"""What a script prints comes out while it runs: as lines to a pipe, all to a terminal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

import kcap
from support import PATIENCE
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


def test_the_reader_is_woken_when_a_quarter_of_the_ring_is_full() -> None:
    running = Running(
        'config = { perf_rb_pages = 16 } fentry:vfs_read /comm == "dd"/ '
        '{ printf("%s", "a text of which some hundred are more than a quarter of the ring"); }'
    )
    running.trace.tick = 10 * PATIENCE  # so that nothing else lets it look
    with running:
        command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=400", "status=none"]
        subprocess.run(command, check=True)
        deadline = time.monotonic() + PATIENCE
        while not printed(running) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert printed(running)
    assert running.lost == {}
    assert printed(running) >= 400


def printed(running: Running) -> int:
    """How many events of printf() have come."""
    return sum(isinstance(event, kcap.Printf) for event in list(running.events))
