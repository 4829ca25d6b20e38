# SPDX-License-Identifier: Apache-2.0
"""Looking for C++ names by their readable form."""

from __future__ import annotations

from kcap.probes.names import Pattern


def matches_demangled(text: str, name: str) -> bool:
    """Whether a pattern means a demangled name: without parameters it means all overloads."""
    wanted = Pattern(text)
    if "(" in text:
        return wanted.matches(name)
    return wanted.matches(name) or wanted.matches(name.partition("(")[0])
