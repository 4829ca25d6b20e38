# SPDX-License-Identifier: Apache-2.0
"""Laws that hold for any damaged script: it is diagnosed, and repairs can be applied."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.lang.edits import fix
from kcap.lang.render import render, to_json
from kcap.probes.system import System
from unit.diagnose.corpus_machine import findings, machine

CORPUS = Path(__file__).parent / "corpus"
TEXTS = [path.read_text().partition("\n\n")[2] for path in sorted(CORPUS.glob("*.bt"))]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return machine(tmp_path_factory.mktemp("machine"))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A script with a piece cut out, or with a piece of another one put in."""
    text, other = draw(st.sampled_from(TEXTS)), draw(st.sampled_from(TEXTS))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 12)))
    first = draw(st.integers(0, len(other)))
    last = draw(st.integers(first, min(len(other), first + 12)))
    return text[:start] + draw(st.sampled_from(["", other[first:last]])) + text[end:]


@settings(deadline=None, max_examples=150)
@given(text=damaged())
def test_damaged_scripts_are_diagnosed_in_place(system: System, text: str) -> None:
    found = findings(system, "x.bt", text)
    for one in found:
        render(one)
        to_json(one)
        for edit in one.edits:
            assert 0 <= edit.span.start <= edit.span.end <= len(text)
    with_edits = [one for one in found if one.edits]
    if with_edits:
        source = with_edits[0].edits[0].span.source
        assert source.text == text
        _, applied = fix(source, found)
        assert applied
