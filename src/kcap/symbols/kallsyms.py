# SPDX-License-Identifier: Apache-2.0
"""The kernel's symbols, from /proc/kallsyms.

A line is ``ffffffff81000000 T _text`` or, for a module, ends in a tab and ``[module]``. Reading
and splitting 150,000 lines takes about 0.1 s, so that it is done when first needed.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple

from kcap.errors import FileError

PATH = "/proc/kallsyms"


class Symbol(NamedTuple):
    """A symbol with the distance of an address from it.

    :ivar name: the symbol.
    :ivar offset: bytes behind its start.
    :ivar module: the module it is in; empty for the kernel's own.
    """

    name: str
    offset: int
    module: str

    def __str__(self) -> str:
        """``name+offset``, the offset in decimal as bpftrace writes it; no ``+0``."""
        return f"{self.name}+{self.offset}" if self.offset else self.name


class Kallsyms:
    """All symbols of a kernel.

    :param text: the contents of /proc/kallsyms.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text

    @classmethod
    def kernel(cls, path: str = PATH) -> Kallsyms:
        """The running kernel's symbols.

        :raises FileError: /proc/kallsyms can't be read, or the kernel hides addresses.
        """
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError as error:
            raise FileError(
                f"can't read {path}: {error.strerror}",
                path,
                hint="the kernel needs CONFIG_KALLSYMS=y",
            ) from error
        return cls(text)

    @cached_property
    def hidden(self) -> bool:
        """Whether the kernel shows zeros for addresses (kptr_restrict, or no CAP_SYSLOG)."""
        return not self._text or not any(
            int(line.split(b" ", 1)[0], 16) for line in self._text.split(b"\n", 3)[:3] if line
        )

    @cached_property
    def _fields(self) -> list[bytes]:
        # Three fields a line if modules' tab-separated names are kept with the symbol.
        return self._text.replace(b"\n", b" ").split(b" ")

    @cached_property
    def _sorted(self) -> tuple[list[int], list[bytes]]:
        """(addresses, names with modules) of what has code or data, by address."""
        fields = self._fields
        addresses = [int(a, 16) for a in fields[0 : len(fields) - 2 : 3]]
        names = fields[2::3]
        if any(map(int.__gt__, addresses, addresses[1:])):
            order = sorted(range(len(addresses)), key=addresses.__getitem__)
            addresses = [addresses[i] for i in order]
            names = [names[i] for i in order]
        return addresses, names

    def find(self, address: int) -> Symbol | None:
        """The symbol an address lies in, that is the nearest at or below it; None below the first.

        :raises FileError: the kernel hides addresses.
        """
        self._need_addresses()
        addresses, names = self._sorted
        index = bisect_right(addresses, address) - 1
        if index < 0:
            return None
        found = addresses[index]
        # Of several symbols at an address the first in the file is the name people know.
        while index and addresses[index - 1] == found:
            index -= 1
        name, _, module = names[index].partition(b"\t")
        return Symbol(name.decode(), address - found, module.strip(b"[]").decode())

    def address(self, name: str, module: str = "") -> int | None:
        """The first address of a symbol, or None.

        :param name: the symbol.
        :param module: its module; empty for the kernel itself, then for any module.
        :raises FileError: the kernel hides addresses.
        """
        self._need_addresses()
        for found in self._search(name):
            if not module or found[1] == module:
                return found[0]
        return None

    def addresses(self, name: str) -> list[tuple[int, str]]:
        """(address, module) of all symbols with a name, in the order of the file.

        :raises FileError: the kernel hides addresses.
        """
        self._need_addresses()
        return self._search(name)

    def _search(self, name: str) -> list[tuple[int, str]]:
        # A search through the text costs 1-2 ms, an index of all names 100: few are asked for.
        text, wanted = self._text, b" " + name.encode()
        found = []
        at = text.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            start = text.rfind(b"\n", 0, at) + 1
            # "address type name": the name is the third field and ends here
            if text[end : end + 1] in (b"\n", b"\t", b"") and text[start:at].count(b" ") == 1:
                line_end = text.find(b"\n", end)
                rest = text[end : line_end if line_end >= 0 else len(text)]
                address = int(text[start : text.index(b" ", start)], 16)
                found.append((address, rest.strip(b"\t[]").decode()))
            at = text.find(wanted, end)
        return found

    def _need_addresses(self) -> None:
        if self.hidden:
            raise FileError(
                "the kernel hides the addresses of its symbols",
                PATH,
                hint="run as root, and set kernel.kptr_restrict to 0 or 1 (sysctl)",
            )
