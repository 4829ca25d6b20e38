# SPDX-License-Identifier: Apache-2.0
"""Which CPUs there are.

Per-CPU maps have a value for every *possible* CPU; perf events are opened on every *online* one.
"""

from __future__ import annotations

from kcap.kernel.errors import SyscallError

_SYSFS = "/sys/devices/system/cpu"


def parse_list(text: str) -> list[int]:
    """Numbers of a list such as ``0-3,8`` (lib/bitmap.c writes it).

    :raises ValueError: the text is no such list.
    """
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def online() -> list[int]:
    """Numbers of the CPUs that are online, ascending.

    :raises SyscallError: sysfs can't be read.
    """
    return _read("online")


def possible() -> list[int]:
    """Numbers of the CPUs that may ever be online, ascending.

    :raises SyscallError: sysfs can't be read.
    """
    return _read("possible")


def _read(name: str) -> list[int]:
    path = f"{_SYSFS}/{name}"
    try:
        with open(path, encoding="ascii") as file:
            return parse_list(file.read())
    except OSError as error:
        raise SyscallError(
            f"can't read {path}: {error.strerror}",
            error.errno or 0,
            hint="mount sysfs: mount -t sysfs sysfs /sys",
        ) from error
