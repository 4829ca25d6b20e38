# SPDX-License-Identifier: Apache-2.0
"""What probe types give to scripts: arguments, returned values, names, on real kernels."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

import kcap
from kcap import Options
from kcap.lang.diagnostic import ScriptError
from kcap.output.text import TextRenderer
from support.net import wait_until
from support.tracing import Running

PATH = "/tmp/kcap-probe-file"


def printed(script: str, act: Callable[[], object], **options: object) -> str:
    """What a script prints by printf while a thread acts, until it calls exit().

    :param script: with ``ACTING`` for the thread's number.
    """
    go, stop = threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        while not stop.is_set():
            act()
            time.sleep(0.05)

    worker = threading.Thread(target=work)
    worker.start()
    text = ""
    try:
        script = script.replace("ACTING", str(worker.native_id))
        with kcap.trace(script, options=Options(**options)) as trace:  # type: ignore[arg-type]
            trace.attach()
            renderer = TextRenderer(trace.runtime.environment, quiet=True)
            go.set()
            for event in trace:
                text += renderer.output(event)
    finally:
        stop.set()
        go.set()
        worker.join()
    return text


def open_file() -> None:
    with open(PATH, "w") as file:
        file.write("12345")


def only_it(body: str) -> str:
    """A block for the thread that acts: kcap itself reads and writes files, too."""
    return f"/tid == ACTING/ {{ {body} exit(); }}"


@pytest.mark.parametrize(
    ("probe", "body", "expected"),
    [
        (
            "tracepoint:syscalls:sys_enter_openat",
            'printf("%s %d\\n", str(args.filename), args.dfd);',
            f"{PATH} -100\n",
        ),
        ("fentry:vfs_write", 'printf("%d %s", args.count, probe);', "5 fentry:vmlinux:vfs_write"),
        ("fexit:vfs_write", 'printf("%d %d\\n", args.count, retval);', "5 5\n"),
        ("kprobe:vfs_write", 'printf("%d %s\\n", arg2, func);', "5 vfs_write\n"),
        ("kretprobe:vfs_write", 'printf("%d\\n", retval);', "5\n"),
        ("fentry:vfs_write", 'printf("%d\\n", *args.pos);', "0\n"),  # long *
        ("fentry:vfs_write", 'printf("%d\\n", *(int64 *)arg3);', "0\n"),
        ("fexit:vfs_write", 'printf("%d %d\\n", *args.pos, retval);', "5 5\n"),
        ("rawtracepoint:sys_enter", 'printf("%s\\n", probe);', "rawtracepoint:vmlinux:sys_enter\n"),
    ],
)  # fmt: skip
def test_arguments_reach_the_script(probe: str, body: str, expected: str) -> None:
    assert expected in printed(f"{probe} {only_it(body)}", open_file)


def test_located_strings_of_tracepoints_are_read() -> None:
    script = (
        'tracepoint:sched:sched_process_exec { printf("<%s>\\n", str(args.filename)); exit(); }'
    )
    text = printed(script, lambda: os.system("/bin/true"))
    assert text.strip() in ("</bin/sh>", "</bin/true>")


def test_an_iterator_prints_every_object_and_ends() -> None:
    script = 'iter:task { printf("%s:%d\\n", ctx.task.comm, ctx.task.pid); }'
    with kcap.trace(script) as trace:
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        lines = "".join(renderer.output(event) for event in trace).splitlines()
    with open("/proc/self/comm") as file:
        assert f"{file.read().strip()}:{os.getpid()}" in lines
    assert any(line.endswith(":1") for line in lines)
    assert ":0" not in lines  # the last call, without a task


@pytest.mark.parametrize("event", ["faults", "page-faults:100", "minor-faults:10", "faults:1"])
def test_page_faults_are_counted(event: str) -> None:
    def touch() -> None:
        with mmap.mmap(-1, 1 << 20) as memory:
            for page in range(0, 1 << 20, mmap.PAGESIZE):
                memory[page] = 1

    body = only_it('printf("%s\\n", probe);')
    assert f"software:{event}\n" in printed(f"software:{event} {body}", touch)


def test_structs_by_value_reach_the_script(kernel: str) -> None:
    body = """printf("%d %d %d %d %d\\n", args.level, args.optname, args.optval.is_kernel,
        *(int32 *)uptr(args.optval.user), args.optlen);"""
    script = f"fentry:tcp_setsockopt {only_it(body)}"

    def set_option() -> None:
        with socket.socket() as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    if kernel == "5.10":
        with pytest.raises(ScriptError) as caught:
            kcap.compile(script)
        title = caught.value.errors[0].title
        assert "its argument optval is a struct passed by value (taken since 6.0)" in title
    else:
        assert printed(script, set_option).strip() == "6 1 0 1 4"


@pytest.mark.parametrize(("entry", "back"), [("kprobe", "kretprobe"), ("fentry", "fexit")])
def test_func_is_the_same_symbol_at_both_ends_of_a_function(entry: str, back: str) -> None:
    here = "/tid == ACTING/"
    script = f"""
        begin {{ @seen[ksym((uint64)0)] = 0; }}
        {entry}:vfs_write {here} {{ @seen[func]++; }}
        {back}:vfs_write {here} {{ @seen[func]++; printf("%s %d\\n", func, @seen[func]); exit(); }}
    """
    assert "vfs_write 2\n" in printed(script, open_file)


def test_unwatch_takes_a_watchpoint_away() -> None:
    number = ctypes.c_uint64()
    address = f"{ctypes.addressof(number):#x}"
    script = f"watchpoint:{address}:8:w {{ @hits++; unwatch({address}); }}"
    with Running(script, options=Options(pid=os.getpid())) as running:
        hits = running.trace.checked.script.maps["@hits"]

        def counted() -> int:
            return sum(count for _, count in running.trace.runtime.read_map(hits))

        def taken_away() -> bool:
            before = counted()
            for _ in range(5):
                number.value += 1
            return counted() == before

        number.value = 1
        assert counted() == 1
        wait_until(taken_away)


def test_keys_over_512_bytes_are_explained_where_the_kernel_refuses_them(live_kernel: str) -> None:
    script = "begin { @seen[comm, str(curtask)] = 1; }"
    if live_kernel == "5.10":
        with pytest.raises(ScriptError, match="the keys of @seen are too long for this kernel"):
            kcap.trace(script)
    else:
        kcap.trace(script).close()


def test_a_probe_that_the_kernel_refuses_may_be_missing_if_the_script_says_so() -> None:
    script = """
        config = { missing_probes = warn }
        interval:ms:200 { printf("ran\\n"); exit(); }
        kprobe:vfs_read+1 { printf("inside an instruction"); }
    """
    with kcap.trace(script) as trace:
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        seen = list(trace)
    assert "".join(map(renderer.output, seen)).strip() == "ran"
    assert "".join(map(renderer.message, seen)).startswith(
        "stdin:4:9-26: WARNING: Possible attachment attempt in the middle of an instruction"
    )
