# SPDX-License-Identifier: Apache-2.0
"""The parts that probe types are made of: patterns, numbers, renamed functions, watched memory."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kcap.kernel import uapi
from kcap.lang.diagnostic import ScriptError
from kcap.probes.names import Pattern, enumerate_words
from kcap.probes.numbers import parse_duration, parse_integer
from kcap.probes.registry import Resolver
from kcap.probes.renames import renames, successors
from kcap.probes.system import System
from kcap.probes.traceable import TraceableFunctions
from kcap.probes.watchpoint import Watched
from kcap.symbols.nearest import nearest
from unit.probes.frozen_machine import point

TEXT = st.text("ab_*", max_size=8)


@given(TEXT, st.text("ab_", max_size=8))
def test_patterns_match_as_shell_patterns_do(pattern: str, name: str) -> None:
    expected = re.match(translate(pattern), name) is not None
    assert Pattern(pattern).matches(name) == expected
    assert (re.fullmatch(Pattern(pattern).regex, name) is not None) == expected


@given(st.sets(st.text("abc_", min_size=1, max_size=5), max_size=8), TEXT)
def test_searching_the_text_finds_what_matching_each_name_finds(
    names: set[str], pattern: str
) -> None:
    functions = TraceableFunctions("".join(f"{name}\n" for name in sorted(names)))
    wanted = Pattern(pattern)
    found = [name for name, _ in functions.match(wanted)]
    assert found == sorted(name for name in names if wanted.matches(name))
    assert all(functions.modules_of(name) == ("vmlinux",) for name in names)


def test_names_are_looked_up_whole() -> None:
    functions = TraceableFunctions("vfs_readv\nvfs_read [one]\nvfs_read\nmy_vfs_read\n")
    assert functions.modules_of("vfs_read") == ("one", "vmlinux")
    assert functions.modules_of("vfs_rea") == ()
    assert "my_vfs_read" in functions


def test_the_index_of_those_who_ask_often_answers_the_same() -> None:
    functions = TraceableFunctions("a [m]\nb\na\n")
    answers = {functions.modules_of("a") for _ in range(100)}
    assert answers == {("m", "vmlinux")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("1_000", 1000),
        ("1e6", 1_000_000),
        ("0xFf", 255),
        ("", None),
        ("_1", None),
        ("1__0", None),
        ("1e", None),
        ("-1", None),
        ("0x", None),
        ("٣", None),
    ],
)
def test_integers(text: str, value: int | None) -> None:
    assert parse_integer(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("7ns", 7),
        ("7us", 7000),
        ("1m", 60_000_000_000),
        ("1d", 86_400_000_000_000),
        ("1x", None),
        ("s", None),
        ("1ss", None),
        ("1min", None),
    ],
)
def test_durations(text: str, value: int | None) -> None:
    assert parse_duration(text) == value


def test_words_are_listed() -> None:
    assert enumerate_words(["a"]) == "a"
    assert enumerate_words(["a", "b", "c"]) == "a, b or c"


@given(st.integers(0, 3), st.integers(0, 11))
def test_one_edit_is_recognised(kind: int, at: int) -> None:
    name = "tcp_v4_connect"
    spoilt = [name[:at] + name[at + 1 :], name[:at] + "z" + name[at:]]
    spoilt += [
        name[:at] + "z" + name[at + 1 :],
        name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    ]
    assume(spoilt[kind] != name)  # two equal letters that changed places
    found = nearest(spoilt[kind], [name, "vfs_read", "udp_sendmsg"])
    assert found[:1] == [name]


def test_renames_lead_both_ways() -> None:
    assert [new for new, _ in successors("napi_gro_receive")] == ["gro_receive_skb"]
    assert [new for new, _ in successors("gro_receive_skb")] == ["napi_gro_receive"]
    note = "system calls take their arguments from struct pt_regs (Linux 4.17)"
    assert ("__x64_sys_openat", note) in successors("sys_openat")


def test_renames_are_well_formed() -> None:
    for entry in renames():
        assert entry.old
        assert entry.old not in entry.new
        assert all(re.fullmatch(r"[a-z_0-9.]+", new) for new in entry.new)
        assert re.fullmatch(r"|\d+\.\d+", entry.since)
        assert entry.note
    olds = [entry.old for entry in renames()]
    assert len(olds) == len(set(olds))


def test_a_watchpoint_is_address_length_and_mode(resolve: Any) -> None:
    (context,) = resolve("watchpoint:0x10000000:8:rw")
    assert context.targets == (Watched(0x10000000, 8, 3),)
    assert context.program_type == uapi.BPF_PROG_TYPE_PERF_EVENT
    assert resolve("w:0x1000:4:wr")[0].targets[0].access == 3


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("watchpoint:zero:8:w", "watchpoint: 'zero' is no address"),
        ("watchpoint:0x1000:3:w", "watchpoint: the length is 3, not 1, 2, 4 or 8"),
        ("watchpoint:0x1000:8:wx", "watchpoint: 'wx' is no mode: r, w, rw or x"),
        (
            "watchpoint:0x1004:8:w",
            "watchpoint: the address is no multiple of the length, 8",
        ),
        ("watchpoint:0x1000:8", "watchpoint: something is missing"),
    ],
)
def test_wrong_watchpoints(system: System, text: str, title: str) -> None:
    with pytest.raises(ScriptError) as caught:
        Resolver(system).resolve(point(text), set())
    assert caught.value.errors[0].title == title


def test_an_unknown_iterator_names_those_there_are(system: System) -> None:
    with pytest.raises(ScriptError) as caught:
        Resolver(system).resolve(point("iter:tasks"), set())
    error = caught.value.errors[0]
    assert error.title == "No matches for iter tasks."
    assert error.help == ("did you mean task?",)
    assert error.notes == ("iterators of this kernel: task",)


def test_an_iterator_has_its_context_struct_in_ctx(resolve: Any, system: System) -> None:
    (context,) = resolve("it:task")
    assert (context.name, context.attach_type) == ("iter:task", uapi.BPF_TRACE_ITER)
    assert str(context.extra["ctx_type"]) == "struct bpf_iter__task"
    assert system.btf is not None
    assert system.btf.type(context.targets[0].btf_id).name == "bpf_iter_task"
