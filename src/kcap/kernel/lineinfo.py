# SPDX-License-Identifier: Apache-2.0
"""Which line each instruction of an object comes from, as LLVM says it in ``.BTF.ext``.

The layout is that of Documentation/bpf/btf.rst (".BTF.ext section"): a header, then for each
section of code its name and records of ``struct bpf_line_info``, whose offsets count bytes from the
section's start here, and instructions from the program's start when a program is loaded.
"""

from __future__ import annotations

from struct import error as struct_error
from struct import iter_unpack, unpack_from
from typing import TYPE_CHECKING

from kcap.kernel.errors import ObjectError

if TYPE_CHECKING:
    from kcap.kernel.object import BpfObject, LinkedProgram

_MAGIC = 0xEB9F
_LINE_SHIFT = 10  # BPF_LINE_INFO_LINE_NUM: below it stands the column


def object_lines(obj: BpfObject) -> dict[str, list[tuple[int, int]]]:
    """For each section of code (offset in bytes, line), ascending; empty without debug info.

    :raises ObjectError: the sections are damaged.
    """
    sections = {section.name: section.data for section in obj.sections}
    if ".BTF.ext" not in sections or ".BTF" not in sections:
        return {}
    try:
        return _read(sections[".BTF.ext"], sections[".BTF"])
    except (struct_error, ValueError) as error:
        raise ObjectError(f"BPF object is damaged: .BTF.ext: {error}") from error


def _read(ext: bytes, btf: bytes) -> dict[str, list[tuple[int, int]]]:
    magic, _, _, header, _, _, at, size = unpack_from("<HBBIIIII", ext)
    if magic != _MAGIC:
        raise ValueError("wrong magic number")
    names = unpack_from("<I", btf, 4)[0] + unpack_from("<I", btf, 16)[0]
    at, end = header + at, header + at + size
    (record,) = unpack_from("<I", ext, at) if size else (0,)
    at += 4
    found: dict[str, list[tuple[int, int]]] = {}
    while at < end:
        name, count = unpack_from("<II", ext, at)
        at += 8
        start = names + name
        section = btf[start : btf.index(b"\0", start)].decode()
        lines = found.setdefault(section, [])
        for offset, _, _, line in iter_unpack(
            f"<IIII{record - 16}x", ext[at : at + count * record]
        ):
            lines.append((offset, line >> _LINE_SHIFT))
        at += count * record
    return found


def program_lines(obj: BpfObject, program: LinkedProgram) -> list[tuple[int, int]]:
    """(index of an instruction, line) of a linked program, ascending: a line counts up to the next.

    :raises ObjectError: the sections that say it are damaged.
    """
    lines = object_lines(obj)
    symbols = {symbol.name: symbol for symbol in obj.symbols if symbol.section and symbol.name}
    found = {}
    for function in program.functions:
        symbol = symbols[function.name]
        for offset, line in lines.get(obj.sections[symbol.section].name, ()):
            inside = offset - symbol.value
            if 0 <= inside < symbol.size:
                found[function.insn + inside // 8] = line
    return sorted(found.items())
