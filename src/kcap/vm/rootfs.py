# SPDX-License-Identifier: Apache-2.0
"""The guest's root file system: a small Debian made from packages, and this machine's Python.

Packages come from the Debian release that this machine runs, so the C library is at least the one
Python was built with. Their files are unpacked and nothing of them is run; the few links that
installation scripts would make are made here.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kcap.vm import images, python
from kcap.vm.apt import PrivateApt, this_release, unpack
from kcap.vm.cache import key_of, locked, subdirectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.vm.kernels import Kernel, Progress

#: Raise this when the way images are made changes.
_FORMAT = "4"

#: What there is in a guest, and what for.
PACKAGES = (
    "bash", "dash", "coreutils", "grep", "sed", "mawk", "findutils", "util-linux", "mount", "tar",
    "hostname", "debianutils", "procps", "sysvinit-utils",  # a shell and what scripts call
    "busybox-static",  # the first program of the guest
    "kmod",  # the kernel loads modules with it (veth, 8021q, ...)
    "iproute2", "ethtool", "iputils-ping", "netcat-openbsd", "nftables", "netbase",  # networks
    "tcpdump",  # reads captures back
)  # fmt: skip

_TRIM = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl",
    "usr/share/perl5", "usr/share/lintian", "usr/share/bug", "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/gconv", "usr/share/zoneinfo",
)  # fmt: skip

# What the packages' installation scripts would link (update-alternatives).
_LINKS = {
    "usr/bin/sh": "dash",
    "usr/bin/awk": "mawk",
    "usr/bin/nc": "nc.openbsd",
    "usr/bin/which": "which.debianutils",
}

# tcpdump becomes the user of that name. Here that is root again, so that it may write where root
# told it to: the whole guest is thrown away anyway.
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\ntcpdump:x:0:0::/root:/usr/sbin/nologin\n"
    "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 kcap-guest\n",
    "etc/hostname": "kcap-guest\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\n"
    "services: files\n",
}

_KCAP = """\
#!{python}
import sys
sys.path.insert(0, {directory!r})
from kcap.cli.main import main
sys.exit(main())
"""


def package_directory() -> Path:
    """Return where the kcap that runs now lies."""
    import kcap

    return Path(str(kcap.__file__)).resolve().parent


def tree(progress: Progress) -> Path:
    """Return the directory with the unpacked packages, fetching them when they are not there."""
    suite = this_release()
    directory = subdirectory("root")
    target = directory / f"{suite}-{key_of([_FORMAT, suite, *PACKAGES])}"
    with locked(directory):
        if target.exists():
            return target
        apt = PrivateApt(directory / "apt", suite)
        progress(f"guest's root: reading Debian {suite}'s package lists")
        apt.update()
        progress(f"guest's root: downloading {len(PACKAGES)} packages and what they need")
        archives = apt.download_with_dependencies(PACKAGES)
        progress(f"guest's root: unpacking {len(archives)} packages")
        _unpack_all(archives, target)
        shutil.rmtree(apt.directory)
    return target


def unpack_tree(archives: list[Path], root: Path, useless: Sequence[str]) -> None:
    """Unpack packages into a new directory in which /bin and the like are links below /usr.

    :param useless: paths below it that are removed again.
    :raises FetchError: one of them can't be unpacked.
    """
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        unpack(archive, root)
    for path in useless:
        shutil.rmtree(root / path, ignore_errors=True)


def _unpack_all(archives: list[Path], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    unpack_tree(archives, temporary, _TRIM)
    for link, destination in _LINKS.items():
        if not os.path.lexists(temporary / link):
            (temporary / link).symlink_to(destination)
    for path, text in _FILES.items():
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        (temporary / path).write_text(text)
    temporary.rename(target)


def image(progress: Progress) -> Path:
    """Return the image of the root file system, making it when it is not there.

    Its name is made from all that went in: packages, interpreter, distributions. Older ones are
    removed, but for the three used last and those used within a day.
    """
    base = tree(progress)
    chosen = python.runtime()
    directory = subdirectory("images")
    parts = [_FORMAT, base.name, str(package_directory()), *chosen.key()]
    path = directory / f"root-{key_of(parts)}.ext4"
    with locked(directory):
        if path.exists():
            os.utime(path)
            return path
        progress("guest's root: making the image")
        start = time.monotonic()
        staging = directory / f".staging.{os.getpid()}"
        try:
            shutil.copytree(base, staging, symlinks=True)
            python.copy_into(staging, chosen)
            _add_kcap(staging)
            images.make(staging, path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        prune(directory, "root-*.ext4", keep=3)
        progress(f"guest's root: image made in {time.monotonic() - start:.0f} s")
    return path


def _add_kcap(root: Path) -> None:
    """Add the command ``kcap``, and the empty directory that its source is mounted on."""
    package = package_directory()
    python.below(root, package).mkdir(parents=True, exist_ok=True)
    command = root / "usr/local/bin/kcap"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(_KCAP.format(python=python.executable(), directory=str(package.parent)))
    command.chmod(0o755)
    (root / "lib/modules").mkdir(parents=True, exist_ok=True)


def prune(directory: Path, pattern: str, *, keep: int) -> None:
    """Remove the files that match ``pattern``, but for the ``keep`` most recently used and those
    used within a day: several checkouts may take turns."""
    recent = time.time() - 24 * 3600
    files = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[keep:]:
        if path.stat().st_mtime < recent:
            path.unlink()


def modules_image(kernel: Kernel, progress: Progress) -> Path:
    """Return the image that is mounted on ``/lib/modules/RELEASE``, making it when missing."""
    import subprocess

    path = kernel.directory / "modules.ext4"
    base = tree(progress)
    with locked(kernel.directory):
        if path.exists():
            return path
        progress(f"kernel {kernel.series}: indexing modules")
        staging = kernel.directory / f".staging.{os.getpid()}"
        try:
            target = staging / "lib/modules" / kernel.release
            target.parent.mkdir(parents=True)
            shutil.copytree(kernel.modules, target, symlinks=True)
            # depmod of the guest's own packages: this machine may have none.
            libraries = f"{base}/usr/lib/x86_64-linux-gnu"
            loader = f"{base}/usr/lib64/ld-linux-x86-64.so.2"
            if not os.path.exists(loader):
                loader = f"{libraries}/ld-linux-x86-64.so.2"
            subprocess.run(
                [loader, "--library-path", libraries, "--argv0", "depmod", f"{base}/usr/bin/kmod",
                 "-b", str(staging), kernel.release],
                check=True,
            )  # fmt: skip
            images.make(target, path, spare=4 << 20)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return path
