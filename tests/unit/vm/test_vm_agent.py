# SPDX-License-Identifier: Apache-2.0
"""The conversation between host and agent, with the agent as an ordinary process here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.vm import agent
from kcap.vm.errors import GuestDied, VmError
from kcap.vm.guest import Guest
from kcap.vm.sources import Share, names_below
from support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = """
import os, sys
from kcap.vm.agent import Agent
port = int(sys.argv[1])
os.set_inheritable(port, False)
Agent(port).serve()
"""


class LocalGuest(Guest):
    """A guest whose agent is a process of this machine: no kernel, no emulator."""

    def boot(self) -> None:
        """Start the agent."""
        ours, theirs = socket.socketpair()
        os.set_blocking(theirs.fileno(), False)
        source = Path(agent.__file__).parents[2]
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        theirs.close()
        for target in (self._read_console, self._read_port):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)


@pytest.fixture
def guest() -> Iterator[LocalGuest]:
    guest = LocalGuest()
    with guest:
        yield guest


def shell(guest: Guest, script: str, **options: object) -> tuple[int, bytes, bytes]:
    """Run a shell script; return status and output."""
    result = guest.run(["sh", "-c", script], cwd="/", **options)  # type: ignore[arg-type]
    return result.status, result.stdout, result.stderr


def test_output_and_exit_status_come_back(guest: Guest) -> None:
    assert shell(guest, "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


def test_a_signal_that_ends_a_command_is_a_negative_status(guest: Guest) -> None:
    assert shell(guest, "kill -TERM $$")[0] == -signal.SIGTERM


def test_large_output_comes_whole(guest: Guest) -> None:
    assert shell(guest, "head -c 3000000 /dev/zero")[1] == bytes(3_000_000)


def test_input_is_passed_on_whole(guest: Guest) -> None:
    data = os.urandom(1_000_000)
    assert guest.run(["cat"], cwd="/", stdin=data).stdout == data


def test_input_that_nobody_reads_hinders_nothing(guest: Guest) -> None:
    assert shell(guest, "exec <&-; echo done", stdin=bytes(1_000_000)) == (0, b"done\n", b"")
    assert shell(guest, "echo next") == (0, b"next\n", b"")


def test_without_input_a_command_reads_nothing(guest: Guest) -> None:
    assert shell(guest, "cat; echo end") == (0, b"end\n", b"")


def test_a_program_that_is_not_there_is_status_127_with_a_reason(guest: Guest) -> None:
    result = guest.run(["no-such-program"], cwd="/")
    assert result.status == 127
    assert result.stderr.startswith(b"kcap-guest: ")
    assert b"No such file or directory" in result.stderr


def test_a_directory_that_is_not_there_is_status_127(guest: Guest) -> None:
    assert guest.run(["true"], cwd="/no/such/directory").status == 127


def test_variables_are_set_on_top_of_the_guests_own(guest: Guest) -> None:
    _, out, _ = shell(guest, 'echo "$ONE $HOME"', env={"ONE": "1"})
    assert out == b"1 /root\n"


def test_commands_run_side_by_side(guest: Guest) -> None:
    first = guest.start(["cat"], cwd="/", stdin=True)
    assert shell(guest, "echo second") == (0, b"second\n", b"")
    assert first.running
    first.write(b"first")
    first.close_stdin()
    assert first.wait().stdout == b"first"


def test_a_signal_reaches_the_command_and_its_children(guest: Guest) -> None:
    lines: list[bytes] = []
    ready = threading.Event()

    def take(data: bytes) -> None:
        lines.append(data)
        ready.set()

    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    command = guest.start(["sh", "-c", script], cwd="/", on_stdout=take)
    ready.wait()
    command.signal(signal.SIGINT)
    assert command.wait().status == 5
    assert b"".join(lines) == b"ready\ncaught\n"


def test_a_command_that_takes_too_long_is_killed(guest: Guest) -> None:
    with pytest.raises(TimeoutError):
        guest.run(["sleep", "100"], cwd="/", timeout=0.2)
    assert shell(guest, "echo alive") == (0, b"alive\n", b"")


def test_what_runs_on_in_the_background_is_not_waited_for(guest: Guest) -> None:
    assert shell(guest, "sleep 2 & echo $!")[0] == 0


def test_what_writes_on_in_the_background_is_not_waited_for(guest: Guest) -> None:
    assert shell(guest, "yes & sleep 0.1; exit 4", timeout=PATIENCE)[0] == 4


def test_a_number_is_not_given_to_two_commands_at_once(guest: Guest) -> None:
    first = guest.start(["cat"], cwd="/", stdin=True)
    guest._next = first._number
    assert shell(guest, "echo second") == (0, b"second\n", b"")
    first.close_stdin()
    assert first.wait().status == 0


def test_files_are_put_and_read(guest: Guest, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    path = str(tmp_path / "new/directory/file")
    guest.put(data, path, mode=0o640)
    assert guest.read(path) == data
    assert os.stat(path).st_mode & 0o777 == 0o640
    guest.put(b"", path)
    assert guest.read(path) == b""


def test_reading_a_file_that_is_not_there_is_an_error(guest: Guest) -> None:
    with pytest.raises(VmError, match="cannot read /no/file in the guest: No such file"):
        guest.read("/no/file")


def test_what_changed_in_a_share_is_brought_back(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for top in (here, there):
        (top / "kept").mkdir(parents=True)
        for name in ("same", "changed", "gone", "kept/inside"):
            (top / name).write_text("old")
    with LocalGuest(shares=[Share(here, str(there))]) as guest:
        guest._mounted_at = (there / "kept/inside").stat().st_ctime + 0.001
        guest._shared = {str(there): names_below(here)}
        (here / "same").write_text("newer here")
        script = (
            "sleep 0.1; echo new > changed; rm gone; mkdir -p a/b; echo x > a/b/c; chmod 755 a/b/c;"
            "ln -s c a/b/link"
        )
        assert guest.run(["sh", "-c", script], cwd=str(there)).status == 0
        changed = guest.collect()
    assert sorted(changed) == ["a/b/c", "a/b/link", "changed", "gone"]
    assert (here / "changed").read_text() == "new\n"
    assert (here / "a/b/c").stat().st_mode & 0o777 == 0o755
    assert os.readlink(here / "a/b/link") == "c"
    assert not (here / "gone").exists()
    assert (here / "same").read_text() == "newer here"


class Collected(agent.Agent):
    """An agent that keeps what it would send."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.sent.append((kind, payload))


@pytest.mark.parametrize(
    ("vanishing", "sent", "missing"),
    [
        ("directory", ["file", "stays"], []),
        ("file", ["directory", "directory/inside", "stays"], ["file"]),
    ],
)
def test_what_vanishes_while_a_share_is_collected_is_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vanishing: str,
    sent: list[str],
    missing: list[str],
) -> None:
    (tmp_path / "directory").mkdir()
    for name in ("directory/inside", "file", "stays"):
        (tmp_path / name).touch()
    real = os.lstat

    def lstat(path: str, **options: int) -> os.stat_result:
        """Look at a file just before it goes."""
        found = real(path, **options)
        if path == f"{tmp_path}/{vanishing}":
            monkeypatch.undo()
            subprocess.run(["rm", "-r", path], check=True)
        return found

    monkeypatch.setattr("os.lstat", lstat)
    collected = Collected()
    collected.collect(1, {"path": str(tmp_path), "known": ["file"], "since": 0})
    names = [json.loads(data)["name"] for kind, data in collected.sent if kind == agent.ENTRY]
    assert names == sent
    assert collected.sent[-1] == (agent.END, json.dumps(missing).encode())


def test_a_guest_that_goes_away_fails_what_runs_and_what_comes_after(guest: LocalGuest) -> None:
    command = guest.start(["sleep", "2"], cwd="/")
    assert guest._process is not None
    guest._process.kill()
    with pytest.raises(GuestDied, match="went away"):
        command.wait()
    with pytest.raises(GuestDied):
        guest.run(["true"])


messages = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 0xFFFF), st.binary(max_size=200)), max_size=10
)


@given(messages, st.lists(st.integers(1, 50), max_size=50))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(agent.frame(*message) for message in sent)
    frames = agent.Frames()
    received = []
    for size in cuts:
        received += frames.feed(stream[:size])
        stream = stream[size:]
    assert received + frames.feed(stream) == sent


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (b"[    3.4] int3: 0000 [#1] PREEMPT SMP NOPTI\r\n", True),
        (b"[    3.4] Oops: int3: 0000 [#1] PREEMPT SMP\r\n", True),
        (b"[    3.4] sysrq: Trigger a crash\r\n", False),
    ],
)
def test_only_a_stale_breakpoint_is_taken_for_the_emulators_fault(
    guest: LocalGuest, console: bytes, expected: bool
) -> None:
    guest._console += console
    assert guest._process is not None
    command = guest.start(["sleep", "2"], cwd="/")
    guest._process.kill()
    with pytest.raises(GuestDied) as caught:
        command.wait()
    assert caught.value.stale_breakpoint is expected
