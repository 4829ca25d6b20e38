# SPDX-License-Identifier: Apache-2.0
"""ext4 images made from directories, without root and without mounting anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from kcap.vm.errors import RequirementError, VmError

if TYPE_CHECKING:
    from pathlib import Path

_MEBI = 1 << 20


def content_size(directory: Path) -> tuple[int, int]:
    """Return how many bytes (whole blocks) and how many inodes lie below ``directory``."""
    size = count = 0
    for top, names, files in os.walk(directory):
        count += len(names) + len(files)
        for name in files:
            status = os.lstat(os.path.join(top, name))
            size += (status.st_size + 4095) & ~4095
        size += 4096
    return size, count


def make(directory: Path, image: Path, *, spare: int = 256 * _MEBI) -> None:
    """Make an ext4 image with the content of ``directory``.

    :param directory: what is at the image's root. Owners in the image are those of the files here.
    :param image: the file to create; it is sparse, and there at once or not at all.
    :param spare: free space in bytes.
    :raises RequirementError: when mke2fs is missing.
    :raises VmError: with mke2fs's output, when it fails.
    """
    tool = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise RequirementError(
            "mke2fs is not installed, and the guest's disks are made with it",
            hint="apt-get install e2fsprogs",
        )
    size, inodes = content_size(directory)
    # Tables and block maps of the file system itself: about 1/50 of the content.
    blocks = (size + size // 32 + spare + 16 * _MEBI) // 4096
    temporary = image.with_name(f".{image.name}.{os.getpid()}")
    command = [
        tool, "-q", "-F", "-t", "ext4", "-b", "4096", "-N", str(inodes + 16384),
        # Nobody minds losing these after a crash, and a journal costs time and space.
        "-O", "^has_journal,^resize_inode", "-m", "0",
        "-E", "root_owner=0:0,lazy_itable_init=1,nodiscard",
        "-d", str(directory), str(temporary), str(blocks),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        raise VmError(f"mke2fs could not make {image.name}", log=done.stdout + done.stderr)
    os.replace(temporary, image)
