# SPDX-License-Identifier: Apache-2.0
"""Events that the kernel does not give to a program, because one runs on the CPU already."""

from __future__ import annotations

import time

import pytest

from kcap.functions import events
from support.tracing import Running

#: Each program updates a hash, which the probe traces.
BODY = "{ @[nsecs] = 1; } interval:ms:20 { @x[nsecs] = 1; }"


def missed(probe: str) -> tuple[Running, dict[str, int]]:
    """Run for a while; what was missed, by how the kernel calls it."""
    with Running(f"{probe} {BODY}") as running:
        time.sleep(2)
    found: dict[str, int] = {}
    for event in running.events:
        if isinstance(event, events.Missed):
            found[event.reason] = found.get(event.reason, 0) + event.count
    return running, found


@pytest.mark.needs("recursion_misses")
@pytest.mark.parametrize("probe", ["fentry:htab_map_update_elem", "fexit:htab_map_update_elem"])
def test_recursion_of_fentry_is_reported(probe: str) -> None:
    running, found = missed(probe)
    assert found["recursion"] > 0
    assert "missed" in running.messages


@pytest.mark.needs("link_missed")
@pytest.mark.parametrize(
    "probe",
    ["kprobe:htab_map_update_elem", "kprobe:htab_*map_update_elem", "fentry:htab_*update_elem"],
)
def test_what_kprobes_miss_is_reported(probe: str) -> None:
    running, found = missed(probe)
    assert sum(found.values()) > 0
    assert "missed" in running.messages
