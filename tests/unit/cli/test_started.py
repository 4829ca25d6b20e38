# SPDX-License-Identifier: Apache-2.0
"""What commands that trace do once everything is attached."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from kcap.cli.started import started
from kcap.session.timing import Timings


@pytest.mark.parametrize("verbose", [False, True])
def test_the_phases_of_a_start_are_told_if_wanted_and_garbage_is_collected_again(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    timings = Timings()
    timings.add("parse", 0.0015)
    timings.add("attach", 0.01)
    trace: Any = SimpleNamespace(timings=timings, ways=lambda: ["kprobe:tcp_*: 3 functions"])
    gc.disable()
    try:
        started(trace, verbose=verbose)
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
    told = capsys.readouterr().err.splitlines()
    assert told == (
        [
            "parse        1.5 ms",
            "attach      10.0 ms",
            "total       11.5 ms",
            "kprobe:tcp_*: 3 functions",
        ]
        if verbose
        else []
    )
