# SPDX-License-Identifier: Apache-2.0
"""The live tests: those below ``guest/`` run in QEMU guests, once for every kernel.

On this machine pytest only collects them; ``support.on_host`` runs them in guests and shows their
results. In a guest the same files are ordinary tests.
"""

from __future__ import annotations

import os

import pytest

from kcap.vm.kernels import SUITES

MARK = "KCAP_IN_GUEST"


def pytest_configure(config: pytest.Config) -> None:
    """Take over the live tests, unless this is a guest already."""
    if MARK not in os.environ:
        from support.on_host import LivePlugin

        config.pluginmanager.register(LivePlugin(config), "kcap-live")


# First, wherever this file is found: the kernel stands first in names of tests, in a guest as here.
@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for every kernel of each test below ``guest/``."""
    if "live_kernel" in metafunc.fixturenames:
        metafunc.parametrize("live_kernel", kernels(metafunc.config), scope="session")


def kernels(config: pytest.Config) -> list[str]:
    """Return the kernels that ``--kernels`` or ``KERNELS`` ask for."""
    wanted = config.getoption("--kernels") or os.environ.get("KERNELS", "")
    chosen = wanted.replace(",", " ").split() or list(SUITES)
    unknown = [series for series in chosen if series not in SUITES]
    if unknown:
        raise pytest.UsageError(
            f"unknown kernels {', '.join(unknown)}: there are {', '.join(SUITES)}"
        )
    return chosen
