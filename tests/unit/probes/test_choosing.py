# SPDX-License-Identifier: Apache-2.0
"""Which probes run: ``--probe-filter`` and the modes of ``test`` and ``bench`` probes."""

from __future__ import annotations

import pytest

from kcap.errors import UsageError
from kcap.probes.registry import Resolver
from kcap.probes.system import Files, Mode, System
from unit.probes.frozen_machine import point


def chosen(machine: Files, text: str, pattern: str) -> list[str]:
    """The names of the targets that a filter leaves of an attach point."""
    contexts = Resolver(System(files=machine, probe_filter=pattern)).resolve(point(text), set())
    return [getattr(t, "name", c.name) for c in contexts for t in c.targets or (c,)]


@pytest.mark.parametrize(
    ("text", "pattern", "left"),
    [
        ("kprobe:vfs_*", "write", ["vfs_write"]),
        ("kprobe:vfs_*", "^kprobe:vfs_", ["vfs_read", "vfs_write"]),
        ("fentry:vfs_*", "^fentry:vmlinux:vfs_read$", ["vfs_read"]),
        ("kprobe:vfs_read", "tcp", []),
        ("begin", "tcp", ["begin"]),
        ("interval:ms:100", ":200", []),
        ("interval:ms:200", ":200", ["interval:ms:200"]),
    ],
)
def test_a_filter_is_searched_in_full_names(
    machine: Files, text: str, pattern: str, left: list[str]
) -> None:
    assert chosen(machine, text, pattern) == left


def test_what_a_filter_leaves_out_is_no_missing_probe(machine: Files) -> None:
    resolver = Resolver(System(files=machine, probe_filter="nothing"))
    assert resolver.resolve(point("kprobe:vfs_read"), set()) == []
    assert resolver.all_filtered
    resolver.resolve(point("begin"), set())
    assert resolver.all_filtered


def test_a_filter_must_be_a_regular_expression(machine: Files) -> None:
    with pytest.raises(UsageError) as error:
        Resolver(System(files=machine, probe_filter="[invalid"))
    assert error.value.message.startswith("Invalid --probe-filter regex '[invalid': ")


@pytest.mark.parametrize(("mode", "test", "bench"), [("", 0, 0), ("test", 1, 0), ("bench", 0, 1)])
def test_tests_and_benchmarks_stand_for_nothing_outside_of_their_mode(
    machine: Files, mode: Mode, test: int, bench: int
) -> None:
    resolver = Resolver(System(files=machine, mode=mode))
    assert len(resolver.resolve(point("test:a"), set())) == test
    assert len(resolver.resolve(point("bench:a"), set())) == bench
