# SPDX-License-Identifier: Apache-2.0
"""From the 32-bit words of a type record to its dataclass.

The format is in the kernel's Documentation/bpf/btf.rst and include/uapi/linux/btf.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.btf import types as t
from kcap.btf.errors import BtfError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAGIC = 0xEB9F
HEADER = "<HBBIIIII"
"""magic, version, flags, hdr_len, type_off, type_len, str_off, str_len."""
HEADER_SIZE = 24

# Words behind the three every record starts with: (fixed number, number per vlen), by kind.
_EXTRA: tuple[tuple[int, int], ...] = (
    (0, 0),  # void: has no record
    (1, 0),  # int
    (0, 0),  # ptr
    (3, 0),  # array
    (0, 3),  # struct
    (0, 3),  # union
    (0, 2),  # enum
    (0, 0),  # fwd
    (0, 0),  # typedef
    (0, 0),  # volatile
    (0, 0),  # const
    (0, 0),  # restrict
    (0, 0),  # func
    (0, 2),  # func_proto
    (1, 0),  # var
    (0, 3),  # datasec
    (0, 0),  # float
    (1, 0),  # decl_tag
    (0, 0),  # type_tag
    (0, 3),  # enum64
)

# 16 bits are what the format defines. The 8 above them were "unused" and zero for as long as the
# kind had its place, so that reading 24 costs nothing and takes kernels that widen the count.
VLEN_MASK = 0xFFFFFF


def kind_of(info: int) -> int:
    """The kind number in an ``info`` word."""
    return info >> 24 & 0x1F


class RecordLengths(dict[int, int]):
    """Number of words of a record, by its ``info`` word; filled as words are seen.

    There are few different ``info`` words among many records, so that the walk over all records
    is one dictionary look-up a record.
    """

    def __missing__(self, info: int) -> int:
        kind = kind_of(info)
        if not 1 <= kind < len(_EXTRA):
            raise BtfError(
                f"BTF has a type of kind {kind}, which is not known",
                hint="this kernel is newer than this release of kcap: update kcap",
            )
        fixed, per = _EXTRA[kind]
        length = self[info] = 3 + fixed + per * (info & VLEN_MASK)
        return length


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def parse(words: Sequence[int], pos: int, type_id: int, name: Callable[[int], str]) -> t.Type:
    """Parse one record.

    :param words: the type section as 32-bit words.
    :param pos: index of the record's first word.
    :param type_id: the id the type gets.
    :param name: gives the string at an offset.
    """
    info = words[pos + 1]
    builder = _BUILDERS[kind_of(info)]
    return builder(words, pos, info, type_id, name)


if TYPE_CHECKING:
    Name = Callable[[int], str]
    Words = Sequence[int]


def _int(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    data = w[p + 3]
    return t.Int(i, name(w[p]), w[p + 2], data >> 24 & 0xF, data & 0xFF, data >> 16 & 0xFF)


def _array(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Array(i, "", w[p + 3], w[p + 4], w[p + 5])


def _members(w: Words, p: int, info: int, name: Name) -> tuple[t.Member, ...]:
    first, last = p + 3, p + 3 + 3 * (info & VLEN_MASK)
    if info >> 31:  # kind flag: the offset word carries the bit-field's size in its top byte
        return tuple(
            t.Member(name(w[m]), w[m + 1], w[m + 2] & 0xFFFFFF, w[m + 2] >> 24)
            for m in range(first, last, 3)
        )
    return tuple(t.Member(name(w[m]), w[m + 1], w[m + 2]) for m in range(first, last, 3))


def _struct(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Struct(i, name(w[p]), w[p + 2], _members(w, p, info, name))


def _union(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Union(i, name(w[p]), w[p + 2], _members(w, p, info, name))


def _enum(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    # Values as signed here; Btf makes them unsigned where the BTF is known to tell the two apart.
    values = tuple(
        (name(w[e]), _signed(w[e + 1])) for e in range(p + 3, p + 3 + 2 * (info & VLEN_MASK), 2)
    )
    return t.Enum(i, name(w[p]), w[p + 2], bool(info >> 31), values)


def _enum64(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    signed = bool(info >> 31)
    values = []
    for e in range(p + 3, p + 3 + 3 * (info & VLEN_MASK), 3):
        value = w[e + 1] | w[e + 2] << 32
        if signed and value >> 63:
            value -= 1 << 64
        values.append((name(w[e]), value))
    return t.Enum64(i, name(w[p]), w[p + 2], signed, tuple(values))


def _fwd(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Fwd(i, name(w[p]), bool(info >> 31))


def _func(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Func(i, name(w[p]), w[p + 2], info & VLEN_MASK)


def _func_proto(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    count = info & VLEN_MASK
    params = [t.Param(name(w[a]), w[a + 1]) for a in range(p + 3, p + 3 + 2 * count, 2)]
    # A last parameter without name and type is "..." (btf.rst, 2.2.13).
    variadic = bool(params) and params[-1].type_id == 0 and not params[-1].name
    if variadic:
        params.pop()
    return t.FuncProto(i, "", w[p + 2], tuple(params), variadic)


def _var(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Var(i, name(w[p]), w[p + 2], w[p + 3])


def _datasec(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    first, last = p + 3, p + 3 + 3 * (info & VLEN_MASK)
    variables = tuple((w[v], w[v + 1], w[v + 2]) for v in range(first, last, 3))
    return t.Datasec(i, name(w[p]), w[p + 2], variables)


def _float(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.Float(i, name(w[p]), w[p + 2])


def _decl_tag(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.DeclTag(i, name(w[p]), w[p + 2], _signed(w[p + 3]))


def _type_tag(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
    return t.TypeTag(i, name(w[p]), w[p + 2], bool(info >> 31))


def _referring(cls: Callable[[int, str, int], t.Type]) -> Callable[..., t.Type]:
    def build(w: Words, p: int, info: int, i: int, name: Name) -> t.Type:
        return cls(i, name(w[p]), w[p + 2])

    return build


_BUILDERS: dict[int, Callable[..., t.Type]] = {
    t.Int.KIND: _int,
    t.Ptr.KIND: _referring(t.Ptr),
    t.Array.KIND: _array,
    t.Struct.KIND: _struct,
    t.Union.KIND: _union,
    t.Enum.KIND: _enum,
    t.Fwd.KIND: _fwd,
    t.Typedef.KIND: _referring(t.Typedef),
    t.Volatile.KIND: _referring(t.Volatile),
    t.Const.KIND: _referring(t.Const),
    t.Restrict.KIND: _referring(t.Restrict),
    t.Func.KIND: _func,
    t.FuncProto.KIND: _func_proto,
    t.Var.KIND: _var,
    t.Datasec.KIND: _datasec,
    t.Float.KIND: _float,
    t.DeclTag.KIND: _decl_tag,
    t.TypeTag.KIND: _type_tag,
    t.Enum64.KIND: _enum64,
}
