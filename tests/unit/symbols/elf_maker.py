# SPDX-License-Identifier: Apache-2.0
"""Makes small ELF executables for tests."""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack
from types import MappingProxyType

TEXT_OFFSET = 0x1000
TEXT_ADDRESS = 0x401000


def symbols(functions: list[tuple[str, int, int]]) -> tuple[bytes, bytes]:
    """(.symtab, .strtab) with these functions: name, address, size; and one that is not here."""
    strings = b"\0undefined\0"
    table = bytes(24) + pack("<IBBHQQ", 1, 0x12, 0, 0, 0, 0)
    for name, address, size in functions:
        table += pack("<IBBHQQ", len(strings), 0x12, 0, 1, address, size)
        strings += name.encode() + b"\0"
    return table, strings


def note(provider: str, name: str, arguments: str, pc: int, base: int, semaphore: int) -> bytes:
    """A USDT note."""
    text = f"{provider}\0{name}\0{arguments}\0".encode()
    body = pack("<QQQ", pc, base, semaphore) + text
    padded = body + bytes(-len(body) % 4)
    return pack("<III", 8, len(body), 3) + b"stapsdt\0" + padded


def elf(
    functions: list[tuple[str, int, int]],
    notes: bytes = b"",
    base: int = 0,
    kind: int = 3,
    strtab_size: int | None = None,
    sections: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """An ELF file whose text is at TEXT_OFFSET in the file and at TEXT_ADDRESS in memory.

    :param sections: further sections with their contents.
    :param base: the address of .stapsdt.base.
    """
    table, strings = symbols(functions)
    contents = [
        ("", 0, 0, b"", 0),
        (".text", 1, TEXT_ADDRESS, bytes(0x1000), 0),
        (".symtab", 2, 0, table, 3),
        (".strtab", 3, 0, strings, 0),
        (".note.stapsdt", 7, 0, notes, 0),
        (".stapsdt.base", 1, base, b"\0", 0),
        *((name, 1, 0, data, 0) for name, data in sections.items()),
    ]
    names = b"".join(name.encode() + b"\0" for name, *_ in contents) + b".shstrtab\0"
    contents.append((".shstrtab", 3, 0, names, 0))
    body, headers, name_at = bytes(TEXT_OFFSET - 64 - 56), b"", 0
    for name, section_type, address, data, link in contents:
        offset = 64 + 56 + len(body)
        size = len(data) if name != ".strtab" or strtab_size is None else strtab_size
        headers += pack(
            "<IIQQQQIIQQ", name_at, section_type, 0, address, offset, size, link, 0, 1, 0
        )
        name_at += len(name) + 1
        body += data
    program = pack("<IIQQQQQQ", 1, 5, TEXT_OFFSET, TEXT_ADDRESS, 0, 0x1000, 0x1000, 0x1000)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, kind, 62, 1, 0, 64, 64 + 56 + len(body), 0),
        *(64, 56, 1, 64, len(contents), len(contents) - 1),
    )
    return header + program + body + headers
