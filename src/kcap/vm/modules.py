# SPDX-License-Identifier: Apache-2.0
"""Kernel modules: which are needed before the root file system is there, and in which order."""

from __future__ import annotations

import lzma
import re
from typing import TYPE_CHECKING

from kcap.vm.errors import VmError

if TYPE_CHECKING:
    from pathlib import Path

#: What it takes to reach disks and the port to the host. Some are built into some kernels.
EARLY = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "virtio_rng")


def read(path: Path) -> bytes:
    """Return a module's ELF file; Debian compresses them with xz from 6.12 on.

    Unpacked here, since not every kernel can unpack modules itself (MODULE_DECOMPRESS, 5.17).
    """
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def depends(module: bytes) -> list[str]:
    """Return the names of the modules that a module needs: ``depends=`` of its .modinfo section.

    (scripts/mod/modpost.c writes it: names separated by commas, terminated by a zero byte.)
    """
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.decode() for name in found.group(1).split(b",") if name] if found else []


def index(directory: Path) -> dict[str, Path]:
    """Map the names of the modules below ``directory`` (as lsmod spells them) to their files."""
    files = (path for path in directory.rglob("*.ko*") if path.is_file())
    return {path.name.partition(".ko")[0].replace("-", "_"): path for path in files}


def builtin(directory: Path) -> set[str]:
    """Return the names of the modules that are built in, from ``modules.builtin``."""
    lines = (directory / "modules.builtin").read_text().split()
    return {line.rpartition("/")[2].partition(".ko")[0].replace("-", "_") for line in lines}


def in_order(directory: Path, wanted: tuple[str, ...] = EARLY) -> list[tuple[str, bytes]]:
    """Return the modules ``wanted`` and all they need, each after those it needs itself.

    :param directory: what is ``/lib/modules/RELEASE``.
    :returns: pairs of name and ELF file; what is built in is left out.
    :raises VmError: when a module is neither there nor built in.
    """
    files = index(directory)
    skip = builtin(directory)
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in order or name in skip:
            return
        if name not in files:
            raise VmError(f"the kernel in {directory} has no module {name}")
        data = read(files[name])
        for needed in depends(data):
            add(needed)
        order[name] = data

    for name in wanted:
        add(name)
    return list(order.items())
