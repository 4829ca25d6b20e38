# SPDX-License-Identifier: Apache-2.0
"""C++ names, by the demangler of the C++ runtime library (Itanium C++ ABI)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


@cache
def _demangler() -> Any:
    """``__cxa_demangle`` with its ``free``; None if there is no C++ runtime library."""
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:  # nothing here is written in C++
        return None
    function = library["__cxa_demangle"]
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    release = ctypes.CDLL(None).free
    release.argtypes = [ctypes.c_void_p]
    return function, release


def demangled(name: str) -> str:
    """A C++ name in its readable form; other names unchanged."""
    known = _demangler() if name.startswith("_Z") else None
    if known is None:
        return name
    function, release = known
    address = function(name.encode(), None, None, None)
    if not address:
        return name
    try:
        return ctypes.string_at(address).decode("utf-8", "replace")
    finally:
        release(address)
