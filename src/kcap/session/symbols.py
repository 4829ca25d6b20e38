# SPDX-License-Identifier: Apache-2.0
"""Kernel symbols for printing, read when the first address has to be printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.symbols.kallsyms import Kallsyms


class LazyKernelSymbols:
    """:class:`kcap.functions.environment.KernelSymbols` over /proc/kallsyms."""

    def __init__(self) -> None:
        self._table: Kallsyms | None = None

    def symbolize(self, address: int) -> tuple[str, int] | None:
        """Name and offset of what holds ``address``, or None."""
        if self._table is None:
            from kcap.symbols.kallsyms import Kallsyms

            self._table = Kallsyms.kernel()
        found = self._table.find(address)
        return None if found is None else (found.name, found.offset)
