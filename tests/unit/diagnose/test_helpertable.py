# SPDX-License-Identifier: Apache-2.0
"""The table of helpers: what it says, and how it answers between the kernels that were probed."""

from __future__ import annotations

import pytest

from kcap.diagnose.helpertable import parse, release_of, table
from kcap.diagnose.programkinds import KINDS, ProgramKind, kind_of
from kcap.kernel import uapi
from kcap.kernel.helpers import NAMES, Helper

BY_KEY = {kind.key: kind for kind in KINDS}


def keys(helper: int, release: str) -> list[str]:
    return [kind.key for kind in table().kinds(helper, release_of(release))]


def test_it_has_every_helper_under_its_name() -> None:
    assert {number: row.name for number, row in table().rows.items()} == NAMES


def test_it_was_probed_on_the_four_kernels() -> None:
    assert table().probed == ((5, 10), (6, 1), (6, 12), (7, 2))


@pytest.mark.parametrize("release", ["5.10.262", "6.1.192", "6.12.107", "7.2.12"])
def test_skb_output_is_for_tracing_programs_only(release: str) -> None:
    assert keys(Helper.skb_output, release) == ["fentry", "fexit", "tp_btf", "iter"]


@pytest.mark.parametrize(
    ("helper", "release", "expected"),
    [
        (Helper.perf_event_output, "5.10", [kind.key for kind in KINDS]),
        (Helper.for_each_map_elem, "5.10", []),
        (Helper.for_each_map_elem, "6.1", [kind.key for kind in KINDS]),
        (
            Helper.get_attach_cookie,
            "6.1",
            ["kprobe", "tracepoint", "perf_event", "fentry", "fexit"],
        ),
        (Helper.perf_prog_read_value, "6.12", ["perf_event"]),
        (Helper.seq_printf, "5.10", ["iter"]),
        (Helper.get_func_arg, "6.12", ["fentry", "fexit"]),
        (Helper.get_func_arg, "7.2", ["fentry", "fexit", "tp_btf"]),
        (Helper.skb_store_bytes, "7.2", []),
    ],
)
def test_who_may_call_what(helper: int, release: str, expected: list[str]) -> None:
    assert keys(helper, release) == expected


@pytest.mark.parametrize(
    ("helper", "kind", "release", "expected"),
    [
        (Helper.skb_output, "fentry", (5, 15), True),
        (Helper.skb_output, "kprobe", (5, 15), False),
        (Helper.skb_output, "fentry", (8, 0), True),
        # introduced in 5.13, first seen on 6.1
        (Helper.for_each_map_elem, "kprobe", (5, 12), False),
        (Helper.for_each_map_elem, "kprobe", (5, 15), None),
        (Helper.get_attach_cookie, "tp_btf", (6, 1), False),
        (Helper.get_attach_cookie, "tp_btf", (6, 6), None),
        # depends on how the kernel was built
        (Helper.override_return, "kprobe", (6, 1), None),
        (Helper.override_return, "fentry", (6, 1), False),
        (Helper.skb_output, "kprobe", None, False),
        (Helper.for_each_map_elem, "kprobe", None, True),
        (9999, "kprobe", (6, 1), None),
    ],
)
def test_between_the_probed_kernels_it_answers_only_what_follows(
    helper: int, kind: str, release: tuple[int, int] | None, expected: bool | None
) -> None:
    assert table().allowed(helper, BY_KEY[kind], release) is expected


def test_introduction_is_never_later_than_the_first_kernel_that_allows_it() -> None:
    for row in table().rows.values():
        assert row.introduced is not None
        assert all(row.introduced <= since for since in row.since.values()), row.name


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.1", (6, 1)),
        ("6.12.107", (6, 12)),
        ("5.10.0-46-cloud-amd64", (5, 10)),
        ("7.2-rc1", (7, 2)),
    ],
)
def test_release_of(text: str, release: tuple[int, int]) -> None:
    assert release_of(text) == release


def test_a_wrong_cell_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        parse("1\tmap_lookup_elem\t3.19\tyes" + "\t" * 7 + "\n")


@pytest.mark.parametrize(
    ("program_type", "attach_type", "key"),
    [
        (uapi.BPF_PROG_TYPE_KPROBE, 0, "kprobe"),
        (uapi.BPF_PROG_TYPE_KPROBE, uapi.BPF_TRACE_KPROBE_MULTI, "kprobe"),
        (uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FEXIT, "fexit"),
        (uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_RAW_TP, "tp_btf"),
        (uapi.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, "raw_tracepoint"),
        (uapi.BPF_PROG_TYPE_XDP, 0, None),
    ],
)
def test_kind_of(program_type: int, attach_type: int, key: str | None) -> None:
    kind: ProgramKind | None = kind_of(program_type, attach_type)
    assert (kind.key if kind else None) == key
