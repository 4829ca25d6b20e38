# SPDX-License-Identifier: Apache-2.0
"""What BPF objects the kernel has, so that tests see what a trace leaves behind."""

from __future__ import annotations

import errno
import time
from struct import pack, unpack_from

from kcap.kernel.syscall import Buffer, bpf
from support import PATIENCE

#: BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID (include/uapi/linux/bpf.h).
_NEXT = {"program": 11, "map": 12, "link": 31}

Objects = frozenset[tuple[str, int]]


def bpf_objects() -> Objects:
    """Return the kind and id of every BPF program, map and link."""
    return frozenset((kind, number) for kind, command in _NEXT.items() for number in _ids(command))


def _ids(command: int) -> list[int]:
    found: list[int] = []
    current = 0
    while True:
        attr = Buffer(pack("<III", current, 0, 0))
        try:
            bpf(command, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        (current,) = unpack_from("<I", attr.view(), 4)
        found.append(current)


def left_behind(before: Objects, seconds: float = PATIENCE) -> Objects:
    """Return what is there that was not ``before``; the kernel frees objects a little later."""
    deadline = time.monotonic() + seconds
    while (left := bpf_objects() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
