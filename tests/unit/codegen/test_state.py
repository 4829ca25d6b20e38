# SPDX-License-Identifier: Apache-2.0
"""What all programs of a script share is addressed directly: the exit flag, the loss counters."""

from __future__ import annotations

from script_machine import compiled, run

from kcap.codegen.module import EXITED_AT, LOST_AT, STATE


def test_the_flag_and_the_counters_are_parts_of_one_value() -> None:
    made = compiled('begin { printf("x"); exit(); } end { @x[pid] = 1; }')
    spec = next(spec for spec in made.maps if spec.name == STATE)
    assert (spec.max_entries, spec.value_size) == (1, LOST_AT + 8 * len(made.lost))
    used = {(r.kind, r.addend) for p in made.programs for r in p.spec.relocations}
    assert ("map_value", EXITED_AT) in used


def test_a_script_that_can_neither_end_nor_lose_anything_has_none() -> None:
    made = compiled("begin { $x = 1; }")
    assert STATE not in [spec.name for spec in made.maps]


def test_losses_of_different_things_are_counted_apart() -> None:
    text = 'config = { max_map_keys = 1 } begin { @x[1] = 1; @x[2] = 1; @x[3] = 1; printf("x"); }'
    assert run(text, full=True).lost == {("map", "@x"): 2, ("event", "begin"): 1}
