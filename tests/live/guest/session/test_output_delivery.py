# SPDX-License-Identifier: Apache-2.0
"""What a script prints comes out while it runs: to a pipe in whole lines, to a terminal all."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from support import PATIENCE
from support.tracing import KCAP

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


def test_a_pipe_is_given_whole_lines_while_the_script_runs() -> None:
    with subprocess.Popen([*KCAP, "-e", SCRIPT], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = read_until(b"one\n", process.stdout.fileno())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert first.endswith(b"one\n")
    assert rest.startswith(b"which? ")
    assert process.returncode == 0


def test_a_terminal_is_shown_lines_without_an_end_too() -> None:
    shown, terminal = os.openpty()
    with subprocess.Popen([*KCAP, "-e", SCRIPT], stdout=terminal) as process:
        assert read_until(b"which? ", shown).endswith(b"one\r\nwhich? ")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    os.close(shown)
    os.close(terminal)


def test_a_burst_larger_than_a_quarter_of_the_ring_is_read_while_it_comes() -> None:
    script = (
        'config = { perf_rb_pages = 16 } fentry:vfs_read /comm == "dd"/ '
        '{ printf("%s\\n", "a text that is longer than most, so that the ring is full soon"); }'
    )
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=5000", "status=none"]
    notify = {**os.environ, "__BPFTRACE_NOTIFY_PROBES_ATTACHED": "1"}
    with subprocess.Popen([*KCAP, "-e", script], stdout=subprocess.PIPE, env=notify) as process:
        assert process.stdout is not None
        read_until(b"ATTACHED\n", process.stdout.fileno())
        subprocess.run(command, check=True)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert rest.count(b"full soon\n") == 5000
