# SPDX-License-Identifier: Apache-2.0
"""Room for passes that recurse over a syntax tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Enough for 16 Python frames a level of a tree as high as the parser allows.
RECURSION_LIMIT = 9000


@contextmanager
def recursion_room() -> Iterator[None]:
    """Raise Python's recursion limit for a while, so that the highest tree can be walked.

    From Python 3.11 on calls between Python functions take no C stack, so this is safe.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
