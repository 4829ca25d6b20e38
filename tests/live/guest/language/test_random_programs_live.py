# SPDX-License-Identifier: Apache-2.0
"""The verifier takes what the compiler emits: random well-typed programs load, run, and print what
a plain evaluation of the same tree computes."""

from __future__ import annotations

from random import Random

import kcap
from kcap.errors import KcapError
from kcap.output.text import TextRenderer
from support.random_programs import Script, mismatches, script

#: Programs a script, and scripts: always the same, however fast the machine is.
PROGRAMS, SCRIPTS = 12, 5


def problems(made: Script) -> list[str]:
    """What the kernel refuses, or what is printed that should not be."""
    try:
        with kcap.trace(made.text) as trace:
            renderer = TextRenderer(trace.runtime.environment, quiet=True)
            return mismatches(made, "".join(renderer.output(event) for event in trace))
    except KcapError as error:
        return [f"{error}\n{made.text}"]


def test_the_kernel_takes_random_programs_and_they_compute_what_they_should(
    live_kernel: str,
) -> None:
    for seed in range(SCRIPTS):
        made = script(Random(seed), PROGRAMS, helpers=live_kernel != "5.10")
        assert problems(made) == [], f"seed {seed}"
