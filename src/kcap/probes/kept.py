# SPDX-License-Identifier: Apache-2.0
"""``available_filter_functions``, kept from one start to the next, and where the functions are.

The kernel makes the file up anew for every reader, a symbol look-up a line: a quarter of the time
that checking an fentry script takes. What it says changes when a module comes or goes, and at boot:
it is kept under these. ``available_filter_functions_addrs`` (6.5) says the same with an address in
front of each line; the addresses are kept beside the names, for those who attach to many.
"""

from __future__ import annotations

import os
import sys
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING

from kcap import cachedir

if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = "functions"
#: What is kept: the lines; the address of each, 8 bytes in the machine's order.
NAMES, ADDRESSES = "", "-addresses"
_BOOT_ID = "sys/kernel/random/boot_id"
_DIGITS = 16
#: Types of symbols that are code: local, global, weak.
_CODE = ("t", "T", "w", "W")


def state(proc: str = "/proc", modules: str = "/sys/module") -> str:
    """A name for what the list depends on: the boot, and the modules as they were loaded.

    :param proc: where procfs is mounted.
    :param modules: where sysfs has the modules: each loading makes another directory (inode), also
        of a module that was built anew and has the size and the place that the old one had.
    :return: '' if that can't be told, or if there are no addresses to see (no root).
    """
    try:
        with open(f"{proc}/{_BOOT_ID}", "rb", buffering=0) as file:
            boot = file.read()
        with open(f"{proc}/modules", "rb") as file:
            # name size references users state address
            lines = [f for f in map(bytes.split, file) if len(f) > 5]
        at = os.fsencode(modules)
        loaded = [(f[0], f[1], f[5], os.stat(b"%b/%b" % (at, f[0])).st_ino) for f in lines]
    except OSError:
        return ""
    if os.geteuid() != 0 or not boot:
        return ""
    return cachedir.digest(repr((boot, loaded)).encode()).hex()


def load(name: str, part: str = NAMES) -> bytes:
    """The list that is kept under a name; empty if there is none, or if it is damaged."""
    return cachedir.unsealed(cachedir.read(DIRECTORY, name + part) if name else None) or b""


def store(name: str, data: bytes, part: str = NAMES) -> None:
    """Keep a list, if possible, and none of another name."""
    if not name or not data:
        return
    cachedir.write(DIRECTORY, name + part, cachedir.sealed(data))
    path = cachedir.directory(DIRECTORY)
    for other in os.listdir(path) if path is not None else ():
        if not other.startswith((name, ".")):
            with suppress(OSError):  # another kcap was quicker
                os.unlink(f"{path}/{other}")


def taken_apart(text: bytes) -> tuple[bytes, bytes]:
    """The lines of ``available_filter_functions_addrs`` without addresses, and the addresses.

    :return: both empty if it is not as expected.
    """
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    try:
        digits = bytes.fromhex(b"".join([line[:_DIGITS] for line in lines]).decode())
    except ValueError:
        return b"", b""
    if len(digits) != 8 * len(lines):
        return b"", b""
    addresses = array("Q", digits)
    if sys.byteorder == "little":
        addresses.byteswap()
    lines.append(b"")
    return b"\n".join([line[_DIGITS + 1 :] for line in lines]), addresses.tobytes()


def addresses_of(lines: Iterable[str], symbols: bytes) -> bytes:
    """The address of the function of each line, 0 for one that is not known.

    :param lines: ``name`` or ``name [module]``.
    :param symbols: ``/proc/kallsyms``: of several functions of a name the first counts.
    """
    found: dict[str, str] = {}
    for symbol in symbols.decode("utf-8", "replace").split("\n"):
        address, _, rest = symbol.partition(" ")
        if rest[:1] in _CODE:
            found.setdefault(rest[2:].replace("\t", " "), address)
    return array("Q", [int(found.get(line, "0"), 16) for line in lines]).tobytes()
