# SPDX-License-Identifier: Apache-2.0
"""How hypothesis behaves in the unit tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test is timed: machines are shared. Where nobody looks on, the examples are always the same, so
# that a failure can be had again.
settings.register_profile(
    "kcap",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("kcap")
