# SPDX-License-Identifier: Apache-2.0
"""The kinds of BPF programs that probes are loaded as: what the kernel's rules tell apart."""

from __future__ import annotations

from typing import Final

from kcap.kernel import uapi
from kcap.records import dataclass


@dataclass(frozen=True, slots=True)
class ProgramKind:
    """A program type, with the attach type where helpers depend on it.

    :param key: what the table of helpers calls it.
    :param type: BPF_PROG_TYPE_*.
    :param attach_type: BPF_TRACE_* for programs of type tracing, else 0.
    :param type_name: the program type as the kernel's headers spell it.
    :param attach_name: the attach type as the kernel's headers spell it, or ''.
    :param probes: the probe types of the language that are loaded as it, the usual one first.
    """

    key: str
    type: int
    attach_type: int
    type_name: str
    attach_name: str
    probes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The program type, with the attach type where that matters."""
        return f"{self.type_name} ({self.attach_name})" if self.attach_name else self.type_name


_TRACING = "BPF_PROG_TYPE_TRACING"

KINDS: Final = (
    ProgramKind(
        "kprobe",
        uapi.BPF_PROG_TYPE_KPROBE,
        0,
        "BPF_PROG_TYPE_KPROBE",
        "",
        ("kprobe", "kretprobe", "uprobe", "uretprobe", "usdt"),
    ),
    ProgramKind(
        "tracepoint",
        uapi.BPF_PROG_TYPE_TRACEPOINT,
        0,
        "BPF_PROG_TYPE_TRACEPOINT",
        "",
        ("tracepoint",),
    ),
    ProgramKind(
        "perf_event",
        uapi.BPF_PROG_TYPE_PERF_EVENT,
        0,
        "BPF_PROG_TYPE_PERF_EVENT",
        "",
        ("profile", "interval", "software", "hardware", "watchpoint", "asyncwatchpoint"),
    ),
    ProgramKind(
        "raw_tracepoint",
        uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
        0,
        "BPF_PROG_TYPE_RAW_TRACEPOINT",
        "",
        ("begin", "end", "self"),
    ),
    ProgramKind(
        "fentry",
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_TRACE_FENTRY,
        _TRACING,
        "BPF_TRACE_FENTRY",
        ("fentry",),
    ),
    ProgramKind(
        "fexit",
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_TRACE_FEXIT,
        _TRACING,
        "BPF_TRACE_FEXIT",
        ("fexit",),
    ),
    ProgramKind(
        "tp_btf",
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_TRACE_RAW_TP,
        _TRACING,
        "BPF_TRACE_RAW_TP",
        ("rawtracepoint",),
    ),
    ProgramKind(
        "iter",
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_TRACE_ITER,
        _TRACING,
        "BPF_TRACE_ITER",
        ("iter",),
    ),
)


_MULTI = {
    uapi.BPF_TRACE_FENTRY_MULTI: uapi.BPF_TRACE_FENTRY,
    uapi.BPF_TRACE_FEXIT_MULTI: uapi.BPF_TRACE_FEXIT,
}


def kind_of(program_type: int, attach_type: int) -> ProgramKind | None:
    """The kind that a program is; None for types that the language does not lead to.

    :param attach_type: the expected attach type; only counts for programs of type tracing (kprobes
        attached by BPF_TRACE_KPROBE_MULTI may call what other kprobes may).
    """
    attach_type = _MULTI.get(attach_type, attach_type)
    for kind in KINDS:
        if kind.type == program_type and kind.attach_type in (0, attach_type):
            return kind
    return None
