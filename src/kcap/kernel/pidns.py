# SPDX-License-Identifier: Apache-2.0
"""The PID namespace that this process runs in."""

from __future__ import annotations

import os

INITIAL = 0xEFFFFFFC
"""Inode number of the initial PID namespace (PROC_PID_INIT_INO of include/linux/proc_ns.h)."""


def own(path: str = "/proc/self/ns/pid") -> tuple[int, int] | None:
    """(device, inode) of the namespace as bpf_get_ns_current_pid_tgid takes them.

    :return: None in the initial namespace, and where there is no telling (no /proc).
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if found.st_ino == INITIAL:
        return None
    # dev_t as the kernel keeps it (MKDEV of include/linux/kdev_t.h), not as stat(2) gives it.
    return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino
