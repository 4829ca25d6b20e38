# SPDX-License-Identifier: Apache-2.0
"""Numbers in sentences."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """``1 packet``, ``2 packets``.

    :param noun: in the singular; its plural ends in s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
