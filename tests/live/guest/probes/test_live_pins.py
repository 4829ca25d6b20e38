# SPDX-License-Identifier: Apache-2.0
"""Pinned iterators: reading the file runs the program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kcap
from kcap.diagnose.attaching import NotAttachedError
from kcap.probes.iterator import PINS
from kcap.session.trace import Trace
from support.bpf_objects import Objects, bpf_objects, left_behind
from support.tracing import kcap_command


@pytest.fixture(scope="module", autouse=True)
def bpffs() -> None:
    if not os.path.ismount(PINS):
        subprocess.run(["mount", "-t", "bpf", "bpf", PINS], check=True)


@pytest.fixture
def pin() -> Iterator[Path]:
    path = Path(PINS) / "kcap-test"
    before: Objects = bpf_objects()
    yield path
    path.unlink(missing_ok=True)
    assert left_behind(before) == set()


def test_reading_a_pinned_iterator_gives_its_text(pin: Path, tmp_path: Path) -> None:
    script = (
        f"iter:task:{pin.name} {{ "
        'printf("%s|%d|%5u|%x|%llu 100%%\\n", ctx.task.comm, ctx.task.pid, 7, 255, 1 << 40); }'
    )
    done = kcap_command(["-q", "-e", script], tmp_path)
    assert done.stdout.strip() == f"Program pinned to {pin}", done.stderr
    for _ in range(2):
        lines = dict(line.split("|", 1) for line in pin.read_text().splitlines())
        own = Path("/proc/self/comm").read_text().rstrip("\n")
        assert lines[own].startswith(f"{os.getpid()}|    7|ff|{1 << 40} 100%")


def test_a_path_that_is_taken_is_refused_and_left_alone(pin: Path) -> None:
    script = f'iter:bpf_map:{pin} {{ printf("%d\\n", ctx.map.id); }}'
    with Trace(kcap.compile(script)) as trace:
        trace.attach()
        first = pin.read_text()
        with pytest.raises(NotAttachedError) as caught, Trace(kcap.compile(script)) as second:
            second.attach()
        assert caught.value.error.hint == f"it is there already: rm {pin}"
        assert pin.read_text().startswith(first[:1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print(1);", "print() has no reader in a pinned iterator"),
        ('printf("%s", ksym(1));', "printf: the kernel can't print this by %s"),
    ],
)
def test_what_the_reader_would_not_see_is_refused(body: str, message: str) -> None:
    with pytest.raises(kcap.KcapError) as caught:
        kcap.compile(f"iter:task:list {{ {body} }}")
    assert message in str(caught.value)


def test_every_iterator_of_the_kernel_loads_attaches_and_ends() -> None:
    """Those over a map's or a cgroup's contents want one, and say so."""
    from kcap.probes.listing import list_probes
    from kcap.probes.system import System

    names = list(list_probes("iter:*", System()))
    assert {"iter:task", "iter:task_file", "iter:bpf_map", "iter:netlink"} <= set(names)
    refused = {}
    for name in names:
        with Trace(kcap.compile(f"{name} {{ @[probe] = count(); }}")) as trace:
            try:
                trace.attach()
            except NotAttachedError as error:
                refused[name] = error.error.hint
                continue
            for _ in trace:
                pass
    assert all(refused.values()), refused
    assert set(refused) <= {
        "iter:bpf_map_elem",
        "iter:bpf_sk_storage_map",
        "iter:cgroup",
        "iter:sockmap",
    }
