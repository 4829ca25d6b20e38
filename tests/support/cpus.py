# SPDX-License-Identifier: Apache-2.0
"""On which CPU a test runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Keep this thread on one CPU while the block runs, and softirqs that it causes."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
