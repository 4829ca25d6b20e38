# SPDX-License-Identifier: Apache-2.0
"""Ordering of memory accesses to rings that the kernel writes.

x86-64 keeps loads in order and stores in order, and a reader mostly needs no more than that (it
reads the head, then records, then writes the tail). Elsewhere, and where a load must not overtake
a store, taking and leaving a lock gives the order that is needed.
"""

from __future__ import annotations

import os
from _thread import allocate_lock  # threading takes a millisecond of every start

_lock = allocate_lock()


def fence() -> None:
    """All that stands before it is done before what stands behind it."""
    _lock.acquire()
    _lock.release()


def _nothing() -> None:
    pass


barrier = _nothing if os.uname().machine == "x86_64" else fence
"""Loads before it are done before loads and stores behind it, stores before stores."""
