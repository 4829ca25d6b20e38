# SPDX-License-Identifier: Apache-2.0
"""However a trace ends, it leaves nothing behind but whole capture files."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kcap
from kcap.codegen.compile import Compiled
from kcap.diagnose.attaching import NotAttachedError
from kcap.probes.iterator import PINS
from kcap.session.script import Checked
from kcap.session.trace import Trace
from support import PATIENCE
from support.bpf_objects import Objects, bpf_objects, left_behind
from support.cpus import pinned
from support.mapped_program import MappedProgram, make_program
from support.net import Network, wait_until
from support.taps import Read, read_capture
from support.tracing import Process, Running

#: A function with BTF, a tracepoint, a perf event array, maps, a ring: one of everything.
SCRIPT = """
begin {{ @start = 1; printf("started\\n"); }}
fentry:icmp_rcv {{
  @seen = count();
  skboutput("{path}", args.skb, args.skb.len, 0);
}}
kprobe:icmp_rcv {{ @by[comm] = count(); }}
tracepoint:net:netif_receive_skb {{ @lengths = hist(args.len); }}
interval:s:1 {{ printf("tick\\n"); }}
"""
#: The same without what the verifier takes long for.
LIGHT = """
begin { @start = 1; printf("started\\n"); }
fentry:icmp_rcv { @seen = count(); printf("%d\\n", args.skb.len); }
kprobe:icmp_rcv { @by[comm] = count(); }
tracepoint:net:netif_receive_skb { @lengths = hist(args.len); }
interval:s:1 { printf("tick\\n"); }
"""
COUNT = 40
#: Memory of this process.
WATCHED = ctypes.c_uint64()


@dataclass
class Ended:
    """What a process left.

    :ivar status: its exit status; negative for the signal that ended it.
    :ivar packets: the echo requests in its file.
    """

    status: int
    stdout: str
    stderr: str
    packets: list[Read]
    path: Path


def echo_requests(path: Path) -> list[Read]:
    """Return the packets of a file that are echo requests (ICMP type 8)."""
    return [one for one in read_capture(path).packets if one.data[34:35] == b"\x08"]


def sequence_of(message: bytes) -> int:
    """The sequence number of an ICMP echo."""
    number: int = struct.unpack_from("!H", message, 6)[0]
    return number


def sequences(packets: list[Read]) -> list[int]:
    return [sequence_of(one.data[34:]) for one in packets]


def ping(network: Network, count: int, size: int = 64) -> None:
    """Send echo requests, each once the one before has been answered."""
    with network.a.entered():
        answers = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with answers:
        answers.settimeout(PATIENCE)
        for number in range(1, count + 1):
            network.ping(bytes(size), sequence=number)
            while sequence_of(answers.recv(1 << 16)[20:]) != number:
                pass


@pytest.fixture(scope="module")
def before() -> Objects:
    """Return the BPF objects that are none of kcap's."""
    return bpf_objects()


@pytest.fixture(scope="module")
def ended(
    network: Network, before: Objects, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """Run three at once, and end each by another signal while packets come."""
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    directories = {one: tmp_path_factory.mktemp(one.name) for one in signals}
    processes = {
        one: Process(["-e", SCRIPT.format(path="c.pcap")], directory)
        for one, directory in directories.items()
    }
    for process in processes.values():
        process.wait_attached()
    ping(network, COUNT)
    status = {one: processes[one].end(one) for one in signals[:2]}
    # Kill it while it writes.
    path = directories[signal.SIGKILL] / "c.pcap"
    stop = threading.Event()

    def flood_until_stopped() -> None:
        while not stop.is_set():
            ping(network, 1, 1400)

    flood = threading.Thread(target=flood_until_stopped)
    flood.start()
    try:
        size, deadline = path.stat().st_size, time.monotonic() + PATIENCE
        while path.stat().st_size < max(size, 24) + 20_000:
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.01)
        status[signal.SIGKILL] = processes[signal.SIGKILL].end(signal.SIGKILL)
    finally:
        stop.set()
        flood.join()
    return {
        one.name: Ended(
            status[one],
            processes[one].stdout,
            processes[one].stderr,
            echo_requests(directories[one] / "c.pcap"),
            directories[one] / "c.pcap",
        )
        for one in signals
    }


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_trace_in_order_with_every_packet_written(
    ended: dict[str, Ended], name: str
) -> None:
    found = ended[name]
    assert found.status == 0, found.stderr
    assert sequences(found.packets)[:COUNT] == list(range(1, COUNT + 1))
    assert f"@seen: {2 * len(found.packets)}\n" in found.stdout
    assert "@start: 1\n" in found.stdout
    assert "c.pcap: " in found.stderr
    assert "lost" not in found.stderr.lower()


def test_after_a_kill_the_file_has_whole_packets_only(ended: dict[str, Ended]) -> None:
    found = ended["SIGKILL"]
    assert found.status == -signal.SIGKILL
    assert sequences(found.packets)[:COUNT] == list(range(1, COUNT + 1))
    assert len(found.packets) > COUNT
    assert all(one.length == len(one.data) for one in found.packets)


def test_signals_leave_nothing_in_the_kernel(ended: dict[str, Ended], before: Objects) -> None:
    assert left_behind(before) == set()


def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path, before: Objects) -> None:
    descriptors = open_files()
    with pytest.raises(ZeroDivisionError):
        fail_within(SCRIPT.format(path=tmp_path / "c.pcap"), before)
    assert left_behind(before) == set()
    assert open_files() == descriptors


def fail_within(script: str, before: Objects) -> None:
    with kcap.trace(script) as trace:
        trace.attach()
        assert bpf_objects() - before
        raise ZeroDivisionError


def test_a_packet_that_a_program_has_seen_is_in_the_file_when_it_breaks_off(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "c.pcap"
    script = f'fentry:icmp_rcv {{ skboutput("{path}", args.skb, args.skb.len, 0); }}'
    with kcap.trace(script) as trace:
        for event in trace:
            if isinstance(event, kcap.AttachedProbes):
                network.ping()
            if isinstance(event, kcap.Packet):
                seen = event.data
                break
    assert seen in [one.data for one in read_capture(path).packets]


def test_a_trace_that_was_never_attached_leaves_no_file(tmp_path: Path, before: Objects) -> None:
    with kcap.trace(SCRIPT.format(path=tmp_path / "c.pcap")):
        pass
    assert list(tmp_path.iterdir()) == []
    assert left_behind(before) == set()


def test_stopping_a_trace_that_was_closed_touches_no_file_of_others(tmp_path: Path) -> None:
    with kcap.trace("interval:s:1 { }") as trace:
        trace.attach()
    files = [(tmp_path / str(number)).open("wb", buffering=0) for number in range(20)]
    trace.stop()
    assert [os.fstat(file.fileno()).st_size for file in files] == [0] * 20
    for file in files:
        file.close()


@pytest.mark.parametrize("command", ["ping -q -c 10 -i 0.01 127.0.0.1"])
def test_the_end_of_a_command_ends_the_trace_with_every_packet_written(
    tmp_path: Path, before: Objects, command: str
) -> None:
    path = tmp_path / "c.pcap"
    script = f'fentry:icmp_rcv {{ skboutput("{path}", args.skb, args.skb.len, 0); }}'
    with Running(script, options=kcap.Options(command=command)) as running:
        running.wait()
    # A reply may come late on a busy machine: behind the next request.
    assert sorted(one.data[34] for one in read_capture(path).packets) == [0] * 10 + [8] * 10
    assert left_behind(before) == set()


def test_exit_ends_the_trace_with_every_packet_written(
    network: Network, tmp_path: Path, before: Objects
) -> None:
    path = tmp_path / "c.pcap"
    script = f"""fentry:icmp_rcv {{
        if (@n < {COUNT}) {{ skboutput("{path}", args.skb, args.skb.len, 0); @n++; }}
        if (@n == {COUNT}) {{ exit(7); }}
    }}"""
    with Running(script) as running, pinned():  # two CPUs could pass the condition at once
        ping(network, COUNT)
        running.wait()
        assert running.trace.exit_status == 7
    assert len(read_capture(path).packets) == COUNT
    assert left_behind(before) == set()


def open_files() -> list[str]:
    """Return what this process has open, sockets and files by what they are."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the directory's own
            continue
    return sorted(found)


#: What takes the kernel no grace period to detach, one kind of link each: none but a map and the
#: ring, a raw tracepoint, a counter and a timer on every CPU, an iterator, a debug register.
QUICK = (
    'begin { @start = 1; printf("started\\n"); }',
    "rawtracepoint:sched_process_exit { @exits = count(); }",
    "software:page-faults:1000000 { @faults = count(); }",
    "interval:s:1 { @ticks = count(); }",
    "iter:task { @tasks = count(); }",
    f"watchpoint:{ctypes.addressof(WATCHED):#x}:8:w {{ @writes = count(); }}",
)
ROUNDS = 1000
#: Every so many rounds another script, which takes longer: kprobe, fentry, tracepoint; a pinned
#: iterator; user probes at one place and at many; a BPF program.
LONGER = 50


def libc_path() -> Path:
    """Return the C library that this process runs with."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        return next(Path(line.split()[-1]) for line in lines if "/libc.so" in line)


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[str], Trace]]:
    """Return what opens a trace of a script, which is compiled at its first time only."""
    made: dict[int, Compiled] = {}
    checked: dict[str, Checked] = {}
    real = Checked.generate

    def generate(self: Checked, *arguments: object, **options: object) -> Compiled:
        if id(self) not in made:
            made[id(self)] = real(self, *arguments, **options)  # type: ignore[arg-type]
        return made[id(self)]

    def open_(script: str) -> Trace:
        if script not in checked:
            checked[script] = kcap.compile(script)
        return Trace(checked[script])

    patch = pytest.MonkeyPatch()
    patch.setattr(Checked, "generate", generate)
    yield open_
    patch.undo()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, MappedProgram]]:
    """Return a program with USDT probes, in a file and in this process."""
    path = make_program(tmp_path_factory.mktemp("program") / "program")
    program = MappedProgram(path)
    yield path, program
    program.close()


@pytest.fixture(scope="module")
def pin() -> Iterator[Path]:
    """Return a path in the BPF file system."""
    if not os.path.ismount(PINS):
        subprocess.run(["mount", "-t", "bpf", "bpf", PINS], check=True)
    path = Path(PINS) / "kcap-clean"
    yield path
    path.unlink(missing_ok=True)


#: A BPF program to be traced, and what it is called.
TRACED = "tracepoint:syscalls:sys_enter_getpriority { @seen = count(); }"
TRACED_NAME = "tracepoint_syscalls_sys_enter_getpriority_1"


def test_a_thousand_traces_leave_no_descriptors_and_nothing_in_the_kernel(
    opened: Callable[[str], Trace],
    mapped: tuple[Path, MappedProgram],
    pin: Path,
    before: Objects,
) -> None:
    path, program = mapped
    with Running(TRACED):
        longer = (
            LIGHT,
            f"uprobe:{libc_path()}:wordexp {{ @ = count(); }}",
            f"uprobe:{path}:* {{ @[probe] = count(); }}",
            f"usdt:{path}:app:* {{ @[probe] = count(); }}",
            f"fentry:bpf:{TRACED_NAME} {{ @ = count(); }}",
            f'iter:task:{pin} {{ printf("%d\\n", ctx.task.pid); }}',
        )
        for script in (*QUICK, *longer):
            with opened(script) as trace:
                trace.attach()
            pin.unlink(missing_ok=True)
        descriptors, threads = open_files(), threading.active_count()
        for number in range(ROUNDS):
            scripts = longer if number % LONGER == 0 else QUICK
            with opened(scripts[number // LONGER % len(scripts)]) as trace:
                assert trace.attach() > 0
            pin.unlink(missing_ok=True)
        assert open_files() == descriptors
        assert threading.active_count() == threads
    assert program.semaphore == 0
    assert left_behind(before) == set()


#: Every kind of link and event that a script can hold at a time.
EVERYTHING = """
begin {{ printf("started\\n"); }}
fentry:tcp_v4_connect, fexit:tcp_v4_connect {{ @f[probe] = count(); }}
kprobe:tcp_v4_connect, kretprobe:tcp_v4_connect {{ @k[probe] = count(); }}
kprobe:tcp_v4_c*, kretprobe:tcp_v4_c* {{ @m[probe] = count(); }}
tracepoint:sched:sched_process_exit {{ @t = count(); }}
rawtracepoint:sched_process_exit {{ @r = count(); }}
uprobe:{binary}:{function}, uretprobe:{binary}:{function} {{ @u[probe] = count(); }}
uprobe:{binary}:{function}* {{ @um = count(); }}
software:context-switches:1000 {{ @s = count(); }}
profile:hz:20 {{ @p = count(); }}
interval:s:1 {{ @i = count(); }}
"""


def probe_events() -> set[str]:
    """Return the probes that tracefs lists: events by name, and what kprobes are in the kernel."""
    found = set()
    for place in ("tracing/kprobe_events", "tracing/uprobe_events", "debug/kprobes/list"):
        path = Path("/sys/kernel") / place
        if path.exists():
            found |= {f"{place}: {line}" for line in path.read_text().splitlines()}
    return found


def first_bytes(library: ctypes.CDLL, function: str) -> bytes:
    """Return how a function of this process begins: a breakpoint, where a uprobe is in it."""
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    assert address is not None
    return ctypes.string_at(address, 16)


# After a kill the kernel closes perf events later than the programs and links that hold them: a
# file that only another file holds is closed by a worker thread when a process ends (fput() in
# fs/file_table.c), a tick later or more. Until then breakpoints, semaphores and debug registers
# stay as they are.


def test_however_it_ends_no_kind_of_probe_is_left(tmp_path: Path, before: Objects) -> None:
    path = libc_path()
    libc, function = ctypes.CDLL(str(path)), "wordexp"
    assert first_bytes(libc, function)
    events, code = probe_events(), first_bytes(libc, function)
    script = EVERYTHING.format(binary=path, function=function)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        directory = tmp_path / number.name
        directory.mkdir()
        process = Process(["-e", script], directory)
        process.wait_attached()
        assert first_bytes(libc, function) != code  # so it would be seen if it stayed
        assert process.end(number) == (-9 if number == signal.SIGKILL else 0), process.stderr
        assert left_behind(before) == set()
        wait_until(lambda: first_bytes(libc, function) == code)
        wait_until(lambda: probe_events() == events)


#: The kinds that are of a process, and what is traced of BPF itself.
OWN = """
begin {{ printf("started\\n"); }}
uprobe:{path}:*, uretprobe:{path}:* {{ @u[probe] = count(); }}
usdt:{path}:app:* {{ @s[probe] = count(); }}
watchpoint:{address:#x}:8:w {{ @w = count(); }}
fentry:bpf:{traced}, fexit:bpf:{traced} {{ @b[probe] = count(); }}
"""


def test_however_it_ends_nothing_is_left_in_a_process_or_a_program(
    tmp_path: Path, mapped: tuple[Path, MappedProgram]
) -> None:
    path, program = mapped
    script = OWN.format(path=path, address=ctypes.addressof(WATCHED), traced=TRACED_NAME)
    with Running(TRACED) as traced:
        before, code = bpf_objects(), program.code
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            directory = tmp_path / number.name
            directory.mkdir()
            process = Process(["-p", str(os.getpid()), "-e", script], directory)
            process.wait_attached()
            program.call()
            assert (program.semaphore, program.code != code) == (1, True)
            assert process.end(number) == (-9 if number == signal.SIGKILL else 0), process.stderr
            assert left_behind(before) == set()
            wait_until(lambda: (program.semaphore, program.code) == (0, code))
            wait_until(lambda: attached(four_watchpoints()) == 4)  # all debug registers
        os.getpriority(os.PRIO_PROCESS, 0)
        assert dict(traced.trace.runtime.read_map(traced.trace.checked.script.maps["@seen"]))


def attached(script: str) -> int:
    """How many probes of a script can be attached now: all, or none."""
    with Trace(kcap.compile(script)) as trace, contextlib.suppress(NotAttachedError):
        return trace.attach()
    return 0


def four_watchpoints() -> str:
    at = ctypes.addressof(WATCHED)
    return "\n".join(f"watchpoint:{at + n:#x}:1:w {{ @[{n}] = count(); }}" for n in range(4))


def test_a_pinned_iterator_is_all_that_a_kill_leaves(
    tmp_path: Path, pin: Path, before: Objects
) -> None:
    process = Process(["-e", f'iter:task:{pin} {{ printf("%d\\n", ctx.task.pid); }}'], tmp_path)
    deadline = time.monotonic() + PATIENCE
    while not pin.exists():
        assert time.monotonic() < deadline, process.stderr
        time.sleep(0.001)
    process.end(signal.SIGKILL)
    assert str(os.getpid()) in pin.read_text().split()
    pin.unlink()
    assert left_behind(before) == set()
