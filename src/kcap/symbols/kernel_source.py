# SPDX-License-Identifier: Apache-2.0
"""Source lines of the kernel's code, where the debugging information of its image is installed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from kcap.btf.index import build_id
from kcap.errors import FileError, UsageError
from kcap.symbols.debugfile import GLOBAL, build_id_of
from kcap.symbols.elf import ElfFile
from kcap.symbols.frames import SourceFrames
from kcap.symbols.kallsyms import Kallsyms

#: A function that every kernel has: it tells how far the kernel was moved when it started (KASLR).
_EVERYWHERE: Final = "panic"
#: An image of a distribution has some 600 MB of it.
_LIMIT: Final = 4 << 30


class KernelSource:
    """Source lines by address.

    :param image: the kernel's image (vmlinux) with DWARF.
    :param kallsyms: the running kernel's symbols.
    :raises FileError: it can't be read, or is no such image.
    """

    def __init__(self, image: str, kallsyms: Kallsyms) -> None:
        self._frames = SourceFrames(image, _LIMIT)
        elf = ElfFile(image)
        here, there = kallsyms.address(_EVERYWHERE), elf.function(_EVERYWHERE)
        elf.close()
        if here is None or there is None:
            raise FileError(f"{image} is no image of a kernel: it has no {_EVERYWHERE}()", image)
        self._slide = here - there.address

    @classmethod
    def running(cls, kallsyms: Kallsyms, release: str = "") -> KernelSource:
        """That of the running kernel.

        :param release: its release; by default this machine's.
        :raises UsageError: its debugging information is not installed.
        """
        release = release or os.uname().release
        wanted = build_id()
        for path in _candidates(release, wanted):
            if os.path.isfile(path) and (not wanted or build_id_of(path) == wanted):
                return cls(path, kallsyms)
        raise UsageError(
            f"the debugging information of Linux {release} is not installed: no source lines",
            hint=f"Debian: linux-image-{release}-dbg, Ubuntu: linux-image-{release}-dbgsym, "
            "Fedora: kernel-debuginfo",
        )

    def line(self, address: int, *, called: bool = False) -> str:
        """``net/ipv4/udp.c:2312``; '' if not known, as in modules.

        :param called: it is where a call returns to.
        """
        return self._frames.line(address - self._slide - called)


def _candidates(release: str, identity: str) -> Iterator[str]:
    """Where distributions put it, and where it is after building a kernel."""
    if identity:
        yield f"{GLOBAL}/.build-id/{identity[:2]}/{identity[2:]}.debug"
    yield from _named(("boot", "usr/lib/debug/boot", "usr/lib/debug/lib/modules"), release)


def _named(directories: Iterable[str], release: str) -> Iterator[str]:
    for directory in directories:
        yield f"/{directory}/vmlinux-{release}"
        yield f"/{directory}/{release}/vmlinux"
    yield f"/lib/modules/{release}/vmlinux"
    yield f"/lib/modules/{release}/build/vmlinux"
