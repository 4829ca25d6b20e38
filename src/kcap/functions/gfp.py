# SPDX-License-Identifier: Apache-2.0
"""GFP (get free pages) flags by name, as ``%gr`` and, but for 0, the kernel's ``%pGg`` print them.

Facts: include/linux/gfp_types.h (the bits, numbered without the optional ones that 6.10 made an
enum) and include/trace/events/mmflags.h (which names win).
"""

from __future__ import annotations

BITS = {
    "GFP_DMA": 0x1,
    "__GFP_HIGHMEM": 0x2,
    "GFP_DMA32": 0x4,
    "__GFP_MOVABLE": 0x8,
    "__GFP_RECLAIMABLE": 0x10,
    "__GFP_HIGH": 0x20,
    "__GFP_IO": 0x40,
    "__GFP_FS": 0x80,
    "__GFP_ZERO": 0x100,
    "__GFP_DIRECT_RECLAIM": 0x400,
    "__GFP_KSWAPD_RECLAIM": 0x800,
    "__GFP_WRITE": 0x1000,
    "__GFP_NOWARN": 0x2000,
    "__GFP_RETRY_MAYFAIL": 0x4000,
    "__GFP_NOFAIL": 0x8000,
    "__GFP_NORETRY": 0x10000,
    "__GFP_MEMALLOC": 0x20000,
    "__GFP_COMP": 0x40000,
    "__GFP_NOMEMALLOC": 0x80000,
    "__GFP_HARDWALL": 0x100000,
    "__GFP_THISNODE": 0x200000,
    "__GFP_ACCOUNT": 0x400000,
    "__GFP_ZEROTAGS": 0x800000,
}


def _mask(*names: str) -> int:
    return sum(BITS[name] for name in names)


_RECLAIM = _mask("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM")
_KERNEL = _RECLAIM | _mask("__GFP_IO", "__GFP_FS")
_USER = _KERNEL | BITS["__GFP_HARDWALL"]
_MOVABLE = _USER | _mask("__GFP_HIGHMEM", "__GFP_MOVABLE")
_TRANSHUGE_LIGHT = (_MOVABLE | _mask("__GFP_COMP", "__GFP_NOMEMALLOC", "__GFP_NOWARN")) & ~_RECLAIM

#: Names of several bits, the largest first: the kernel tries them in this order.
COMBINED = (
    ("GFP_TRANSHUGE", _TRANSHUGE_LIGHT | BITS["__GFP_DIRECT_RECLAIM"]),
    ("GFP_TRANSHUGE_LIGHT", _TRANSHUGE_LIGHT),
    ("GFP_HIGHUSER_MOVABLE", _MOVABLE),
    ("GFP_HIGHUSER", _USER | BITS["__GFP_HIGHMEM"]),
    ("GFP_USER", _USER),
    ("GFP_KERNEL_ACCOUNT", _KERNEL | BITS["__GFP_ACCOUNT"]),
    ("GFP_KERNEL", _KERNEL),
    ("GFP_NOFS", _RECLAIM | BITS["__GFP_IO"]),
    ("GFP_ATOMIC", _mask("__GFP_HIGH", "__GFP_KSWAPD_RECLAIM")),
    ("GFP_NOIO", _RECLAIM),
    ("GFP_NOWAIT", _mask("__GFP_KSWAPD_RECLAIM", "__GFP_NOWARN")),
)


def gfp_text(flags: int) -> str:
    """The names of the flags, joined by ``|``; bits without a name in hexadecimal."""
    flags &= 0xFFFF_FFFF
    if not flags:
        return "0"
    names = []
    for name, mask in (*COMBINED, *BITS.items()):
        if mask and flags & mask == mask:
            names.append(name)
            flags &= ~mask
    if flags:
        names.append(f"0x{flags:x}")
    return "|".join(names)
