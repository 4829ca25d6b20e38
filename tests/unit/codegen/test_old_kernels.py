# SPDX-License-Identifier: Apache-2.0
"""What is said where a kernel lacks what a script needs."""

from __future__ import annotations

import pytest

import kcap
from kcap.codegen.module import Features
from kcap.lang.diagnostic import ScriptError


def test_a_loop_over_a_map_is_refused_where_the_kernel_has_no_helper_for_it() -> None:
    text = "begin { @a[1] = 1; for ($kv : @a) { print($kv); } }"
    checked = kcap.compile(text)
    with pytest.raises(ScriptError) as raised:
        checked.generate(Features(for_each=False))
    (found,) = raised.value.diagnostics
    assert (found.code, found.title) == ("no-map-loops", "this kernel can't loop over a map")
    assert found.span is not None
    assert text[found.span.start : found.span.end].startswith("for ($kv : @a)")
    assert "since Linux 5.13" in found.notes[0]
    assert found.help == ("print(@a) prints all of a map, also on this kernel",)
