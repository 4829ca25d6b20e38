# SPDX-License-Identifier: Apache-2.0
"""The repaired scripts of the corpus, loaded and attached on a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.errors import KcapError
from kcap.session.preparation import Preparation
from kcap.session.script import Options

FIXED = Path(__file__).parents[3] / "unit/diagnose/corpus/fixed"


@pytest.mark.since("6.1", "bpf_loop, and raw tracepoints by name")
def test_every_repaired_script_loads_and_attaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llvmlite.binding  # noqa: F401 - loaded once, so that each compiler need not

    monkeypatch.chdir(tmp_path)
    wrong = {}
    scripts = sorted(FIXED.glob("*.bt"))
    assert len(scripts) > 50
    for path in scripts:
        try:
            with Preparation(Options(unsafe=True)) as preparation:
                checked = preparation.check(path.read_text(), path.name)
                with preparation.trace(checked, packets=False) as trace:
                    trace.attach()
        except KcapError as error:
            wrong[path.stem] = str(error)
    assert wrong == {}
