# SPDX-License-Identifier: Apache-2.0
"""Other tracers to measure against: fetched from Debian, kept in kcap's cache, never installed.

bpftrace comes from Debian forky, with the libraries it needs, by apt's own machinery (signatures
are checked): a small root file system of its own, which the guest sees as a disk and bpftrace runs
in by chroot(2), so that this machine's Debian may be older.

pwru is not in Debian. tcpdump is in the guest already: benchmarks/capture.py compares with it.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from kcap.vm.apt import PrivateApt
from kcap.vm.cache import locked, subdirectory
from kcap.vm.rootfs import unpack_tree

if TYPE_CHECKING:
    from pathlib import Path

    from kcap.vm.kernels import Progress

SUITE = "forky"
#: Where bpftrace's root is mounted in the guest.
BPFTRACE_ROOT = "/mnt/bpftrace"
_USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/x86_64-linux-gnu/gconv")
_MOUNT_POINTS = ("sys", "proc", "dev", "tmp", "run", "lib/modules")


def bpftrace(progress: Progress) -> Path:
    """Return the directory with bpftrace and its libraries, fetching them where missing.

    :param progress: called with a line about each step that takes time.
    :raises FetchError: they can't be fetched.
    """
    directory = subdirectory("peers")
    with locked(directory):
        found = sorted(directory.glob(f"bpftrace-*-{SUITE}"))
        if found:
            return found[-1]
        apt = PrivateApt(directory / "apt", SUITE)
        progress(f"bpftrace: reading Debian {SUITE}'s package lists")
        apt.update()
        version = apt.field("bpftrace", "Version")
        progress(f"bpftrace: downloading {version} and its libraries")
        archives = apt.download_with_dependencies(["bpftrace"])
        target = directory / f"bpftrace-{version}-{SUITE}"
        _unpack_all(archives, target)
        shutil.rmtree(apt.directory)
    return target


def _unpack_all(archives: list[Path], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    unpack_tree(archives, temporary, _USELESS)
    for name in _MOUNT_POINTS:
        (temporary / name).mkdir(parents=True, exist_ok=True)
    temporary.rename(target)
