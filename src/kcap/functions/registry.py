# SPDX-License-Identifier: Apache-2.0
"""Every builtin and function by name.

Each family is a module whose ``FUNCTIONS`` lists its classes. Adding one means adding a class
there; checks, documentation and ``--list-functions`` read from it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kcap.functions import (
    aggregates,
    clock,
    comparing,
    control,
    histogram,
    macros,
    maps,
    meta,
    names,
    network,
    printing,
    probe_builtins,
    process,
    skbfilter,
    skboutput,
    stacks,
    strings,
    symbols,
    tseries,
    uaddr,
)

if TYPE_CHECKING:
    from kcap.codegen.function import Function

FAMILIES = (
    process,
    probe_builtins,
    clock,
    strings,
    comparing,
    names,
    network,
    symbols,
    uaddr,
    stacks,
    printing,
    maps,
    aggregates,
    histogram,
    tseries,
    skbfilter,
    skboutput,
    control,
    macros,
    meta,
)


@cache
def all_functions() -> dict[str, Function]:
    """Every builtin and function, by name and by each alias."""
    found: dict[str, Function] = {}
    for family in FAMILIES:
        for cls in family.FUNCTIONS:
            function = cls()
            for name in (cls.name, *cls.aliases):
                found[name] = function
    return found
