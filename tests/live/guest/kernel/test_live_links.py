# SPDX-License-Identifier: Apache-2.0
"""Attaching to a real kernel: programs run when they should, and no longer than that."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcap.btf import Btf, Func, Typedef
from kcap.kernel import features, links, uapi
from kcap.kernel.errors import AttachError, SyscallError
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.kernel.spec import ProgramSpec
from kcap.kernel.tracefs import Tracefs
from kcap.symbols.elf import ElfFile
from kcap.symbols.process import ProcessSymbols
from live.guest.kernel.handmade import (
    COUNTER,
    TARGET,
    TYPED_TARGET,
    counting,
    storing_cookie,
    trigger,
    value,
)
from support.mapped_program import MappedProgram, make_program
from support.net import wait_until

KPROBE = uapi.BPF_PROG_TYPE_KPROBE


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf.kernel()


@pytest.fixture
def counter() -> Iterator[Map]:
    with Map.create(COUNTER) as created:
        yield created


def load(spec: ProgramSpec, counter: Map) -> Program:
    return Program.load(spec, {"counter": counter})


def assert_counts(link: links.Link, counter: Map, calls: int = 5) -> None:
    """The program runs for each call while attached, and not once the link is closed."""
    trigger(calls)
    link.close()
    counted = value(counter)
    assert counted >= calls
    trigger(calls)
    assert value(counter) == counted
    assert link.filenos == ()


@pytest.mark.parametrize("is_return", [False, True])
def test_kprobe(counter: Map, is_return: bool) -> None:
    with load(counting(KPROBE), counter) as program:
        link = links.attach_kprobe(program.fileno(), TARGET, is_return=is_return)
        assert_counts(link, counter)


def test_kprobe_of_no_function_says_so(counter: Map) -> None:
    before = os.listdir("/proc/self/fd")
    with (
        load(counting(KPROBE), counter) as program,
        pytest.raises(AttachError, match="can't attach to kprobe:no_such_function") as caught,
    ):
        links.attach_kprobe(program.fileno(), "no_such_function")
    assert caught.value.hint is not None
    assert os.listdir("/proc/self/fd") == before


def test_kprobe_with_cookie(counter: Map) -> None:
    if not features.perf_link():
        pytest.skip("no BPF links for perf events")
    with load(storing_cookie(KPROBE), counter) as program:
        with links.attach_kprobe(program.fileno(), TARGET, cookie=0x1234567890):
            trigger(1)
        assert value(counter) == 0x1234567890


@pytest.mark.parametrize("attach_type", [uapi.BPF_TRACE_FENTRY, uapi.BPF_TRACE_FEXIT])
def test_fentry_and_fexit(counter: Map, btf: Btf, attach_type: int) -> None:
    target = btf.get(TYPED_TARGET, Func).id
    spec = counting(uapi.BPF_PROG_TYPE_TRACING, attach_type, target)
    with load(spec, counter) as program:
        assert_counts(links.attach_tracing(program.fileno(), "fentry:x"), counter)


def test_fentry_with_cookie(counter: Map, btf: Btf) -> None:
    if not features.tracing_cookie(btf):
        pytest.skip("no cookies for fentry")
    kind = uapi.BPF_TRACE_FENTRY
    spec = storing_cookie(uapi.BPF_PROG_TYPE_TRACING, kind, btf.get(TYPED_TARGET, Func).id)
    with load(spec, counter) as program:
        with links.attach_tracing(program.fileno(), "fentry", 0x77, kind):
            trigger(1)
        assert value(counter) == 0x77


def test_tp_btf(counter: Map, btf: Btf) -> None:
    target = btf.get("btf_trace_sys_enter", Typedef).id
    spec = counting(uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_RAW_TP, target)
    with load(spec, counter) as program:
        link = links.attach_tracing(program.fileno(), "rawtracepoint:sys_enter")
        trigger(5)
        link.close()
        assert value(counter) >= 5


def test_raw_tracepoint_by_name(counter: Map) -> None:
    with load(counting(uapi.BPF_PROG_TYPE_RAW_TRACEPOINT), counter) as program:
        with links.attach_raw_tracepoint(program.fileno(), "sys_enter"):
            trigger(5)
        assert value(counter) >= 5
        with pytest.raises(AttachError, match="ENOENT"):
            links.attach_raw_tracepoint(program.fileno(), "no_such_tracepoint")


def test_tracepoint(counter: Map) -> None:
    number = Tracefs.find().event_id("syscalls", "sys_enter_getppid")
    with load(counting(uapi.BPF_PROG_TYPE_TRACEPOINT), counter) as program:
        link = links.attach_tracepoint(program.fileno(), number, "tracepoint:x:y")
        assert_counts(link, counter)


def place_of(function: str) -> tuple[str, int]:
    """(file, offset) of a function of the C library in this process."""
    found = ctypes.cast(getattr(ctypes.CDLL(None), function), ctypes.c_void_p).value
    assert found is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, offset, _, inode, *path = line.split()
        start, end = (int(b, 16) for b in bounds.split("-"))
        if start <= found < end and inode != "0":
            return path[0], found - start + int(offset, 16)
    raise AssertionError(f"{function} is not in a file")


def test_the_symbol_table_gives_the_place_that_the_process_has() -> None:
    path, offset = place_of("getppid")
    elf = ElfFile(path)
    function = elf.function("getppid")
    assert function is not None
    assert elf.file_offset(function.address) == offset


def test_an_address_of_this_process_has_a_name() -> None:
    address = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value
    assert address is not None
    found = ProcessSymbols().find(os.getpid(), address + 3)
    assert found is not None
    assert found[:2] == ("getppid", 3)


def test_code_of_a_file_that_was_replaced_keeps_its_names(tmp_path: Path) -> None:
    path = make_program(tmp_path / "program")
    program = MappedProgram(path)
    shutil.copy("/proc/self/exe", tmp_path / "upgrade")
    (tmp_path / "upgrade").replace(path)
    found = ProcessSymbols().find(os.getpid(), program.start + 0x11)
    program.close()
    assert found == ("two", 1, str(path))


@pytest.mark.parametrize("is_return", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
def test_uprobe(counter: Map, is_return: bool, everywhere: bool) -> None:
    path, offset = place_of("getppid")
    pid = -1 if everywhere else os.getpid()
    with load(counting(KPROBE), counter) as program:
        link = links.attach_uprobe(program.fileno(), path, offset, is_return=is_return, pid=pid)
        assert_counts(link, counter)


def test_uprobe_multi(counter: Map) -> None:
    if not features.uprobe_multi():
        pytest.skip("no uprobe_multi")
    path, offset = place_of("getppid")
    with load(counting(KPROBE, uapi.BPF_TRACE_UPROBE_MULTI), counter) as program:
        link = links.attach_uprobe_multi(program.fileno(), path, [offset], "uprobe")
        assert_counts(link, counter)


def test_kprobe_multi(counter: Map) -> None:
    if not features.kprobe_multi():
        pytest.skip("no kprobe_multi")
    spec = counting(KPROBE, uapi.BPF_TRACE_KPROBE_MULTI)
    with load(spec, counter) as program:
        link = links.attach_kprobe_multi(program.fileno(), [TARGET, "vfs_read"], "kprobe:*")
        assert_counts(link, counter)
    with load(storing_cookie(KPROBE, uapi.BPF_TRACE_KPROBE_MULTI), counter) as program:
        with links.attach_kprobe_multi(program.fileno(), [TARGET], "kprobe:*", cookies=[99]):
            trigger(1)
        assert value(counter) == 99


def test_sampling_runs_on_all_cpus(counter: Map) -> None:
    with load(counting(uapi.BPF_PROG_TYPE_PERF_EVENT), counter) as program:
        link = links.attach_sampling(
            program.fileno(),
            uapi.PERF_TYPE_SOFTWARE,
            uapi.PERF_COUNT_SW_CPU_CLOCK,
            "profile:hz:99",
            frequency=99,
        )
        assert len(link.filenos) == os.cpu_count()
        wait_until(lambda: value(counter))
        link.close()


def test_an_interval_fires_on_one_cpu(counter: Map) -> None:
    with (
        load(counting(uapi.BPF_PROG_TYPE_PERF_EVENT), counter) as program,
        links.attach_sampling(
            program.fileno(),
            uapi.PERF_TYPE_SOFTWARE,
            uapi.PERF_COUNT_SW_CPU_CLOCK,
            "interval:ms:20",
            period=20_000_000,
            on_cpus=[0],
        ) as link,
    ):
        assert len(link.filenos) == 1
        wait_until(lambda: value(counter) >= 3)


def test_an_event_the_machine_lacks_is_an_error_with_a_hint(counter: Map) -> None:
    with (
        load(counting(uapi.BPF_PROG_TYPE_PERF_EVENT), counter) as program,
        pytest.raises(AttachError) as caught,
    ):
        links.attach_sampling(
            program.fileno(), uapi.PERF_TYPE_HW_CACHE, 0xFFFFFF, "hardware:x", period=1
        )
    assert "hardware:x" in str(caught.value)


@pytest.mark.needs("module_btf")
def test_fentry_of_a_modules_function(counter: Map, btf: Btf) -> None:
    traceable = Tracefs.find().traceable
    modules = sorted(set(os.listdir("/sys/kernel/btf")) - {"vmlinux"})
    assert modules
    for module in modules:
        types = Btf.module(module, btf)
        names = [(i, n) for i, n in types.functions() if n in traceable]
        if names:
            break
    number, name = names[0]
    assert types.prototype(types.get(name, Func)).id > 0
    spec = dataclasses.replace(
        counting(uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY, number),
        attach_btf_module=module,
    )
    before = os.listdir("/proc/self/fd")
    with load(spec, counter) as program:
        links.attach_tracing(program.fileno(), f"fentry:{module}:{name}").close()
    assert os.listdir("/proc/self/fd") == before


def test_fentry_of_a_module_that_is_not_loaded(counter: Map) -> None:
    spec = counting(uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY, 1)
    with pytest.raises(SyscallError, match="no BTF of module nowhere") as caught:
        load(dataclasses.replace(spec, attach_btf_module="nowhere"), counter)
    assert caught.value.hint == "load it: modprobe nowhere"


def test_an_iterator_runs_once_for_every_task(counter: Map, btf: Btf) -> None:
    target = btf.get("bpf_iter_task", Func).id
    spec = counting(uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_ITER, target)
    with (
        load(spec, counter) as program,
        links.attach_iterator(program.fileno(), "iter:task") as link,
    ):
        fd = link.open()
        assert os.read(fd, 4096) == b""
        os.close(fd)
    tasks = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            tasks += len(os.listdir(f"/proc/{process}/task"))
    assert abs(value(counter) - tasks) < 20


def test_a_watchpoint_sees_writes_of_this_process(counter: Map) -> None:
    watched = ctypes.c_uint64(0)
    with load(counting(uapi.BPF_PROG_TYPE_PERF_EVENT), counter) as program:
        link = links.attach_watchpoint(
            program.fileno(),
            ctypes.addressof(watched),
            8,
            uapi.HW_BREAKPOINT_W,
            "watchpoint:x",
            os.getpid(),
        )
        for i in range(5):
            watched.value = i + 1
        link.close()
        assert value(counter) == 5


def test_many_links_are_closed_together(counter: Map) -> None:
    names = [TARGET, "__x64_sys_getpid", "__x64_sys_getuid", "__x64_sys_getgid"]
    before = os.listdir("/proc/self/fd")
    with load(counting(KPROBE), counter) as program:
        attached = [links.attach_kprobe(program.fileno(), name) for name in names]
        trigger(1)
        links.close_all(attached)
        counted = value(counter)
        assert counted >= 1
        trigger(3)
        assert value(counter) == counted
    assert os.listdir("/proc/self/fd") == before
