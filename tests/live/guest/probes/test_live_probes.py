# SPDX-License-Identifier: Apache-2.0
"""Every probe type on a real kernel: it resolves, loads, attaches, fires, and leaves nothing."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kcap.kernel import features
from kcap.probes.iterator import run_iterator
from kcap.probes.listing import list_probes
from kcap.probes.problems import NoMatchError
from kcap.probes.system import Mode, System
from live.guest.probes.counting import attached, resolve
from support import PATIENCE


@pytest.fixture(scope="module")
def system() -> System:
    return System()


def trigger() -> None:
    """Make system calls that the probes below are attached to."""
    with open("/dev/zero", "rb", buffering=0) as file:
        for _ in range(5):
            file.read(1)
            os.getppid()


def touch_new_memory() -> None:
    """Spend time, with page faults."""
    with mmap.mmap(-1, 1 << 18) as memory:
        for page in range(0, 1 << 18, 4096):
            memory[page] = 1


@pytest.mark.parametrize(
    "text",
    [
        "kprobe:vfs_read",
        "kprobe:vmlinux:vfs_read",
        "kretprobe:vfs_read",
        "kprobe:vfs_read+0",
        "fentry:vfs_read",
        "fexit:vfs_read",
        "fentry:vmlinu*:vfs_re*d",
        "kprobe:vfs_*",
        "kretprobe:vfs_rea*",
        "tracepoint:syscalls:sys_enter_getppid",
        "tracepoint:syscalls:sys_*_getppid",
        "rawtracepoint:sys_enter",
    ],
)
def test_probes_in_the_kernel_fire(system: System, text: str) -> None:
    with attached(text, system) as probe:
        trigger()
        assert probe.count >= 5
    assert probe.links == [] or all(link.filenos == () for link in probe.links)


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("interval:ms:10", 3),
        ("interval:hz:100", 3),
        ("profile:hz:99", 3),
        ("profile:10ms", 3),
        ("software:cpu-clock:1000000", 3),
        ("software:cs:1", 1),
    ],
)
def test_timers_and_counters_fire(system: System, text: str, least: int) -> None:
    with attached(text, system) as probe:
        deadline = time.monotonic() + PATIENCE
        while probe.count < least and time.monotonic() < deadline:
            bytearray(1 << 20)
        assert probe.count >= least


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("begin", ""),
        ("end", ""),
        ("self:signal:SIGUSR1", ""),
        ("test:x", "test"),
        ("bench:x", "bench"),
    ],
)
def test_probes_that_attach_to_nothing_run_by_hand(text: str, mode: Mode) -> None:
    with attached(text, System(mode=mode)) as probe:
        ((_, _, program),) = probe.programs
        program.run()
        program.run()
        assert probe.count == 2


def test_a_wildcard_is_one_program_for_kprobes_and_one_for_each_function_for_fentry(
    system: System,
) -> None:
    with attached("kprobe:vfs_*", system) as probe:
        assert len(probe.programs) == 1
        functions = len(probe.contexts[0].targets)
        assert functions > 30
        if features.kprobe_multi():
            assert len(probe.links) + len(system.skipped) <= 3
    with attached("fentry:vfs_re*", System(without=("tracing_multi",))) as probe:
        assert len(probe.programs) == len(probe.contexts[0].targets) >= 3


def test_hundreds_of_functions_attach_and_detach(system: System) -> None:
    start = time.monotonic()
    with attached("kprobe:tcp_*", system) as probe:
        assert len(probe.contexts[0].targets) > 150
        middle = time.monotonic()
    end = time.monotonic()
    print(
        f"{len(probe.contexts[0].targets)} functions: {middle - start:.1f} + {end - middle:.1f} s"
    )


def test_without_kprobe_multi_each_function_has_a_link() -> None:
    system = System(without=("kprobe_multi",))
    with attached("kprobe:vfs_re*", system) as probe:
        assert len(probe.links) == len(probe.contexts[0].targets)
        trigger()
        assert probe.count >= 5


def test_args_of_a_raw_tracepoint_and_a_tracepoint_are_known(system: System) -> None:
    (raw,) = resolve("rawtracepoint:kfree_skb", system)
    assert raw.args is not None
    assert str(raw.args.all_fields()[0].type) == "struct sk_buff *"
    (plain,) = resolve("tracepoint:syscalls:sys_enter_openat", system)
    assert plain.args is not None
    names = [field.name for field in plain.args.all_fields()]
    assert names[:3] == ["__syscall_nr", "dfd", "filename"]


def test_functions_that_this_kernel_lacks_lead_to_those_that_took_their_place(
    system: System, kernel: str
) -> None:
    name = "napi_gro_receive" if kernel == "7.2" else "gro_receive_skb"
    other = "gro_receive_skb" if kernel == "7.2" else "napi_gro_receive"
    with pytest.raises(NoMatchError) as caught:
        resolve(f"fentry:{name}", system)
    assert caught.value.errors[0].help[0] == f"did you mean {other}?"


def test_a_module_function_is_traced(system: System) -> None:
    with socket.socket() as probe:
        probe.close()
    modules = [m for m in system.btf_modules if system.function_ids(m)]
    if not modules:
        pytest.skip("no module has BTF: module BTF needs 5.11")
    functions = system.functions
    assert functions is not None
    module, name = next(
        (m, n)
        for m in modules
        for n in sorted(system.function_ids(m))
        if m in functions.modules_of(n)
    )
    with attached(f"fentry:{module}:{name}", system) as probe:
        (load,) = [load for _, load, _ in probe.programs]
        assert load.attach_btf_module == module
    with attached(f"kprobe:{module}:{name}", system) as probe:
        assert probe.links


@pytest.mark.parametrize("kind", ["task", "task_file", "bpf_map"])
def test_iterators_visit_objects(system: System, kind: str) -> None:
    with attached(f"iter:{kind}", system) as probe:
        (link,) = probe.links
        assert run_iterator(link) == b""  # type: ignore[arg-type]
        assert probe.count >= 1


def test_a_watchpoint_in_a_process_fires() -> None:
    code = (
        "import ctypes, sys\n"
        "cell = ctypes.c_uint64()\n"
        "print(ctypes.addressof(cell), flush=True)\n"
        "sys.stdin.readline()\n"
        "for i in range(5): cell.value = i\n"
        "print('done', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        address = int(child.stdout.readline())
        with attached(f"watchpoint:{address:#x}:8:w", System(pid=child.pid)) as probe:
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
            assert probe.count == 5
        child.send_signal(signal.SIGKILL)


def test_an_offset_inside_an_instruction_is_explained(system: System) -> None:
    from kcap.kernel.errors import AttachError

    with pytest.raises(AttachError) as caught, attached("kprobe:vfs_read+1", system):
        pass
    assert caught.value.message.startswith(
        "Possible attachment attempt in the middle of an instruction, try a different offset."
    )


def test_lists_are_complete(system: System) -> None:
    lines = set(list_probes("", system))
    for line in (
        "kprobe:vfs_read",
        "fentry:vmlinux:vfs_read",
        "tracepoint:sched:sched_switch",
        "rawtracepoint:vmlinux:kfree_skb",
        "software:cpu:",
        "iter:task",
    ):
        assert line in lines


def test_no_file_descriptor_is_left_behind(system: System) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for text in ("kprobe:vfs_read", "fentry:vfs_read", "interval:s:1"):
        with attached(text, system):
            pass
    with pytest.raises(Exception, match="attach"), attached("kprobe:vfs_read+1", system):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
