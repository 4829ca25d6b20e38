# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the tests of diagnosis."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.probes.system import System
from unit.diagnose import repair_machine as frozen


@pytest.fixture
def machine(tmp_path: Path) -> System:
    """A machine with all functions, all traceable."""
    return frozen.machine(tmp_path)
