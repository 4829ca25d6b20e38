# SPDX-License-Identifier: Apache-2.0
"""When output reaches its file."""

from __future__ import annotations

import os
from typing import Any

import pytest

from kcap.errors import FileError
from kcap.output.writer import FULL_SIZE, LONGEST_WAIT, Writer


@pytest.fixture
def pipe() -> Any:
    """The two ends of a pipe, the reading one non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def available(reader: int) -> Any:
    """What can be read now."""
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""


def test_without_buffering_everything_is_written_at_once(pipe: Any) -> None:
    Writer(pipe[1], "none").write("a")
    assert available(pipe[0]) == b"a"


def test_lines_are_written_by_the_next_tick(pipe: Any) -> None:
    writer = Writer(pipe[1], "line")
    writer.write("a\nb")
    assert available(pipe[0]) == b""
    writer.tick()
    assert available(pipe[0]) == b"a\nb"
    writer.write("c")
    writer.tick()
    assert available(pipe[0]) == b""
    writer.flush()
    assert available(pipe[0]) == b"c"


def test_a_full_buffer_is_written(pipe: Any) -> None:
    writer = Writer(pipe[1], "full")
    writer.write("x\n")
    writer.tick()
    assert available(pipe[0]) == b""
    writer.write("y" * (FULL_SIZE - 2))
    assert len(available(pipe[0])) == FULL_SIZE


def test_bytes_that_are_not_utf8_come_out_as_they_were(pipe: Any) -> None:
    Writer(pipe[1], "none").write("\udcff\udc80é")
    assert available(pipe[0]) == b"\xff\x80\xc3\xa9"


def test_a_reader_that_went_away_is_told_from_other_errors() -> None:
    reader, end = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        Writer(end, "none").write("a")
    os.close(end)


def test_a_file_that_cannot_be_written_is_named() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        writer = Writer(file.fileno(), "none", "out")
        with pytest.raises(FileError, match="Cannot write to out: No space left on device"):
            writer.write("a")


def test_lines_do_not_wait_longer_than_a_tick_while_events_go_on_coming(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5.0
    monkeypatch.setattr("kcap.output.writer.time.monotonic", lambda: now)
    writer = Writer(pipe[1], "line")
    writer.write("a\n")
    assert available(pipe[0]) == b""
    now += LONGEST_WAIT + 0.01
    writer.write("b\n")
    assert available(pipe[0]) == b"a\nb\n"


def test_a_terminal_is_shown_lines_without_an_end_by_the_next_tick() -> None:
    shown, terminal = os.openpty()
    os.set_blocking(shown, False)
    writer = Writer(terminal, "line")
    writer.write("a\nwhich? ")
    assert available(shown) == b""
    writer.tick()
    assert available(shown) == b"a\r\nwhich? "
    os.close(terminal)
    os.close(shown)
