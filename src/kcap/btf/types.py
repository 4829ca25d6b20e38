# SPDX-License-Identifier: Apache-2.0
"""The kinds of BTF types as dataclasses.

One class a kind, named as in the kernel's ``include/uapi/linux/btf.h`` without the prefix. Types
refer to each other by id (``type_id``), never by object: a type is parsed only when somebody asks
for it. Ids are those of the BTF the type came from; 0 is ``void``.
"""

from __future__ import annotations

from typing import ClassVar

from kcap.records import dataclass

INT_SIGNED = 1
INT_CHAR = 2
INT_BOOL = 4

STATIC, GLOBAL, EXTERN = 0, 1, 2
"""Linkage of a Func or Var (enum btf_func_linkage)."""


@dataclass(slots=True, eq=False)
class Type:
    """What all types have.

    :param id: the type's id in its BTF.
    :param name: its name; empty where it has none.
    """

    KIND: ClassVar[int] = -1

    id: int
    name: str


@dataclass(slots=True, eq=False)
class Void(Type):
    """``void``, id 0 in every BTF; it has no record of its own."""

    KIND: ClassVar[int] = 0


@dataclass(slots=True, eq=False)
class Int(Type):
    """An integer.

    :param size: bytes.
    :param encoding: bits INT_SIGNED, INT_CHAR, INT_BOOL.
    :param bits: the number of bits that count (smaller than 8 * size for old-style bit-fields).
    :param offset: where in the storage those bits start.
    """

    KIND: ClassVar[int] = 1

    size: int
    encoding: int
    bits: int
    offset: int = 0

    @property
    def signed(self) -> bool:
        """Whether the integer is signed."""
        return bool(self.encoding & INT_SIGNED)

    @property
    def is_bool(self) -> bool:
        """Whether this is C's ``_Bool``."""
        return bool(self.encoding & INT_BOOL)


@dataclass(slots=True, eq=False)
class Ptr(Type):
    """A pointer to ``type_id``."""

    KIND: ClassVar[int] = 2

    type_id: int


@dataclass(slots=True, eq=False)
class Array(Type):
    """An array of ``length`` elements of ``type_id``; ``index_type_id`` is the index's type."""

    KIND: ClassVar[int] = 3

    type_id: int
    index_type_id: int
    length: int


@dataclass(slots=True, eq=False)
class Member:
    """A member of a struct or union.

    :param name: empty for an anonymous struct or union.
    :param type_id: the member's type.
    :param bit_offset: from the start of the struct, in bits.
    :param bitfield_size: bits of a bit-field, 0 for an ordinary member.
    """

    name: str
    type_id: int
    bit_offset: int
    bitfield_size: int = 0

    @property
    def offset(self) -> int:
        """Offset in whole bytes (of the byte the first bit lies in)."""
        return self.bit_offset >> 3


@dataclass(slots=True, eq=False)
class Composite(Type):
    """What structs and unions have in common.

    :param size: bytes.
    :param members: in the order of declaration.
    """

    size: int
    members: tuple[Member, ...]


@dataclass(slots=True, eq=False)
class Struct(Composite):
    """A ``struct``."""

    KIND: ClassVar[int] = 4


@dataclass(slots=True, eq=False)
class Union(Composite):
    """A ``union``."""

    KIND: ClassVar[int] = 5


@dataclass(slots=True, eq=False)
class Enum(Type):
    """An enumeration.

    :param size: bytes of a value.
    :param signed: whether values are signed (the kind flag; kernels before 6.1 don't set it, and
        values are then taken as signed, as they always were).
    :param values: (name, value) in the order of declaration.
    """

    KIND: ClassVar[int] = 6

    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


@dataclass(slots=True, eq=False)
class Fwd(Type):
    """A forward declaration of a struct, or of a union if ``is_union``."""

    KIND: ClassVar[int] = 7

    is_union: bool


@dataclass(slots=True, eq=False)
class Typedef(Type):
    """A ``typedef`` of ``type_id``."""

    KIND: ClassVar[int] = 8

    type_id: int


@dataclass(slots=True, eq=False)
class Volatile(Type):
    """``volatile`` ``type_id``."""

    KIND: ClassVar[int] = 9

    type_id: int


@dataclass(slots=True, eq=False)
class Const(Type):
    """``const`` ``type_id``."""

    KIND: ClassVar[int] = 10

    type_id: int


@dataclass(slots=True, eq=False)
class Restrict(Type):
    """``restrict`` ``type_id``."""

    KIND: ClassVar[int] = 11

    type_id: int


@dataclass(slots=True, eq=False)
class Func(Type):
    """A function; ``type_id`` is its FuncProto, ``linkage`` STATIC, GLOBAL or EXTERN."""

    KIND: ClassVar[int] = 12

    type_id: int
    linkage: int


@dataclass(slots=True, eq=False)
class Param:
    """A parameter of a function; the name is empty where the prototype gives none."""

    name: str
    type_id: int


@dataclass(slots=True, eq=False)
class FuncProto(Type):
    """The prototype of a function.

    :param return_type_id: 0 is ``void``.
    :param params: parameters; ``...`` is not among them.
    :param variadic: whether the list ends in ``...``.
    """

    KIND: ClassVar[int] = 13

    return_type_id: int
    params: tuple[Param, ...]
    variadic: bool


@dataclass(slots=True, eq=False)
class Var(Type):
    """A global variable of ``type_id``; ``linkage`` STATIC, GLOBAL or EXTERN."""

    KIND: ClassVar[int] = 14

    type_id: int
    linkage: int


@dataclass(slots=True, eq=False)
class Datasec(Type):
    """A data section.

    :param size: bytes.
    :param variables: (id of the Var, offset in bytes, size in bytes).
    """

    KIND: ClassVar[int] = 15

    size: int
    variables: tuple[tuple[int, int, int], ...]


@dataclass(slots=True, eq=False)
class Float(Type):
    """A floating-point number of ``size`` bytes."""

    KIND: ClassVar[int] = 16

    size: int


@dataclass(slots=True, eq=False)
class DeclTag(Type):
    """A ``btf_decl_tag``: the name is the tag; on ``type_id``, or on its member or parameter
    number ``component`` unless that is -1."""

    KIND: ClassVar[int] = 17

    type_id: int
    component: int


@dataclass(slots=True, eq=False)
class TypeTag(Type):
    """A ``btf_type_tag`` such as ``user``, ``percpu`` or ``rcu`` (the name) on ``type_id``.

    :param is_attribute: the kind flag (6.15 and later): an ``__attribute__`` in general.
    """

    KIND: ClassVar[int] = 18

    type_id: int
    is_attribute: bool = False


@dataclass(slots=True, eq=False)
class Enum64(Enum):
    """An enumeration with 64-bit values."""

    KIND: ClassVar[int] = 19


MODIFIERS = (Volatile, Const, Restrict, TypeTag)
"""Kinds that qualify a type and change neither its size nor its layout."""
