# SPDX-License-Identifier: Apache-2.0
"""What the machine and this installation can do: the table of ``--info``.

Every answer comes from trying (:mod:`kcap.kernel.features`), none from the kernel's version.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from kcap.kernel import features, uapi
from kcap.kernel.helpers import Helper

if TYPE_CHECKING:
    from kcap.btf import Btf
    from kcap.probes.system import System

Answer = bool | str | None
"""Yes, no, something to show as it is, or None: can't be told (most often for want of rights)."""


class Section(NamedTuple):
    """A part of the table.

    :param title: its heading.
    :param answers: (what is asked, the answer), in order.
    """

    title: str
    answers: list[tuple[str, Answer]]


# Names as bpftrace's --info has them, where it has them.
_HELPERS = (
    ("get_current_cgroup_id", Helper.get_current_cgroup_id),
    ("send_signal", Helper.send_signal),
    ("override_return", Helper.override_return),
    ("probe_read", Helper.probe_read),
    ("probe_read_str", Helper.probe_read_str),
    ("probe_read_user", Helper.probe_read_user),
    ("probe_read_user_str", Helper.probe_read_user_str),
    ("probe_read_kernel", Helper.probe_read_kernel),
    ("probe_read_kernel_str", Helper.probe_read_kernel_str),
    ("get_boot_ns", Helper.ktime_get_boot_ns),
    ("get_ktime_ns", Helper.ktime_get_tai_ns),
    ("get_func_ip", Helper.get_func_ip),
    ("jiffies64", Helper.jiffies64),
    ("for_each_map_elem", Helper.for_each_map_elem),
    ("get_ns_current_pid_tgid", Helper.get_ns_current_pid_tgid),
    ("lookup_percpu_elem", Helper.map_lookup_percpu_elem),
    ("ringbuf_output", Helper.ringbuf_output),
    ("loop", Helper.loop),
)
_MAPS = (
    ("array", uapi.BPF_MAP_TYPE_ARRAY),
    ("hash", uapi.BPF_MAP_TYPE_HASH),
    ("percpu array", uapi.BPF_MAP_TYPE_PERCPU_ARRAY),
    ("percpu hash", uapi.BPF_MAP_TYPE_PERCPU_HASH),
    ("perf_event_array", uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY),
    ("ringbuf", uapi.BPF_MAP_TYPE_RINGBUF),
    ("stack_trace", uapi.BPF_MAP_TYPE_STACK_TRACE),
)
_UPROBE_FORMAT = "/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset"


def sections(system: System) -> list[Section]:
    """The whole table.

    :param system: the machine.
    """
    return [
        _machine(),
        _installation(),
        Section("Kernel helpers", _helpers(system.btf)),
        Section("Kernel features", _features(system)),
        Section("Map types", [(name, features.map_type(kind)) for name, kind in _MAPS]),
        Section("Probe types", _probe_types(system)),
    ]


def _machine() -> Section:
    uname = os.uname()
    return Section(
        "System",
        [("OS", f"{uname.sysname} {uname.release} {uname.version}"), ("Arch", uname.machine)],
    )


def _installation() -> Section:
    """What is installed, under the names that bpftrace's own table has for it."""
    from kcap.version import BPFTRACE_VERSION, __version__

    return Section(
        "Build",
        [
            ("version", f"kcap v{__version__} (bpftrace language v{BPFTRACE_VERSION})"),
            ("LLVM (llvmlite)", find_spec("llvmlite") is not None),
            ("libclang (C definitions)", find_spec("clang") is not None),
            ("libdw (DWARF support)", find_spec("elftools") is not None),
            ("blazesym (advanced symbolization)", find_spec("elftools") is not None),
            ("dwunwind (DWARF stack unwinding)", True),
            ("bcc library path resolution", True),
            ("libpcap (skboutput)", "not needed"),
        ],
    )


def _helpers(btf: Btf | None) -> list[tuple[str, Answer]]:
    found: list[tuple[str, Answer]] = [
        (name, features.helper(number, uapi.BPF_PROG_TYPE_KPROBE)) for name, number in _HELPERS
    ]
    tracing = uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY
    found.append(("dpath", features.helper(Helper.d_path, *tracing, btf)))
    found.append(("skboutput", features.helper(Helper.skb_output, *tracing, btf)))
    return found


def _features(system: System) -> list[tuple[str, Answer]]:
    return [
        ("Loop support", features.loop()),
        ("btf", system.btf is not None),
        ("module btf", bool(system.btf_modules)),
        ("tracefs", system.tracefs is not None),
        ("traceable functions listed", system.functions is not None),
        ("uprobe refcount", os.path.exists(_UPROBE_FORMAT)),
        ("perf event links", features.perf_link()),
        ("attach cookies for fentry", features.tracing_cookie(system.btf) if system.btf else False),
    ]


def _probe_types(system: System) -> list[tuple[str, Answer]]:
    tracing, btf = uapi.BPF_PROG_TYPE_TRACING, system.btf
    return [
        ("kprobe", features.program_type(uapi.BPF_PROG_TYPE_KPROBE)),
        ("tracepoint", features.program_type(uapi.BPF_PROG_TYPE_TRACEPOINT)),
        ("perf_event", features.program_type(uapi.BPF_PROG_TYPE_PERF_EVENT)),
        ("rawtracepoint", features.program_type(uapi.BPF_PROG_TYPE_RAW_TRACEPOINT)),
        ("fentry", _if_btf(btf, features.program_type(tracing, uapi.BPF_TRACE_FENTRY, btf))),
        ("iter", _if_btf(btf, features.program_type(tracing, uapi.BPF_TRACE_ITER, btf))),
        ("kprobe_multi", features.kprobe_multi()),
        ("kprobe_session", features.kprobe_session()),
        ("tracing_multi", features.tracing_multi()),
        ("uprobe_multi", features.uprobe_multi()),
    ]


def _if_btf(btf: Btf | None, answer: bool | None) -> bool | None:
    """The answer; without BTF there can be no such probe."""
    return answer if btf is not None else False
