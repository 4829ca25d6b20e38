# SPDX-License-Identifier: Apache-2.0
"""A map's element that was read is not looked up again while nothing can have changed it."""

from __future__ import annotations

import pytest

from unit.codegen.script_machine import Outcome, run
from unit.codegen.test_rewriting import LOOKUP, calls

SET = "begin { @x[tid] = 7; @y = 3; @z[1, comm] = 5; } "


def after(text: str) -> Outcome:
    """What a second program does, after one that set ``@x[tid]``, ``@y`` and ``@z[1, comm]``."""
    return run(f"{SET} begin {{ {text} }}")


@pytest.mark.parametrize(
    ("text", "printed", "lookups"),
    [
        ('if (@x[tid]) { printf("%d", @x[tid] + 1) }', "8", 1),
        ('if (@y && @x[tid]) { printf("%d %d", @y, @x[tid]) }', "3 7", 3),
        ('$a = @z[1, comm]; $b = @z[1, comm]; printf("%d", $a + $b)', "10", 1),
        ('if (@x[tid] > 1) { @w[1] = @x[tid]; printf("%d", @x[tid]); }', "7", 1),
        ('if (@x[tid] > 1) { printf("a") } else { printf("%d", @x[tid]) }', "a", 1),
        ('printf("%d", @x[tid] + @x[tid])', "14", 2),
        ('$n = @x[tid] + @x[tid]; printf("%d", $n)', "14", 1),
    ],
)
def test_an_element_is_looked_up_once(text: str, printed: str, lookups: int) -> None:
    assert after(text).text == printed
    assert calls(f"begin {{ {text} }} {SET}").count(LOOKUP) == lookups


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('if (@x[tid]) { @x[tid] = 1; printf("%d", @x[tid]) }', "1"),
        ('if (@x[tid]) { @x[tid]++; printf("%d", @x[tid]) }', "8"),
        ('if (@x[tid]) { delete(@x, tid); printf("%d", @x[tid]) }', "0"),
        ('if (@y) { if (tid) { @y = 9 } printf("%d", @y) }', "9"),
        ('if (@y == 1 || @x[tid]) { @y = 4; printf("%d %d", @y, @x[tid]) }', "4 7"),
        ('if (@y) { $i = 0; while ($i < 3) { @y += 1; $i++; } printf("%d", @y) }', "6"),
        ('$k = 1; $a = @y; $k = 2; @v[1] = 5; @v[2] = 6; printf("%d", @v[$k])', "6"),
        ('unroll(3) { @y += 1; printf("%d", @y) }', "456"),
        ('if (@y) { for ($i : 0..40) { if ($i == @y) { printf("%d", $i) } } }', "3"),
        ('$a = @y; $b = @y++ + @y; printf("%d %d", $a, $b)', "3 7"),
    ],
)
def test_what_may_have_changed_is_looked_up_again(text: str, printed: str) -> None:
    assert after(text).text == printed


def test_helper_errors_are_reported_for_each_read() -> None:
    text = 'begin { if (@x[1] == 0) { $a = @x[1]; printf("%d", $a) } @x[2] = 1; }'
    assert len(run(text, helper_errors=True).messages) == 2
