# SPDX-License-Identifier: Apache-2.0
"""Ordering of memory accesses to rings that the kernel writes.

x86-64 keeps loads in order and stores in order, and a reader needs no more than that (it reads the
head, then records, then writes the tail). Elsewhere taking and leaving a lock gives the acquire
and release that are needed.
"""

from __future__ import annotations

import os
from _thread import allocate_lock  # threading takes a millisecond of every start

_lock = allocate_lock()


def _fence() -> None:
    _lock.acquire()
    _lock.release()


def _nothing() -> None:
    pass


barrier = _nothing if os.uname().machine == "x86_64" else _fence
"""Accesses before it are done before those behind it."""
