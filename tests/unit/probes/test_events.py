# SPDX-License-Identifier: Apache-2.0
"""Tracepoints, raw tracepoints, timers, counters and the probes that run by themselves."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from kcap.kernel import uapi
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.perf_counters import Sampling
from kcap.probes.registry import Resolver, probe_type, probe_types
from kcap.probes.system import Files, System
from kcap.probes.timers import Rate
from kcap.records import replace
from kcap.sema.types import Array, Enum, Integer, Pointer
from unit.probes.frozen_machine import point, write_machine


def refused(system: System, text: str) -> Diagnostic:
    """The first error of an attach point that can't be taken."""
    with pytest.raises(ScriptError) as caught:
        Resolver(system).resolve(point(text), set())
    return caught.value.errors[0]


def fields(context: Any) -> dict[str, tuple[int, str]]:
    return {f.name: (f.offset, str(f.type)) for f in context.args.all_fields()}


def test_tracepoint_fields_come_from_the_format_file_without_the_common_ones(
    resolve: Any,
) -> None:
    (context,) = resolve("t:sched:sched_switch")
    assert context.name == "tracepoint:sched:sched_switch"
    assert context.program_type == uapi.BPF_PROG_TYPE_TRACEPOINT
    assert fields(context) == {
        "prev_comm": (8, "int8[16]"),
        "prev_pid": (24, "int32"),
        "prev_state": (32, "int64"),
    }


def test_system_call_arguments_are_eight_bytes_and_point_to_user_memory(resolve: Any) -> None:
    (context,) = resolve("tracepoint:syscalls:sys_enter_openat")
    assert fields(context) == {
        "__syscall_nr": (8, "int32"),
        "dfd": (16, "int64"),
        "filename": (24, "int8 *"),
        "mode": (40, "uint64"),
    }
    filename = context.args.find("filename")
    assert isinstance(filename.type, Pointer)
    assert filename.type.space == "user"
    mode = context.args.find("mode")
    assert isinstance(mode.type, Integer)
    assert mode.type.space == "user", "an address in it, as prctl(2) has, is one of user space"


def test_data_locations_structs_and_enums_of_tracepoints(resolve: Any) -> None:
    (context,) = resolve("tracepoint:irq:irq_handler_entry")
    name, skb, why = (context.args.find(n) for n in ("name", "skb", "why"))
    assert name.data_loc
    assert isinstance(name.type, Array)
    assert str(name.type.element) == "int8"
    assert (str(skb.type), skb.type.space) == ("struct sk_buff *", "kernel")
    assert isinstance(why.type, Enum)
    assert why.type.values == {0: "R_NONE", 9: "R_HIGH"}


def test_a_tracepoint_wildcard_splits_by_fields_only_where_args_are_used(resolve: Any) -> None:
    (context,) = resolve("tracepoint:sched:*")
    assert [t.event for t in context.targets] == ["sched_switch", "sched_waking"]
    assert context.args is None
    split = resolve("tracepoint:sched:*", "args")
    assert [(c.name, c.args is not None) for c in split] == [
        ("tracepoint:sched:sched_switch", True),
        ("tracepoint:sched:sched_waking", True),
    ]


@pytest.mark.parametrize(
    ("text", "span", "label", "help_"),
    [
        ("sched:sched_swich", "sched_swich", "no such event in sched", "sched_switch"),
        ("schd:sched_switch", "schd", "no such category", "sched"),
        ("irq:sched_switch", "sched_switch", "no such event in irq", ""),
        ("xfs:sched_waking", "xfs", "no such category", "sched"),
    ],
)
def test_unknown_tracepoints_are_corrected(
    system: System, text: str, span: str, label: str, help_: str
) -> None:
    error = refused(system, f"tracepoint:{text}")
    assert error.title == f"No matches for tracepoint {text}."
    assert error.span is not None
    assert (error.span.text, error.label) == (span, label)
    assert error.help == ((f"did you mean {help_}?",) if help_ else ())


def test_without_tracefs_a_tracepoint_is_taken_but_has_no_args(machine: Files) -> None:
    blind = Resolver(System(files=replace(machine, tracefs="/nonexistent")))
    (context,) = blind.resolve(point("tracepoint:any:thing"), {"args"})
    assert context.args is None
    assert context.args_missing == ("the format file of the tracepoint can't be read: run as root")


def test_tracepoint_lists_show_the_declarations_of_the_format_file(system: System) -> None:
    kind = probe_type("t")
    assert list(kind.names(["irq"], system)) == ["tracepoint:irq:irq_handler_entry"]
    assert kind.parameters("tracepoint:irq:irq_handler_entry", system) == [
        "int irq",
        "__data_loc char[] name",
        "struct sk_buff * skb",
        "enum reason why",
    ]


def test_rawtracepoint_drops_the_leading_data_pointer(resolve: Any, system: System) -> None:
    (context,) = resolve("rt:kfree_skb")
    assert context.name == "rawtracepoint:vmlinux:kfree_skb"
    assert (context.program_type, context.attach_type) == (26, uapi.BPF_TRACE_RAW_TP)
    assert fields(context) == {"skb": (0, "struct sk_buff *"), "reason": (8, "uint32")}
    assert context.args.find("skb").type.tracked
    (load,) = probe_type("rt").load_specs(context, system)
    typedef = system.btf.type(load.attach_btf_id)  # type: ignore[union-attr]
    assert typedef.name == "btf_trace_kfree_skb"
    assert probe_type("rt").parameters(context.name, system) == [
        "struct sk_buff * skb",
        "unsigned int reason",
    ]


def test_rawtracepoint_without_btf_attaches_by_name(machine: Files) -> None:
    bare = Resolver(System(files=replace(machine, btf="/nonexistent")))
    (context,) = bare.resolve(point("rawtracepoint:kfree_skb"), set())
    assert context.program_type == uapi.BPF_PROG_TYPE_RAW_TRACEPOINT
    assert context.args is None


def test_an_unknown_rawtracepoint_is_corrected(system: System) -> None:
    error = refused(system, "rawtracepoint:kfree_sbk")
    assert error.title == "Probe has no valid attach points."
    assert error.label == "no such tracepoint"
    assert error.help == ("did you mean kfree_skb?",)
    assert refused(system, "rt:nf_tables:kfree_skb").notes == ("kfree_skb is in vmlinux",)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("interval:1s", Rate(period=1_000_000_000)),
        ("interval:1000000000", Rate(period=1_000_000_000)),
        ("i:s:1", Rate(period=1_000_000_000)),
        ("interval:ms:1_000", Rate(period=1_000_000_000)),
        ("interval:us:1e3", Rate(period=1_000_000)),
        ("interval:5m", Rate(period=300_000_000_000)),
        ("profile:hz:99", Rate(frequency=99)),
        ("p:100us", Rate(period=100_000)),
    ],
)
def test_time_specifications(resolve: Any, text: str, rate: Rate) -> None:
    (context,) = resolve(text)
    assert context.targets == (rate,)
    assert context.program_type == uapi.BPF_PROG_TYPE_PERF_EVENT
    assert context.name == context.provider + text[text.index(":") :]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("interval", "interval: something is missing"),
        ("interval:x", "interval: 'x' is no duration"),
        ("interval:min:1", "interval: 'min' is no unit: us, ms, s or hz"),
        ("interval:s:one", "interval: 'one' is no number"),
        ("profile:hz:0", "profile: 0 is out of range"),
        ("profile:s:1:2", "profile: too many parts"),
    ],
)
def test_wrong_time_specifications(system: System, text: str, title: str) -> None:
    error = refused(system, text)
    assert error.title == title
    assert error.help[0].startswith(f"write {text.split(':')[0]}:1s, ")


def test_counters_have_other_names_and_default_counts(resolve: Any) -> None:
    (context,) = resolve("software:faults:1e2")
    assert context.targets == (Sampling(uapi.PERF_COUNT_SW_PAGE_FAULTS, 100),)
    assert context.name == "software:faults:1e2"
    (context,) = resolve("hardware:cache-misses:")
    assert context.targets == (Sampling(3, 1_000_000),)


def test_an_unknown_counter_is_corrected(system: System) -> None:
    error = refused(system, "hardware:cache-mises:10")
    assert error.title == "No matches for hardware cache-mises:10."
    assert error.help == ("did you mean cache-misses?",)


@pytest.mark.parametrize("text", ["begin", "BEGIN", "end", "END"])
def test_begin_and_end_are_raw_tracepoint_programs_run_by_hand(resolve: Any, text: str) -> None:
    (context,) = resolve(text)
    assert context.name == text.lower()
    assert context.program_type == uapi.BPF_PROG_TYPE_RAW_TRACEPOINT
    assert probe_type(text).manual


def test_self_signal_takes_the_name_with_or_without_sig(resolve: Any, system: System) -> None:
    assert resolve("self:signal:SIGUSR1")[0].targets == (int(signal.SIGUSR1),)
    assert resolve("self:signal:USR2")[0].targets == (int(signal.SIGUSR2),)
    assert refused(system, "self:signal:SIGKILL").label == "no such signal"


def test_positional_parameters_are_put_in(machine: Files) -> None:
    resolver = Resolver(System(files=machine, params=("vfs_read", "7")))
    (context,) = resolver.resolve(point("kprobe:$1+$2"), set())
    assert context.name == "kprobe:vfs_read+7"
    error = refused(System(files=machine), "kprobe:$1")
    assert error.title == "positional parameter $1 is not given"


def test_an_unknown_probe_type_is_corrected(system: System) -> None:
    error = refused(system, "kpobe:vfs_read")
    assert error.title == "Invalid probe type: kpobe"
    assert error.help == ("did you mean kprobe?",)
    assert error.edits[0].span.text == "kpobe"


def test_a_wildcard_over_probe_types_takes_those_that_fit(resolve: Any) -> None:
    assert [c.name for c in resolve("*:vfs_rea*")] == [
        "fentry:vmlinux:vfs_read",
        "fexit:vmlinux:vfs_read",
        "kprobe:vfs_rea*",
        "kretprobe:vfs_rea*",
    ]


def test_missing_probes_are_left_out_where_the_setting_says_so(machine: Files) -> None:
    resolver = Resolver(System(files=machine, missing_probes="warn"))
    assert resolver.resolve(point("tracepoint:syscalls:nonsense"), set()) == []
    assert [(d.severity, d.title) for d in resolver.warnings] == [
        ("warning", "No matches for tracepoint syscalls:nonsense. Skipping.")
    ]
    resolver = Resolver(System(files=machine, missing_probes="ignore"))
    assert resolver.resolve(point("tracepoint:syscalls:nonsense"), set()) == []
    assert list(resolver.warnings) == []


def unattached(system: System, script: str) -> list[tuple[str, str]]:
    """(severity, title) of the findings on probes that nothing is left of."""
    probes = parse(Source("stdin", script)).probes
    resolver = Resolver(system)
    for probe in probes:
        for where in probe.attach_points:
            resolver.resolve(where, set())
    return [(found.severity, found.title) for found in resolver.unattached(probes)]


def test_a_probe_of_which_nothing_is_left_is_an_error(system: System) -> None:
    assert unattached(system, "kprobe:rcu_* { } begin { }") == [
        ("error", "Probe has no valid attach points.")
    ]
    assert unattached(system, "kprobe:nonsense*, kprobe:vfs_read { }") == []


def test_a_probe_of_which_nothing_is_left_is_a_warning_where_the_setting_says_so(
    machine: Files,
) -> None:
    script = "kprobe:nonsense { } t:syscalls:nonsense, kprobe:vfs_read { }"
    assert unattached(System(files=machine, missing_probes="warn"), script) == [
        (
            "warning",
            "Probe has no valid attach points. It is being removed which may cause issues with "
            "program behavior.",
        )
    ]
    assert unattached(System(files=machine, missing_probes="ignore"), script) == []


def test_more_programs_than_allowed_are_refused(machine: Files) -> None:
    resolver = Resolver(System(files=machine, max_bpf_progs=3))
    assert len(resolver.resolve(point("kprobe:*"), {"pid"})) == 1
    assert len(resolver.resolve(point("kprobe:vfs_*"), {"probe"})) == 1
    with pytest.raises(ScriptError) as caught:
        resolver.resolve(point("kprobe:tcp_*"), {"probe"})
    assert caught.value.errors[0].title == (
        "Your program is trying to generate more than 4 BPF programs, which exceeds the current "
        "limit of 3"
    )
    assert caught.value.errors[0].help == (
        "You can increase the limit through the BPFTRACE_MAX_BPF_PROGS environment variable.",
    )


def test_more_probes_than_allowed_are_refused(machine: Files) -> None:
    resolver = Resolver(System(files=machine, max_probes=2))
    resolver.resolve(point("kprobe:vfs_*"), set())
    with pytest.raises(ScriptError) as caught:
        resolver.resolve(point("fentry:vfs_*"), set())
    assert caught.value.errors[0].title == (
        "Can't attach to 4 probes because it exceeds the current limit of 2 probes."
    )


def named_probes(directory: Path) -> System:
    """A machine on which probes were given names in tracefs."""
    given = write_machine(directory)
    tracefs = Path(given.tracefs)
    (tracefs / "kprobe_events").write_text("p:kprobes/reading vfs_read\nr4:kprobes/read vfs_read\n")
    (tracefs / "uprobe_events").write_text("p:uprobes/reading /bin/true:0x0000000000001040\n")
    names = ("kprobes:reading", "kprobes:read", "uprobes:reading")
    with (tracefs / "available_events").open("a") as events:
        events.writelines(f"{name}\n" for name in names)
    for name in names:
        event = tracefs / "events" / name.replace(":", "/")
        event.mkdir(parents=True)
        (event / "id").write_text("200\n")
    return System(files=given)


def test_an_event_that_is_a_named_probe_has_the_registers_of_one(tmp_path: Path) -> None:
    resolver = Resolver(named_probes(tmp_path))
    (entry,) = resolver.resolve(point("tracepoint:kprobes:reading"), {"args"})
    assert (entry.name, entry.program_type) == (
        "tracepoint:kprobes:reading",
        uapi.BPF_PROG_TYPE_KPROBE,
    )
    assert (entry.args, entry.arguments, entry.space) == (None, "registers", "kernel")
    assert entry.args_missing == (
        "the kernel gives no fields of kprobes and uprobes: use arg0, arg1, …, or reg()"
    )
    (back,) = resolver.resolve(point("tracepoint:kprobes:read"), {"retval"})
    assert (back.arguments, str(back.retval)) == ("none", "uint64")
    (user,) = resolver.resolve(point("tracepoint:uprobes:reading"), {"arg0"})
    assert (user.arguments, user.space) == ("registers", "user")


def test_named_probes_among_tracepoints_are_programs_of_their_own(tmp_path: Path) -> None:
    found = Resolver(named_probes(tmp_path)).resolve(point("tracepoint:*:*"), {"pid"})
    assert {context.name: context.program_type for context in found} == {
        "tracepoint:*:*": uapi.BPF_PROG_TYPE_TRACEPOINT,
        "tracepoint:kprobes:read": uapi.BPF_PROG_TYPE_KPROBE,
        "tracepoint:kprobes:reading": uapi.BPF_PROG_TYPE_KPROBE,
        "tracepoint:uprobes:reading": uapi.BPF_PROG_TYPE_KPROBE,
    }


def test_names_of_probe_types_are_unique() -> None:
    names = [name for kind in probe_types() for name in (kind.name, *kind.aliases)]
    assert len(names) == len(set(names))


def test_every_probe_type_says_what_it_is_and_how_it_is_written() -> None:
    for kind in probe_types():
        assert kind.summary
        assert kind.signatures[0].startswith(kind.name)
