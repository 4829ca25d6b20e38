# SPDX-License-Identifier: Apache-2.0
"""The kernels that a guest can be booted with: found, fetched and unpacked, never installed.

Each is the newest ``linux-image-*-cloud-amd64`` of one Debian release. What was found is
remembered beside the files, so a second start asks no network.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kcap.vm.apt import PrivateApt, unpack
from kcap.vm.cache import locked, subdirectory, write_atomically
from kcap.vm.errors import FetchError, VmError

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str], None]

#: Kernel series and the Debian release that has it, oldest first.
SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "forky"}
DEFAULT = "6.12"

_PARTS = ("linux-binary-", "linux-modules-", "linux-base-")


class Kernel(NamedTuple):
    """A kernel that is there to be booted.

    :ivar series: what it is asked for as (``6.12``).
    :ivar release: what ``uname -r`` says in the guest.
    :ivar version: the Debian package's version.
    :ivar package: the Debian package's name.
    :ivar directory: where it is unpacked.
    """

    series: str
    release: str
    version: str
    package: str
    directory: Path

    @property
    def image(self) -> Path:
        """The bootable image."""
        return self.directory / "vmlinuz"

    @property
    def modules(self) -> Path:
        """What is ``/lib/modules/RELEASE`` in the guest."""
        return self.directory / "modules"


def check_series(series: str) -> str:
    """Return ``series`` when there is such a kernel.

    :raises VmError: when there is not.
    """
    if series not in SUITES:
        raise VmError(f"there is no kernel {series!r}", hint=f"choose one of {', '.join(SUITES)}")
    return series


def known(series: str) -> Kernel | None:
    """Return the kernel of ``series`` if it has been fetched before; asks no network."""
    directory = subdirectory("kernels", check_series(series))
    try:
        facts = json.loads((directory / "kernel.json").read_text())
        kernel = Kernel(
            series,
            facts["release"],
            facts["version"],
            facts["package"],
            directory / facts["directory"],
        )
    except (FileNotFoundError, KeyError, ValueError):
        return None
    return kernel if kernel.image.exists() else None


def kernel(series: str, progress: Progress) -> Kernel:
    """Return the kernel of ``series``, fetching it when it is not there yet.

    :param series: one of :data:`SUITES`.
    :param progress: called with a line about each step that takes time.
    :raises FetchError: when it cannot be fetched.
    """
    found = known(series)
    if found is not None:
        return found
    with locked(subdirectory("kernels", series)):
        return known(series) or fetch(series, progress)


def fetch(series: str, progress: Progress) -> Kernel:
    """Look for the newest kernel of ``series``, download it and unpack it."""
    directory = subdirectory("kernels", series)
    suite = SUITES[series]
    apt = PrivateApt(directory / "apt", suite)
    progress(f"kernel {series}: reading Debian {suite}'s package lists")
    apt.update()
    package, version = newest_image(apt, series)
    packages = [package, *parts_of(apt.field(package, "Depends"))]
    size = sum(int(apt.field(name, "Size") or 0) for name in packages)
    progress(f"kernel {series}: downloading {package} {version} ({size / 1e6:.0f} MB)")
    start = time.monotonic()
    archives = apt.download(packages)
    progress(f"kernel {series}: downloaded in {time.monotonic() - start:.0f} s; unpacking")
    release = package.removeprefix("linux-image-")
    target = _unpack(archives, directory, release, version)
    # The lists are 80 MB unpacked and are read again only when a newer kernel is asked for.
    shutil.rmtree(apt.directory)
    facts = {
        "release": release,
        "version": version,
        "package": package,
        "directory": target.name,
    }
    write_atomically(directory / "kernel.json", json.dumps(facts, indent=1).encode())
    return Kernel(series, release, version, package, target)


def newest_image(apt: PrivateApt, series: str) -> tuple[str, str]:
    """Return name and version of the newest cloud image of ``series`` that ``apt`` knows.

    The meta package ``linux-image-cloud-amd64`` may lag behind and, once the release is a testing
    one, move on to another series: so the images themselves are looked at.
    """
    number = series.replace(".", r"\.")
    found = apt.newest(rf"linux-image-{number}\.\d[\w.+~-]*-cloud-amd64")
    if found is None:
        raise FetchError(
            f"Debian {apt.suite} has no cloud kernel {series} any more",
            hint="choose another kernel with --kernel, or update kcap",
        )
    return found


def parts_of(depends: str) -> list[str]:
    """Return the packages that an image's files are split into, from its ``Depends`` field.

    Debian's 7.x image packages are empty and depend on ``linux-binary-*``, ``linux-modules-*`` and
    ``linux-base-*``; older ones hold everything themselves.
    """
    names = [entry.strip().split(" ")[0] for entry in depends.split(",")]
    return [name for name in names if name.startswith(_PARTS)]


def _unpack(archives: list[Path], directory: Path, release: str, version: str) -> Path:
    """Unpack the packages and keep image, modules and configuration; return their directory."""
    raw = directory / f"unpacked.{os.getpid()}"
    target = directory / f"{release}_{version}".replace("/", "_")
    try:
        raw.mkdir(mode=0o700)
        for archive in archives:
            unpack(archive, raw)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        _keep(raw, target, release)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
    return target


def _keep(raw: Path, target: Path, release: str) -> None:
    """Move what a guest needs from the unpacked packages ``raw`` to ``target``."""
    images = [*raw.glob(f"boot/vmlinu?-{release}"), *raw.glob(f"usr/lib/modules/{release}/vmlinuz")]
    modules = [
        path / release
        for path in (raw / "usr/lib/modules", raw / "lib/modules")
        if (path / release / "kernel").is_dir()
    ]
    if not images or not modules:
        raise FetchError(f"the packages of kernel {release} hold no image or no modules")
    shutil.move(modules[0], target / "modules")
    # The image may lie among the modules, and has moved with them then.
    image = images[0] if images[0].exists() else target / "modules" / "vmlinuz"
    shutil.move(image, target / "vmlinuz")
    for configuration in raw.glob(f"boot/config-{release}"):
        shutil.move(configuration, target / "config")
