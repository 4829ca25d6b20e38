# SPDX-License-Identifier: Apache-2.0
"""What user space knows while a trace runs: symbols, clocks, users, limits of strings.

Opaque values (symbols, timestamps, user names) are resolved with it when they are printed.
Everything is looked up on demand, since most scripts need none of it. It stands beside
:class:`kcap.codegen.site.Runtime`, by which the functions get at it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kcap.sema.config import Config
    from kcap.symbols.frames import SourceFrame


class KernelSymbols(Protocol):
    """Kernel symbols by address and by name."""

    def symbolize(self, address: int) -> tuple[str, int] | None:
        """Name and offset of what holds ``address``, or None."""
        ...


class UserSymbols(Protocol):
    """Symbols of user processes."""

    def symbolize(self, pid: int, address: int) -> tuple[str, int, str] | None:
        """Name, offset and file of what holds ``address`` in process ``pid``, or None."""
        ...

    def source(self, pid: int, address: int, *, called: bool = False) -> list[SourceFrame]:
        """The functions inlined at an address, innermost first, then the one that it is in, with
        their source lines; see :meth:`kcap.symbols.process.ProcessSymbols.source`."""
        ...


class Stacks(Protocol):
    """The call stacks that the BPF programs stored."""

    def read(self, map_name: str, stack_id: int) -> bytes:
        """A stack as the map has it; empty if it is not there (any more)."""
        ...


class Environment:
    """Lazily resolved facts about the machine.

    :param config: string limits, stack modes.
    :param kernel: kernel symbols, or None to print addresses.
    :param user: user symbols, or None to print addresses.
    :param stacks: stored stacks, or None when there are none.
    """

    def __init__(
        self,
        config: Config,
        kernel: KernelSymbols | None = None,
        user: UserSymbols | None = None,
        stacks: Stacks | None = None,
    ) -> None:
        self.config = config
        self.kernel = kernel
        self.user = user
        self.stacks = stacks
        self._users: dict[int, str] = {}
        self._boot_to_wall: int | None = None

    def boot_to_wall(self) -> int:
        """Nanoseconds to add to CLOCK_BOOTTIME to get wall-clock time since 1970.

        Found once, so that times that are printed are as far apart as they were taken.
        """
        if self._boot_to_wall is None:
            self._boot_to_wall = _boot_to_wall()
        return self._boot_to_wall

    def kernel_symbol(self, address: int, *, offset: bool = False) -> str:
        """A kernel address as text: ``name`` or ``name+offset``, the address if not known."""
        found = self.kernel.symbolize(address) if self.kernel is not None else None
        if found is None:
            return hexadecimal(address)
        return f"{found[0]}+{found[1]}" if offset else found[0]

    def user_symbol(
        self, pid: int, address: int, *, offset: bool = False, path: bool = False
    ) -> str:
        """A user address as the symbol that holds it, the address if not known.

        :param offset: with the offset: ``main+12``.
        :param path: with the file: ``main (/bin/bash)``.
        """
        found = self.user.symbolize(pid, address) if self.user is not None else None
        if found is None:
            return hexadecimal(address)
        name, at, file = found
        return f"{self.readable(name)}{f'+{at}' if offset else ''}{f' ({file})' if path else ''}"

    def source_frames(self, pid: int, address: int, *, called: bool) -> list[SourceFrame]:
        """What debugging information tells of a user address, unless the script doesn't want it.

        :param called: it is where a call returns to.
        """
        if self.user is None or not self.config.show_debug_info:
            return []
        return self.user.source(pid, address, called=called)

    def readable(self, name: str) -> str:
        """A C++ name as people write it, unless the script wants it as linkers do."""
        if not name.startswith("_Z") or not self.config.cpp_demangle:
            return name
        from kcap.symbols.demangle import demangled

        return demangled(name)

    def user_name(self, uid: int) -> str:
        """The name of a user id; the number, if it has none."""
        name = self._users.get(uid)
        if name is None:
            import pwd

            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = str(uid)
            self._users[uid] = name
        return name

    def cut(self, text: str, capacity: int) -> str:
        """A string with the trailer of truncated strings, if it was cut off.

        :param capacity: bytes that the string's type holds, its NUL included.
        """
        limit = self.config.max_strlen
        if capacity == limit + 1 and len(text.encode("utf-8", "surrogateescape")) >= limit:
            return text + self.config.str_trunc_trailer
        return text


def hexadecimal(address: int) -> str:
    """An address that has no name; zero has no prefix, as C's ``%#x`` has it."""
    return f"0x{address:x}" if address else "0"


def _boot_to_wall() -> int:
    """The difference of the clocks, from the attempt with the least time between the readings."""
    found = []
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        found.append((after - before, wall - (before + after) // 2))
    return min(found)[1]
