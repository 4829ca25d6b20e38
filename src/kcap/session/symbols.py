# SPDX-License-Identifier: Apache-2.0
"""Symbols and stacks for printing, read when the first address has to be printed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kcap.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kcap.kernel.mapping_events import MappingEvents
    from kcap.kernel.maps import Map
    from kcap.symbols.frames import SourceFrame
    from kcap.symbols.kallsyms import Kallsyms, Symbol
    from kcap.symbols.process import ProcessSymbols

#: How long a list of modules is taken for the present one, in seconds.
_LOOK_AGAIN = 0.1


class LazyKernelSymbols:
    """:class:`kcap.codegen.environment.KernelSymbols` over /proc/kallsyms.

    It is read again where an address is not in the kernel itself and modules have come or gone: a
    new one's functions would have the name of what stood before them in memory.

    :param proc: where the kernel's files are.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._table: Kallsyms | None = None
        self._loaded: list[list[str]] = []
        self._next_look = 0.0

    def symbolize(self, address: int) -> tuple[str, int] | None:
        """Name and offset of what holds ``address``, or None."""
        found = self.find(address)
        return None if found is None else (found.name, found.offset)

    def find(self, address: int) -> Symbol | None:
        """The symbol that holds ``address``, or None."""
        if self._table is None:
            self._loaded = self._module_list()
            self._table = self._read()
        found = self._table.find(address)
        if found is not None and found.module and self._changed():
            read = self._read()
            if not read.hidden:  # as it is to whom the trace was handed to (-Z)
                self._table = read
                found = read.find(address)
        return found

    def _read(self) -> Kallsyms:
        from kcap.symbols.kallsyms import Kallsyms

        return Kallsyms.kernel(f"{self._proc}/kallsyms")

    def _changed(self) -> bool:
        """Whether there are other modules than at the last look, which is some time ago."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look, before = now + _LOOK_AGAIN, self._loaded
        self._loaded = self._module_list()
        return self._loaded != before

    def _module_list(self) -> list[list[str]]:
        """The modules with their addresses; not how many use them."""
        try:
            with open(f"{self._proc}/modules", encoding="ascii", errors="replace") as file:
                # name, size, use count, users, state, address (proc_modules(5))
                return [[words[0], *words[5:6]] for words in map(str.split, file)]
        except OSError:  # a kernel without modules
            return []


class LazyUserSymbols(Closing):
    """:class:`kcap.codegen.environment.UserSymbols` over /proc and the files mapped there.

    :param programs: the files that are traced, for addresses of processes that have ended.
    """

    def __init__(self, programs: Sequence[str] = ()) -> None:
        self._programs = programs
        self._processes: ProcessSymbols | None = None
        self._events: MappingEvents | None = None

    def watch(self) -> None:
        """From now on, note what processes map, so that those that end soon have names, too.

        Where the kernel refuses, only processes that still run have.
        """
        from kcap.kernel.errors import SyscallError
        from kcap.kernel.mapping_events import MappingEvents

        with suppress(SyscallError):
            self._events = MappingEvents()

    def keep_up(self) -> None:
        """Take what the kernel has said since the last time; its buffer is small."""
        if self._events is not None:
            processes = self._all()
            for change in self._events.read():
                processes.note(change)

    def close(self) -> None:
        """Watch no longer; what is known stays."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def symbolize(self, pid: int, address: int) -> tuple[str, int, str] | None:
        """Name, offset and file of what holds ``address`` in process ``pid``, or None."""
        self.keep_up()
        return self._all().find(pid, address)

    def source(self, pid: int, address: int, *, called: bool = False) -> list[SourceFrame]:
        """See :meth:`kcap.symbols.process.ProcessSymbols.source`."""
        return self._all().source(pid, address, called=called)

    def _all(self) -> ProcessSymbols:
        if self._processes is None:
            from kcap.symbols.process import ProcessSymbols

            self._processes = ProcessSymbols(programs=self._programs)
        return self._processes


class StoredStacks:
    """:class:`kcap.codegen.environment.Stacks` over the loaded stack-trace maps.

    :param maps: the loaded BPF maps by name.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps

    def read(self, map_name: str, stack_id: int) -> bytes:
        """A stack as the map has it; empty if it is not there (any more)."""
        found = self._maps.get(map_name)
        if found is None:
            return b""
        return found.lookup(stack_id.to_bytes(found.spec.key_size, "little")) or b""
