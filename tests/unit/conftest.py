# SPDX-License-Identifier: Apache-2.0
"""How hypothesis behaves in the unit tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test is timed: machines are shared. The examples are always the same, so that a failure can be
# had again and comes with what caused it; other ones are tried with KCAP_RANDOM_EXAMPLES=1 (and
# --hypothesis-seed).
settings.register_profile(
    "kcap",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="KCAP_RANDOM_EXAMPLES" not in os.environ,
)
settings.load_profile("kcap")
