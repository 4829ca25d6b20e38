# SPDX-License-Identifier: Apache-2.0
"""Several probes at one place, PID namespaces, and stacks by DWARF, on real kernels."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

import kcap
from kcap.functions.events import Printf
from kcap.session.script import Options
from support.introduced import number

LIBC = ctypes.CDLL(None)
GETPGID = 121  # arch/x86/entry/syscalls/syscall_64.tbl


def trigger() -> None:
    """One read, two system calls, one call of a library's function."""
    with open("/dev/zero", "rb", buffering=0) as file:
        file.read(1)
    LIBC.access(b"/", 0)
    os.getpgid(0)
    os.sched_getaffinity(0)


@pytest.mark.parametrize(
    "point",
    [
        "kprobe:vfs_read", "kprobe:vfs_rea*", "kretprobe:vfs_read", "kretprobe:vfs_rea*",
        # Not vfs_read(): a process that is preempted in a program keeps its CPU's others out.
        "fentry:sched_getaffinity", "fexit:sched_getaffinity",
        "tracepoint:syscalls:sys_enter_getpgid", "rawtracepoint:sys_enter",
        "uprobe:libc:access", "uretprobe:libc:access", "uprobe:libc:acces*",
        "uretprobe:libc:acces*",
    ],
)  # fmt: skip
def test_probes_at_one_place_run_in_the_script_s_order(kernel: str, point: str) -> None:
    wanted = f"pid == {os.getpid()}"
    if point.startswith("raw"):
        wanted += f" && args.id == {GETPGID}"
    script = "\n".join(f'{point} /{wanted}/ {{ printf("{n}"); }}' for n in range(3))
    with kcap.trace(script) as trace:
        trace.attach()
        trigger()
        trace.stop()
        seen = "".join(event.text for event in trace if isinstance(event, Printf))
    assert seen
    # fprobe is made of the function graph tracer from 6.14 on, which leaves functions in the
    # opposite order of entering them.
    reverse = point == "kretprobe:vfs_rea*" and number(kernel) >= (6, 14)
    assert seen == ("210" if reverse else "012") * (len(seen) // 3)


def test_processes_are_numbered_as_in_the_namespace_of_kcap() -> None:
    code = (
        "import kcap\n"
        "from kcap.functions.events import Printf\n"
        "script = 'begin { printf(\"%d %d %d\", pid, tid, pid(init) > 1); exit(); }'\n"
        "with kcap.trace(script) as trace:\n"
        "    print(*[e.text for e in trace if isinstance(e, Printf)])\n"
    )
    command = ["unshare", "--fork", "--pid", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 1 1\n", "")


@pytest.mark.needs("find_vma", "loop")
def test_stacks_are_walked_by_dwarf() -> None:
    script = (
        "config = { unstable_dw_ustack=enable }\n"
        f'uprobe:libc:access /pid == {os.getpid()}/ {{ printf("%s", dw_ustack(raw)); }}'
    )
    with kcap.trace(script, options=Options(dwarf_pids=[os.getpid()])) as trace:
        trace.attach()
        trigger()
        trace.stop()
        seen = [event.text for event in trace if isinstance(event, Printf)]
    frames = [int(word, 16) for word in seen[0].split()]
    # libffi and ctypes lie between the function and the interpreter, none with frame pointers.
    assert frames[0] == ctypes.cast(LIBC.access, ctypes.c_void_p).value
    files = [_mapped(address) for address in frames]
    assert "libffi" in files[1]
    assert "_ctypes" in " ".join(files)
    assert len(frames) > 10
    assert _mapped(frames[-1]) != ""


def _mapped(address: int) -> str:
    """The file that an address of this process lies in."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            start, _, end = line.split()[0].partition("-")
            if int(start, 16) <= address < int(end, 16):
                return line.split(None, 5)[5].strip() if len(line.split()) > 5 else ""
    return ""
