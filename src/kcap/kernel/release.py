# SPDX-License-Identifier: Apache-2.0
"""The kernel's version, for the few things that can't be asked for otherwise."""

from __future__ import annotations

import os


def release() -> tuple[int, int]:
    """The running kernel's version: (6, 12)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)
