# SPDX-License-Identifier: Apache-2.0
"""Machine code in this process: functions of an object file that LLVM made, called through ctypes.

The code has to stand alone: no data, no calls of others, nothing that a linker would have to fill
in. It is put into memory that is made executable, and not writable any more, before it is called.
"""

from __future__ import annotations

import ctypes
import os
from struct import Struct, iter_unpack
from struct import error as struct_error
from typing import TYPE_CHECKING, Final

from kcap.errors import KcapError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Processors whose instruction cache sees what was written. Elsewhere there is no native code.
MACHINES: Final = ("x86_64",)

_EHDR: Final = Struct("<16sHHIQQQIHHHHHH")
_SHDR: Final = Struct("<IIQQQQIIQQ")
_SHT_SYMTAB, _SHT_RELA, _SHT_REL = 2, 4, 9
_STT_FUNC: Final = 2
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE_ANONYMOUS: Final = 0x22


class NativeError(KcapError):
    """Machine code cannot be used here: the object is not what it should be, or the system forbids
    memory that is executable."""


class NativeCode:
    """The functions of an object file, in memory.

    :param data: the object file, an ELF relocatable of this machine.
    :raises NativeError: it does not stand alone, or memory cannot be made executable.
    """

    def __init__(self, data: bytes) -> None:
        if os.uname().machine not in MACHINES:
            raise NativeError("native code is made for x86-64 only")
        try:
            code, self._symbols = _read(data)
        except (struct_error, IndexError, ValueError) as error:
            raise NativeError(f"the object file is damaged: {error}") from error
        self._address = _executable(code)

    def function(self, name: str) -> Callable[[int], int]:
        """A function that takes an address and returns a number.

        :raises KeyError: there is none of that name.
        """
        made: Callable[[int], int] = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(
            self._address + self._symbols[name]
        )
        return made


def _read(data: bytes) -> tuple[bytes, dict[str, int]]:
    """The bytes of .text, and its functions by name."""
    header = _EHDR.unpack_from(data)
    start, size, count, names_at = header[6], header[11], header[12], header[13]
    sections = [_SHDR.unpack_from(data, start + index * size) for index in range(count)]

    def content(index: int) -> bytes:
        return data[sections[index][4] :][: sections[index][5]]

    names = content(names_at)
    named = {_string(names, section[0]): index for index, section in enumerate(sections)}
    text = named[".text"]
    for section in sections:
        if section[1] in (_SHT_RELA, _SHT_REL) and section[7] == text:
            raise NativeError("the code refers to something outside of it")
    symbols = {}
    for index, section in enumerate(sections):
        if section[1] == _SHT_SYMTAB:
            strings = content(section[6])
            for name, info, _, where, value, _ in iter_unpack("<IBBHQQ", content(index)):
                if info & 15 == _STT_FUNC and where == text:
                    symbols[_string(strings, name)] = value
    return content(text), symbols


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def _executable(code: bytes) -> int:
    """The address of a copy that can be called. It stays for the life of the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    place = libc.mmap(None, len(code), _PROT_READ | _PROT_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if place == ctypes.c_void_p(-1).value:
        raise NativeError(f"no memory for code: {os.strerror(ctypes.get_errno())}")
    ctypes.memmove(place, code, len(code))
    if libc.mprotect(place, len(code), _PROT_READ | _PROT_EXEC):
        reason = os.strerror(ctypes.get_errno())
        raise NativeError(f"memory cannot be made executable: {reason}")
    return int(place)
