# SPDX-License-Identifier: Apache-2.0
"""The loss counters, which all programs of a script share, are addressed directly."""

from __future__ import annotations

from kcap.codegen.module import LOST
from unit.codegen.script_machine import compiled, run


def test_the_counters_are_parts_of_one_value() -> None:
    made = compiled('begin { printf("x"); } end { @x[pid] = 1; }')
    spec = next(spec for spec in made.maps if spec.name == LOST)
    assert (spec.max_entries, spec.value_size) == (1, 8 * 2)
    used = {(r.kind, r.addend) for p in made.programs for r in p.spec.relocations}
    assert ("map_value", 0) in used


def test_a_script_that_can_lose_nothing_has_none() -> None:
    made = compiled("begin { $x = 1; }")
    assert LOST not in [spec.name for spec in made.maps]


def test_losses_of_different_things_are_counted_apart() -> None:
    text = 'config = { max_map_keys = 1 } begin { @x[1] = 1; @x[2] = 1; @x[3] = 1; printf("x"); }'
    assert run(text, full=True).lost == {("map", "@x"): 2, ("event", "begin"): 1}
