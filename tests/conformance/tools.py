# SPDX-License-Identifier: Apache-2.0
"""What bpftrace's tests call or include and kcap's guests do not have, from Debian packages."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kcap.vm.apt import PrivateApt, this_release, unpack
from kcap.vm.cache import key_of, locked, subdirectory
from kcap.vm.sources import Share

if TYPE_CHECKING:
    from pathlib import Path

    from kcap.vm.kernels import Progress

#: Their packages by name.
PROGRAMS = {"bc": "bc", "bpftool": "bpftool", "nm": "binutils", "strace": "strace"}
#: What has the headers that tests include.
HEADERS = "libc6-dev"
PACKAGES = tuple(sorted({*PROGRAMS.values(), HEADERS}))
POINT = "/opt/tools"
#: In the guest: finds the programs' libraries beside them.
LAUNCHER = """\
#!/bin/sh
export LD_LIBRARY_PATH={point}/usr/lib/x86_64-linux-gnu:{point}/lib/x86_64-linux-gnu
exec {point}/{path} "$@"
"""


def share(progress: Progress) -> Share:
    """The directory with the unpacked packages, fetched at the first time."""
    suite = this_release()
    directory = subdirectory("conformance")
    target = directory / f"{suite}-{key_of([suite, *PACKAGES])}"
    with locked(directory):
        if not target.exists():
            progress(f"fetching {', '.join(PACKAGES)} for the guest")
            apt = PrivateApt(directory / "apt", suite)
            apt.update()
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for archive in apt.download_with_dependencies(PACKAGES):
                unpack(archive, partial)
            shutil.rmtree(partial / "usr/share", ignore_errors=True)
            for library in partial.glob("usr/lib/*/*.a"):
                library.unlink()
            partial.rename(target)
            shutil.rmtree(apt.directory)
    return Share(target, POINT, False)


def link_headers() -> str:
    """The command that gives a guest its ``/usr/include``, as tests look for headers there."""
    include = f"{POINT}/usr/include"
    return f"mkdir -p /usr/include && ln -s {include}/* {include}/*-linux-gnu/* /usr/include"


def launchers(directory: Path) -> dict[str, bytes]:
    """Scripts for the guest's ``/usr/local/bin``, by name.

    :param directory: the share's directory here.
    """
    found = {}
    for name in PROGRAMS:
        path = next(p for p in directory.glob(f"**/*bin/{name}") if p.is_file())
        text = LAUNCHER.format(point=POINT, path=path.relative_to(directory))
        found[name] = text.encode()
    return found
