# SPDX-License-Identifier: Apache-2.0
"""Assignments that compute a map's value from the value before look the key up once."""

from __future__ import annotations

import struct

import pytest

from kcap.kernel.helpers import Helper
from unit.codegen.script_machine import compiled, run

CALL = 0x85


def calls(text: str) -> list[int]:
    """The helpers that a script's first program calls, in the order of the code."""
    insns = compiled(text).programs[0].spec.insns
    found = [struct.unpack_from("<BBhi", insns, at) for at in range(0, len(insns), 8)]
    return [number for op, registers, _, number in found if op == CALL and registers >> 4 == 0]


LOOKUP, UPDATE = int(Helper.map_lookup_elem), int(Helper.map_update_elem)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("@x[pid] += 3;", 4242, (3, 6, 9)),
        ("@x[pid] = @x[pid] + 3;", 4242, (3, 6, 9)),
        ("@x[pid] = 10 - @x[pid];", 4242, (10, 0, 10)),
        ("@x[pid] -= 1;", 4242, (-1, -2, -3)),
        ("$k = 7; @x[$k] |= 5;", 7, (5, 5, 5)),
        ("@x[pid, comm] += cpu;", (4242, "curl"), (3, 6, 9)),
        ('@x["a"] = (@x["a"] + 1) * 1;', "a", (1, 2, 3)),
    ],
)
def test_the_new_value_is_computed_from_the_old_one(
    text: str, key: object, values: tuple[int, ...]
) -> None:
    for rounds, value in enumerate(values, 1):
        assert run(f"begin {{ {text} }}", rounds=rounds).map("@x") == {key: value}


def test_a_map_without_keys_is_rewritten_too() -> None:
    assert run("begin { @x = @x + 2; }", rounds=3).map("@x") == {None: 6}


@pytest.mark.parametrize("text", ["@x[pid] += 1", "@x[pid] = @x[pid] * 2", "@x += cpu"])
def test_the_key_is_looked_up_once_and_updated_only_when_it_was_missing(text: str) -> None:
    found = [number for number in calls(f"begin {{ {text} }}") if number in (LOOKUP, UPDATE)]
    assert found == [LOOKUP, UPDATE]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("@x[1] = 5; @x[2] = @x[1] + 1;", {1: 5, 2: 6}),
        ("@x[1] = 5; @y[1] = 2; @x[1] = @y[1] + @x[1];", {1: 7}),
        ("@x[1] = 5; @x[1] = @x[1] + @x[1]++;", {1: 10}),
        ("@x[1] = 5; @x[1] = @x[1] + @x[1];", {1: 10}),
    ],
)
def test_other_assignments_keep_their_meaning(text: str, entries: dict[int, int]) -> None:
    assert run(f"begin {{ {text} }}").map("@x") == entries


def test_a_full_map_counts_what_it_refuses() -> None:
    text = "config = { max_map_keys = 1 } begin { @x[1] += 1; @x[2] += 1; }"
    outcome = run(text)
    assert outcome.lost == {("map", "@x"): 1}
    assert outcome.map("@x") == {1: 1}
