# SPDX-License-Identifier: Apache-2.0
"""Options and markers of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that the live tests know."""
    group = parser.getgroup("kcap")
    group.addoption(
        "--kernels",
        default="",
        help="kernels to run the live tests on, separated by spaces or commas (default: all)",
    )
    group.addoption(
        "--guests",
        type=int,
        default=0,
        help="how many guests run at once (default: one for every CPU, at most four)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line(
        "markers", "needs(feature, ...): live test of what tests/support/introduced.py lists"
    )
