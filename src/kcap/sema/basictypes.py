# SPDX-License-Identifier: Apache-2.0
"""Type names that exist without BTF or any header.

The names of the language itself (``int8`` … ``uint64``, ``bool``, ``void``), C's own on a 64-bit
Linux (LP64), and the fixed-size ones of the kernel's ``include/uapi/asm-generic/int-ll64.h``,
``include/uapi/linux/types.h`` and of ``stdint.h``.
"""

from __future__ import annotations

from kcap.sema.types import BOOL, VOID, Integer, Type

_C_NAMES: dict[str, tuple[int, bool]] = {
    "char": (1, True),
    "signed char": (1, True),
    "unsigned char": (1, False),
    "short": (2, True),
    "unsigned short": (2, False),
    "int": (4, True),
    "unsigned": (4, False),
    "unsigned int": (4, False),
    "long": (8, True),
    "unsigned long": (8, False),
    "long long": (8, True),
    "unsigned long long": (8, False),
    "size_t": (8, False),
    "ssize_t": (8, True),
    "ptrdiff_t": (8, True),
    "uintptr_t": (8, False),
    "intptr_t": (8, True),
    "pid_t": (4, True),
    "uid_t": (4, False),
    "gid_t": (4, False),
    "mode_t": (2, False),
    "umode_t": (2, False),
    "dev_t": (4, False),
    "off_t": (8, True),
    "loff_t": (8, True),
    "time_t": (8, True),
    "sector_t": (8, False),
    "gfp_t": (4, False),
    "__wsum": (4, False),
    "__sum16": (2, False),
}


def _fixed_sizes() -> dict[str, tuple[int, bool]]:
    names: dict[str, tuple[int, bool]] = {}
    for size in (1, 2, 4, 8):
        bits = 8 * size
        for spelling in (f"int{bits}", f"int{bits}_t", f"s{bits}", f"__s{bits}"):
            names[spelling] = (size, True)
        unsigned = (f"uint{bits}", f"uint{bits}_t", f"u{bits}", f"__u{bits}", f"u_int{bits}_t")
        for spelling in unsigned:
            names[spelling] = (size, False)
        if size > 1:
            names[f"__be{bits}"] = names[f"__le{bits}"] = (size, False)
    return names


BASIC_TYPES: dict[str, Type] = {
    name: Integer(size, signed) for name, (size, signed) in (_C_NAMES | _fixed_sizes()).items()
} | {"bool": BOOL, "_Bool": BOOL, "void": VOID}
"""Type by name."""
