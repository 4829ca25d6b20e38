# SPDX-License-Identifier: Apache-2.0
"""What ``-l`` and ``-lv`` print."""

from __future__ import annotations

from typing import Any

import pytest

from kcap.probes.listing import list_points, list_probes, split_search
from kcap.probes.system import System
from unit.probes.frozen_machine import point


def listed(system: System, search: str, verbose: bool = False) -> list[str]:
    return list(list_probes(search, system, verbose))


@pytest.mark.parametrize(
    ("search", "lines"),
    [
        ("kprobe:vfs_*", ["kprobe:vfs_read", "kprobe:vfs_write"]),
        ("k:vfs_r*,t:irq:*", ["kprobe:vfs_read", "tracepoint:irq:irq_handler_entry"]),
        ("fentry:vfs_r*", ["fentry:vmlinux:vfs_read"]),
        ("*sched_switch*", ["tracepoint:sched:sched_switch"]),
        (
            "*vfs_rea*",
            [
                "fentry:vmlinux:vfs_read",
                "fexit:vmlinux:vfs_read",
                "kprobe:vfs_read",
                "kretprobe:vfs_read",
            ],
        ),
        ("interval:*", ["interval:hz:", "interval:ms:", "interval:s:", "interval:us:"]),
        ("software:cpu:", ["software:cpu:"]),
        ("rawtracepoint:kfree*", ["rawtracepoint:vmlinux:kfree_skb"]),
        ("begin", ["begin"]),
        ("nosuch:thing", []),
        ("struct sk*", ["struct sk_buff"]),
    ],
)  # fmt: skip
def test_searches(system: System, search: str, lines: list[str]) -> None:
    assert listed(system, search) == lines


def test_a_wildcard_over_probe_types_lists_each(system: System) -> None:
    kinds = {line.partition(":")[0] for line in listed(system, "*ware:*")}
    assert kinds == {"software", "hardware"}


def test_everything_is_listed_without_a_pattern(system: System) -> None:
    lines = listed(system, "")
    for line in (
        "begin",
        "hardware:cpu-cycles:",
        "tracepoint:sched:sched_switch",
        "kprobe:vfs_read",
        "profile:hz:",
    ):
        assert line in lines
    assert not any("__ftrace_invalid_address__" in line for line in lines)


def test_verbose_lists_show_arguments_indented(system: System) -> None:
    assert listed(system, "fexit:vfs_read,rt:kfree_skb", verbose=True) == [
        "fexit:vmlinux:vfs_read\n"
        "    struct file * file\n"
        "    const char * buf\n"
        "    long count\n"
        "    long retval",
        "rawtracepoint:vmlinux:kfree_skb\n    struct sk_buff * skb\n    unsigned int reason",
    ]


def test_verbose_lists_show_types_in_c_with_their_module(system: System) -> None:
    assert listed(system, "struct pair,enum reason", verbose=True) == [
        "vmlinux: struct pair {\n\tlong a;\n\tlong b;\n};",
        "vmlinux: enum reason {\n\tR_NONE = 0,\n\tR_HIGH = 9,\n};",
    ]


def test_a_script_lists_what_its_attach_points_stand_for(system: System) -> None:
    points: list[Any] = [
        point(text)
        for text in ("kprobe:vfs_*", "k:vfs_read", "interval:s:1", "hardware:cache-misses:10")
    ]
    assert list(list_points(points, system)) == [
        "kprobe:vfs_read",
        "kprobe:vfs_write",
        "interval:s:",
        "hardware:cache-misses:",
    ]


def test_commas_in_quotes_do_not_split() -> None:
    assert split_search('uprobe:/bin/x:"f(int,char)", t:*') == [
        'uprobe:/bin/x:"f(int,char)"',
        "t:*",
    ]
