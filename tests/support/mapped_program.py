# SPDX-License-Identifier: Apache-2.0
"""A program made by hand for user probes, mapped into the test's own process to be called."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from zipfile import ZipFile

from unit.symbols.elf_maker import TEXT_ADDRESS, TEXT_OFFSET, elf, note

NOP, RETURN = b"\x90", b"\xc3"
BASE = 0x402000
SEMAPHORE = 0x200
"""Where the counter of the probe ``app:counted`` is, from the start of the text."""
_PAGE = 4096
_MAP_PRIVATE = 2
_FUNCTIONS = {"one": 0, "two": 0x10}
_COUNTED = 0x20
"""Where ``app:counted`` is: the kernel wants one counter for all probes of a place."""
_PLACES = (*_FUNCTIONS.values(), _COUNTED)


def make_program(path: Path) -> Path:
    """Write a file with the functions ``one`` and ``two`` (a nop and a return each) and USDT
    probes."""
    operands = "-4@%edi 1@%sil -2@$-5 8@(%rdx) -1@7(%rdx)"
    notes = b"".join(
        note("app", name, arguments, TEXT_ADDRESS + place, BASE, semaphore)
        for name, arguments, place, semaphore in (
            ("hit", "8@%rdi", 0, 0),
            ("hit", "8@%rsi", 0x10, 0),
            ("operands", operands, 0, 0),
            ("counted", "8@%rdi", _COUNTED, TEXT_ADDRESS + SEMAPHORE),
        )
    )
    functions = [(name, TEXT_ADDRESS + place, 2) for name, place in _FUNCTIONS.items()]
    made = bytearray(elf(functions, notes, BASE))
    for place in _PLACES:
        made[TEXT_OFFSET + place : TEXT_OFFSET + place + 2] = NOP + RETURN
    path.write_bytes(made)
    return path


def make_archive(path: Path, program: Path, member: str) -> Path:
    """Write a ZIP archive with a program that begins at its second page, so that it can be mapped.

    :param member: what the program is called in it.
    """
    with ZipFile(path, "w") as archive:
        headers = 30 + len("filler") + 30 + len(member)
        archive.writestr("filler", bytes(_PAGE - headers))
        archive.write(program, member)
    return path


class MappedProgram:
    """The program in this process.

    :param path: what :func:`make_program` wrote, or an archive with it.
    :param start: where the program begins in it.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._start = start
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long,
        ]  # fmt: skip
        fd = os.open(path, os.O_RDONLY)
        self._code = self._map(fd, mmap.PROT_READ | mmap.PROT_EXEC)
        self._data = self._map(fd, mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(fd)
        kind = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
        self._functions = [kind(self._code + at) for at in _PLACES]
        self._pointed = ctypes.create_string_buffer(b"\x01\0\0\0\0\0\0\xfe")

    def _map(self, fd: int, protection: int) -> int:
        at = self._libc.mmap(None, _PAGE, protection, _MAP_PRIVATE, fd, self._start + TEXT_OFFSET)
        assert at not in (None, ctypes.c_void_p(-1).value)
        return int(at)

    def call(self) -> None:
        """Call both functions, and run into ``app:counted``."""
        for function in self._functions:
            function(-3, 0x1FF, ctypes.addressof(self._pointed))

    @property
    def start(self) -> int:
        """Where its text is mapped: the address of ``one``."""
        return self._code

    @property
    def code(self) -> bytes:
        """What stands where probes are: breakpoints, when they are attached."""
        return b"".join(ctypes.string_at(self._code + at, 2) for at in _PLACES)

    @property
    def semaphore(self) -> int:
        """The counter of the probe ``app:counted``."""
        return ctypes.c_uint16.from_address(self._data + SEMAPHORE).value

    def close(self) -> None:
        """Unmap it."""
        for at in (self._code, self._data):
            self._libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(_PAGE))
