# SPDX-License-Identifier: Apache-2.0
"""Random well-typed programs print what a plain evaluation of the same tree computes."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcap.codegen.module import Features
from support.random_programs import mismatches, script
from unit.codegen.script_machine import output

OLD = Features(loop=False, for_each=False, subregisters=False)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_programs_print_what_their_tree_evaluates_to(random: Random) -> None:
    made = script(random, 4)
    assert mismatches(made, output(made.text)) == []


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_they_print_the_same_without_the_loop_helpers(random: Random) -> None:
    made = script(random, 4, helpers=False)
    assert mismatches(made, output(made.text, OLD)) == []
