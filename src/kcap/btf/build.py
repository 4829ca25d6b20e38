# SPDX-License-Identifier: Apache-2.0
"""Writing BTF: the little that loading a program needs, and frozen types for tests.

The kernel wants func_info (``struct bpf_func_info``: where each function begins, and its type)
for a program that has callbacks (bpf_for_each_map_elem, bpf_loop), and func_info needs a BTF
object that holds those functions. A prototype ``int f(void)`` satisfies the verifier for static
functions, whose arguments it takes from the call (check_btf_func in kernel/bpf/verifier.c).
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from kcap.btf import parse
from kcap.btf import types as t

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KIND_FLAG = 1 << 31
_MOST_LINE, _MOST_COLUMN = (1 << 22) - 1, (1 << 10) - 1  # what fits into line_col


class BtfBuilder:
    """Collects types and writes them as BTF. Each method adds one type and returns its id.

    :param first_id: the first type's id: the base's ``end_id`` for split BTF.
    :param first_string: the first string's offset: the base's ``end_string`` for split BTF.
    """

    def __init__(self, first_id: int = 1, first_string: int = 0) -> None:
        self._first = self._next = first_id
        self._records: list[bytes] = []
        self._first_string = first_string
        self._strings = bytearray(b"\0" if first_string == 0 else b"")
        self._offsets: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        """Offset of a string, which is added if it is new."""
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._offsets[text] = self._first_string + len(self._strings)
            self._strings += text.encode("utf-8", "replace") + b"\0"
        return offset

    def _add(self, kind: int, name: str, vlen: int, last: int, extra: Iterable[int] = ()) -> int:
        words = [self.string(name), kind << 24 | vlen, last, *(e & 0xFFFFFFFF for e in extra)]
        self._records.append(pack(f"<{len(words)}I", *words))
        self._next += 1
        return self._next - 1

    def integer(self, name: str, size: int, encoding: int = 0) -> int:
        """An integer of ``size`` bytes; encoding: INT_SIGNED, INT_CHAR, INT_BOOL."""
        return self._add(t.Int.KIND, name, 0, size, [encoding << 24 | size * 8])

    def pointer(self, type_id: int) -> int:
        """A pointer."""
        return self._add(t.Ptr.KIND, "", 0, type_id)

    def array(self, type_id: int, index_type_id: int, length: int) -> int:
        """An array."""
        return self._add(t.Array.KIND, "", 0, 0, [type_id, index_type_id, length])

    def struct(self, name: str, size: int, members: Sequence[t.Member]) -> int:
        """A struct of ``size`` bytes."""
        return self._composite(t.Struct.KIND, name, size, members)

    def union(self, name: str, size: int, members: Sequence[t.Member]) -> int:
        """A union of ``size`` bytes."""
        return self._composite(t.Union.KIND, name, size, members)

    def reserve(self) -> int:
        """An id for a type that is still to be written: what it contains may point to it."""
        self._records.append(b"")
        self._next += 1
        return self._next - 1

    def write(self, reserved: int, written: int) -> None:
        """Make a type that was just written the one of a reserved id.

        :param reserved: an id of :meth:`reserve`.
        :param written: the id of the last type that was written; it is free again.
        """
        self._next -= 1
        assert written == self._next, "only the last type can take a reserved id"
        self._records[reserved - self._first] = self._records.pop()

    def _composite(self, kind: int, name: str, size: int, members: Sequence[t.Member]) -> int:
        flag = any(m.bitfield_size for m in members)
        extra = []
        for m in members:
            offset = m.bitfield_size << 24 | m.bit_offset if flag else m.bit_offset
            extra += [self.string(m.name), m.type_id, offset]
        vlen = len(members) | (_KIND_FLAG if flag else 0)
        return self._add(kind, name, vlen, size, extra)

    def enum(
        self, name: str, values: Sequence[tuple[str, int]], size: int = 4, signed: bool = False
    ) -> int:
        """An enumeration; ENUM64 if size is 8."""
        flag = _KIND_FLAG if signed else 0
        extra: list[int] = []
        for constant, value in values:
            extra += [self.string(constant), value]
            if size == 8:
                extra.append(value >> 32)
        kind = t.Enum64.KIND if size == 8 else t.Enum.KIND
        return self._add(kind, name, len(values) | flag, size, extra)

    def forward(self, name: str, is_union: bool = False) -> int:
        """A forward declaration of a struct or union."""
        return self._add(t.Fwd.KIND, name, _KIND_FLAG if is_union else 0, 0)

    def modifier(self, kind: type[t.Type], type_id: int, name: str = "") -> int:
        """A Const, Volatile, Restrict, Typedef (with its name) or TypeTag (with its tag)."""
        return self._add(kind.KIND, name, 0, type_id)

    def func_proto(self, return_type_id: int, params: Sequence[t.Param] = ()) -> int:
        """A prototype; a last ``Param("", 0)`` makes it variadic."""
        extra: list[int] = []
        for p in params:
            extra += [self.string(p.name), p.type_id]
        return self._add(t.FuncProto.KIND, "", len(params), return_type_id, extra)

    def func(self, name: str, proto_id: int, linkage: int = t.STATIC) -> int:
        """A function with a prototype."""
        return self._add(t.Func.KIND, name, linkage, proto_id)

    def var(self, name: str, type_id: int, linkage: int = t.STATIC) -> int:
        """A global variable."""
        return self._add(t.Var.KIND, name, 0, type_id, [linkage])

    def datasec(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """A data section; variables are (id of the Var, offset, size)."""
        extra = [word for variable in variables for word in variable]
        return self._add(t.Datasec.KIND, name, len(variables), size, extra)

    def floating(self, name: str, size: int) -> int:
        """A floating-point type."""
        return self._add(t.Float.KIND, name, 0, size)

    def decl_tag(self, tag: str, type_id: int, component: int = -1) -> int:
        """A tag on a declaration."""
        return self._add(t.DeclTag.KIND, tag, 0, type_id, [component])

    def to_bytes(self) -> bytes:
        """The BTF blob."""
        types = b"".join(self._records)
        return (
            pack(
                parse.HEADER,
                parse.MAGIC,
                1,
                0,
                parse.HEADER_SIZE,
                0,
                len(types),
                len(types),
                len(self._strings),
            )
            + types
            + bytes(self._strings)
        )


_MOST_ARGUMENTS = 5  # of a function of BPF


def functions_btf(
    names: Sequence[str], builder: BtfBuilder | None = None
) -> tuple[bytes, list[int]]:
    """The BTF that func_info of these functions needs.

    :param names: C identifiers, the program's own first.
    :param builder: one that holds strings already (those of line_info).
    :return: (the blob to load, the id of each function in the order given).
    """
    builder = builder or BtfBuilder()
    result = builder.integer("int", 4, t.INT_SIGNED)
    # Who traces a program (fentry:bpf) has its arguments kept by what stands here: the context of a
    # program, the most that there can be of a callback.
    program = builder.func_proto(result, [t.Param("ctx", builder.pointer(0))])
    callback = program
    if len(names) > 1:
        word = builder.integer("long", 8, t.INT_SIGNED)
        # The kernel wants names for them (btf_func_check of kernel/bpf/btf.c).
        params = [t.Param(f"arg{index}", word) for index in range(_MOST_ARGUMENTS)]
        callback = builder.func_proto(result, params)
    protos = [program, *[callback] * len(names)]
    ids = [builder.func(n, proto, t.STATIC) for n, proto in zip(names, protos, strict=False)]
    return builder.to_bytes(), ids


def func_info(functions: Iterable[tuple[int, int]]) -> bytes:
    """func_info records (``struct bpf_func_info``, 8 bytes each).

    :param functions: (index of the function's first instruction, id of its Func), ascending.
    """
    return b"".join(pack("<II", insn, type_id) for insn, type_id in functions)


def line_info(
    lines: Iterable[tuple[int, str, str, int, int]], functions: Iterable[int], builder: BtfBuilder
) -> bytes:
    """line_info records (``struct bpf_line_info``, 16 bytes each).

    The kernel wants one for the first instruction of every function (check_btf_line in
    kernel/bpf/verifier.c): where there is none, it is that of the next instruction that has one.

    :param lines: (index of the instruction, file, the line's text, its number and column, from
        1), ascending.
    :param functions: index of each function's first instruction, ascending.
    :param builder: takes the strings.
    """
    known = {insn: (file, text, line, column) for insn, file, text, line, column in lines}
    order = sorted(known)
    for start in functions:
        after = next((insn for insn in order if insn >= start), order[-1] if order else None)
        if after is not None:
            known.setdefault(start, known[after])
    records = []
    for insn, (file, text, line, column) in sorted(known.items()):
        where = min(line, _MOST_LINE) << 10 | min(column, _MOST_COLUMN)
        names = (builder.string(file), builder.string(text))
        records.append(pack("<IIII", insn, *names, where))
    return b"".join(records)
