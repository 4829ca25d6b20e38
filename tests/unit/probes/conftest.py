# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the frozen machine of ``frozen_machine`` and resolving attach points on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kcap.probes.registry import Resolver
from kcap.probes.system import Files, System
from kcap.sema.probe import ProbeContext
from unit.probes.frozen_machine import point, write_machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of the frozen machine."""
    return write_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def system(machine: Files) -> System:
    """The frozen machine."""
    return System(files=machine)


Resolve = Callable[..., list[ProbeContext]]


@pytest.fixture
def resolve(system: System) -> Resolve:
    """Resolve one attach point on the frozen machine: (text, names that the block uses…)."""

    def run(text: str, *uses: str) -> list[ProbeContext]:
        return Resolver(system).resolve(point(text), set(uses))

    return run
