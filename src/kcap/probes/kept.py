# SPDX-License-Identifier: Apache-2.0
"""``available_filter_functions``, kept from one start to the next.

The kernel makes the file up anew for every reader, a symbol look-up a line: a quarter of the time
that checking an fentry script takes. What it says changes when a module comes or goes, and at boot:
it is kept under these.
"""

from __future__ import annotations

import os
from contextlib import suppress

from kcap import cachedir

DIRECTORY = "functions"
_BOOT_ID = "sys/kernel/random/boot_id"


def state(proc: str = "/proc") -> str:
    """A name for what the list depends on: the boot, and the modules with sizes and addresses.

    :param proc: where procfs is mounted.
    :return: '' if that can't be told, or if there are no addresses to see (no root).
    """
    try:
        with open(f"{proc}/{_BOOT_ID}", "rb", buffering=0) as file:
            boot = file.read()
        with open(f"{proc}/modules", "rb") as file:
            # name size references users state address
            modules = [(f[0], f[1], f[5]) for f in map(bytes.split, file) if len(f) > 5]
    except OSError:
        return ""
    if os.geteuid() != 0 or not boot:
        return ""
    return cachedir.digest(repr((boot, modules)).encode()).hex()


def load(name: str) -> bytes:
    """The list that is kept under a name; empty if there is none, or if it is damaged."""
    return cachedir.unsealed(cachedir.read(DIRECTORY, name) if name else None) or b""


def store(name: str, data: bytes) -> None:
    """Keep a list, if possible, and only that one."""
    if not name or not data:
        return
    cachedir.write(DIRECTORY, name, cachedir.sealed(data))
    path = cachedir.directory(DIRECTORY)
    for other in os.listdir(path) if path is not None else ():
        if other != name and not other.startswith("."):
            with suppress(OSError):  # another kcap was quicker
                os.unlink(f"{path}/{other}")
