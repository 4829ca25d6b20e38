# SPDX-License-Identifier: Apache-2.0
"""Named types and constants: those of the script's C definitions, of the kernel's BTF, and C's own.

Types are converted from BTF when somebody asks for them, each once; the fields of a struct when
one of them is looked up. So types that refer to each other are no problem, and a script pays for
what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from kcap.btf import types as b
from kcap.btf.layout import resolve, size_of, strip_modifiers, type_tags
from kcap.sema.basictypes import BASIC_TYPES
from kcap.sema.types import (
    BOOL,
    INT8,
    UINT64,
    VOID,
    Array,
    Enum,
    Field,
    Integer,
    Pointer,
    Space,
    Struct,
    Type,
)

if TYPE_CHECKING:
    from kcap.btf.btf import Btf

StructKeyword = Literal["struct", "union"]


class CTypes(Protocol):
    """Types and constants that C definitions of the script or its headers give."""

    def tagged(self, keyword: str, name: str) -> Type | None:
        """The ``struct``, ``union`` or ``enum`` (``keyword``) with a tag."""
        ...

    def typedef(self, name: str) -> Type | None:
        """The type that a typedef names."""
        ...

    def constant(self, name: str) -> tuple[Type, int] | None:
        """The type and value of an enum constant."""
        ...

    def names(self) -> Iterable[str]:
        """Every name that it knows, for suggestions."""
        ...


class KernelTypes:
    """What type names and constants mean for one script.

    :param btf: the kernel's BTF, or what gives it when it is first needed; None when there is none
        (basic names only).
    :param modules: gives the BTF of modules to look in for what the kernel's lacks; called at most
        once, and only when a look-up fails.
    :param definitions: the script's own C definitions; they win over BTF.
    """

    def __init__(
        self,
        btf: Btf | Callable[[], Btf | None] | None = None,
        modules: Callable[[], Iterable[Btf]] | None = None,
        definitions: CTypes | None = None,
    ) -> None:
        self._btf = btf
        self.definitions = definitions
        self._modules = modules
        self._loaded: list[Btf] | None = None
        # By the BTF itself, not by its id(): that of a BPF program's, given back, may be another's.
        self._converted: dict[tuple[Btf, int], Type] = {}

    @property
    def btf(self) -> Btf | None:
        """The kernel's BTF, read when it is first asked for, or None."""
        if callable(self._btf):
            self._btf = self._btf()
        return self._btf

    def with_definitions(self, definitions: CTypes) -> KernelTypes:
        """The same with C definitions, which win over BTF."""
        found = KernelTypes(self._btf, self._modules, definitions)
        found._loaded, found._converted = self._loaded, self._converted
        return found

    # Look-ups by name

    def struct(self, name: str) -> Struct | None:
        """``struct name``, or None."""
        return self._composite("struct", name)

    def union(self, name: str) -> Struct | None:
        """``union name``, or None."""
        return self._composite("union", name)

    def _composite(self, keyword: StructKeyword, name: str) -> Struct | None:
        if self.definitions is not None:
            defined = self.definitions.tagged(keyword, name)
            if isinstance(defined, Struct):
                return defined
        kind = b.Struct if keyword == "struct" else b.Union
        for btf in self._btfs():
            found = btf.find(name, kind)
            if found is not None:
                converted = self.from_btf(btf, found.id)
                assert isinstance(converted, Struct)
                return converted
        return None

    def enum(self, name: str) -> Enum | None:
        """``enum name``, or None."""
        if self.definitions is not None:
            defined = self.definitions.tagged("enum", name)
            if isinstance(defined, Enum):
                return defined
        for btf in self._btfs():
            found = btf.find(name, b.Enum)
            if found is not None and found.values:
                converted = self.from_btf(btf, found.id)
                assert isinstance(converted, Enum)
                return converted
        return None

    def named(self, name: str) -> Type | None:
        """What a bare type name means: C's and the kernel's basic names, then typedefs.

        A name that is only the tag of a struct (``(task_struct *)``) is taken too, as in bpftrace.
        """
        found = BASIC_TYPES.get(name)
        if found is None:
            found = self._typedef(name)
        if found is None:
            found = self.struct(name) or self.union(name) or self.enum(name)
        return found

    def _typedef(self, name: str) -> Type | None:
        if self.definitions is not None:
            defined = self.definitions.typedef(name)
            if defined is not None:
                return defined
        for btf in self._btfs():
            found = btf.find(name, b.Typedef)
            if found is not None:
                return self.from_btf(btf, found.id)
        return None

    def constant(self, name: str) -> tuple[Type, int] | None:
        """The type (an Enum, or an Integer) and value of a constant, or None.

        Looked for in the C definitions, in the enums of BTF, and among the constants of the
        kernel's user-space headers that come with kcap.
        """
        if self.definitions is not None:
            defined = self.definitions.constant(name)
            if defined is not None:
                return defined
        for btf in self._btfs():
            found = btf.enum_value(name)
            if found is not None:
                return self.from_btf(btf, found[0].id), found[1]
        from kcap.sema.constants import uapi_constant

        return uapi_constant(name)

    def names(self) -> Iterable[str]:
        """Type names for suggestions: basic names and those of the C definitions."""
        yield from BASIC_TYPES
        if self.definitions is not None:
            yield from self.definitions.names()

    def similar_tags(self, keyword: str, name: str) -> list[str]:
        """Tags of the kernel's structs, unions or enums that look like ``name``."""
        from kcap.symbols.nearest import nearest

        kinds = {"struct": b.Struct, "union": b.Union, "enum": b.Enum}
        if self.btf is None:
            return []
        return nearest(name, self.btf.names(kinds[keyword]))

    def _btfs(self) -> Iterator[Btf]:
        if self.btf is None:
            return
        yield self.btf
        if self._loaded is None:
            self._loaded = list(self._modules()) if self._modules is not None else []
        yield from self._loaded

    # Conversion

    def from_btf(self, btf: Btf, type_id: int) -> Type:
        """The language's type for a BTF type; qualifiers and typedefs vanish.

        Pointers are of space 'user' where a type tag says so, else 'unknown': reading one takes
        the space of where it stands. Types that the language has no word for (floats, 128-bit
        integers) become arrays of their size; functions become void.

        :param btf: what ``type_id`` counts in.
        :raises BtfError: there is no such type.
        """
        key = (btf, type_id)
        found = self._converted.get(key)
        if found is None:
            found = self._converted[key] = self._convert(btf, type_id)
        return found

    def _convert(self, btf: Btf, type_id: int) -> Type:
        found = resolve(btf, type_id)
        if isinstance(found, b.Int):
            return _integer(found)
        if isinstance(found, b.Ptr):
            return self._pointer(btf, found)
        if isinstance(found, b.Composite):
            return self._struct(btf, found)
        if isinstance(found, b.Array):
            return Array(self.from_btf(btf, found.type_id), found.length)
        if isinstance(found, b.Enum):
            return _enum(found)
        if isinstance(found, b.Float):
            return VOID
        if isinstance(found, b.Fwd):
            return self._forward(btf, found)
        return VOID

    def _pointer(self, btf: Btf, pointer: b.Ptr) -> Type:
        space: Space = "user" if "user" in type_tags(btf, pointer.type_id) else "unknown"
        target = resolve(btf, pointer.type_id)
        if isinstance(target, b.FuncProto):
            return Pointer(VOID, space)
        return Pointer(self.from_btf(btf, pointer.type_id), space)

    def _forward(self, btf: Btf, forward: b.Fwd) -> Type:
        """A struct that this BTF only declares: the full type from another one if there is."""
        keyword: StructKeyword = "union" if forward.is_union else "struct"
        kind = b.Union if forward.is_union else b.Struct
        for other in self._btfs():
            found = other.find(forward.name, kind) if other is not btf else None
            if found is not None:
                return self.from_btf(other, found.id)
        return Struct(keyword, forward.name, 0, (btf.name, forward.id), lambda _: None, lambda: ())

    def _struct(self, btf: Btf, composite: b.Composite) -> Struct:
        keyword: StructKeyword = "union" if isinstance(composite, b.Union) else "struct"
        origin = (btf.name, composite.id)
        fields = _LazyFields(self, btf, composite)
        return Struct(keyword, composite.name, composite.size, origin, fields.find, fields.all)

    def arguments(self, btf: Btf, proto: b.FuncProto, origin: object, name: str = "") -> Struct:
        """The parameters of a function as the ``args`` of a BPF tracing program.

        Each takes one 8-byte slot of the context, a struct passed by value as many as it needs
        (kernel: ``btf_ctx_access`` in kernel/bpf/btf.c). Parameters without a name are ``argN``.

        :param origin: what tells this from other functions' arguments.
        """
        found: list[Field] = []
        offset = 0
        for index, param in enumerate(proto.params):
            type_ = self.from_btf(btf, param.type_id)
            slot = max(8, (type_.size + 7) // 8 * 8)
            found.append(Field(param.name or f"arg{index}", offset, type_, slot=slot))
            offset += slot
        return struct_of("args", name, offset, origin, tuple(found))


def struct_of(
    keyword: Literal["struct", "union", "args"],
    name: str,
    size: int,
    origin: object,
    fields: tuple[Field, ...],
) -> Struct:
    """A struct with known fields.

    :param size: bytes.
    :param origin: see :class:`~kcap.sema.types.Struct`.
    """
    by_name = {field.name: field for field in fields}
    return Struct(keyword, name, size, origin, by_name.get, lambda: fields)


def _integer(found: b.Int) -> Type:
    if found.is_bool:
        return BOOL
    if found.name == "char":  # unsigned from 6.2 on (-funsigned-char), but still text
        return INT8
    if found.size == 16:
        return Array(UINT64, 2)
    return Integer(found.size, found.signed)


def _enum(found: b.Enum) -> Enum:
    values: dict[int, str] = {}
    for name, value in found.values:
        values.setdefault(value, name)
    return Enum(found.name, found.size, found.signed, values)


class _LazyFields:
    """The fields of a BTF struct or union, converted when first asked for."""

    __slots__ = ("_all", "btf", "composite", "found", "types")

    def __init__(self, types: KernelTypes, btf: Btf, composite: b.Composite) -> None:
        self.types = types
        self.btf = btf
        self.composite = composite
        self.found: dict[str, Field | None] = {}
        self._all: tuple[Field, ...] | None = None

    def find(self, name: str) -> Field | None:
        """The field of a name, looked for in anonymous members too."""
        if name not in self.found:
            members = self._members(self.composite, 0, False)
            member = next((m for m in members if m[0].name == name), None)
            self.found[name] = None if member is None else self._field(*member)
        return self.found[name]

    def all(self) -> tuple[Field, ...]:
        """Every field in order, those of anonymous members in their place."""
        if self._all is None:
            members = self._members(self.composite, 0, False)
            self._all = tuple(self._field(*member) for member in members)
        return self._all

    def _members(
        self, composite: b.Composite, base: int, in_union: bool
    ) -> Iterator[tuple[b.Member, int, bool]]:
        """(member, bit offset from the outermost struct, whether a union is around it)."""
        in_union = in_union or isinstance(composite, b.Union)
        for member in composite.members:
            if member.name:
                yield member, base + member.bit_offset, in_union
                continue
            inner = strip_modifiers(self.btf, member.type_id)
            if isinstance(inner, b.Composite):
                yield from self._members(inner, base + member.bit_offset, in_union)

    def _field(self, member: b.Member, bit_offset: int, in_union: bool) -> Field:
        type_ = self.types.from_btf(self.btf, member.type_id)
        bits = member.bitfield_size
        if not bits:
            raw = resolve(self.btf, member.type_id)
            if isinstance(raw, b.Int) and raw.bits < 8 * raw.size and not raw.is_bool:
                bits = raw.bits  # the older encoding of bit-fields, without the kind flag
                bit_offset += raw.offset
        if not bits:
            return Field(member.name, bit_offset // 8, type_, in_union=in_union)
        size = size_of(self.btf, member.type_id)
        offset = storage_unit(bit_offset, bits, size, self.composite.size)
        shift = bit_offset - 8 * offset
        return Field(member.name, offset, type_, shift, bits, in_union=in_union)


def storage_unit(bit_offset: int, bits: int, size: int, limit: int) -> int:
    """The byte offset from which ``size`` bytes hold all bits of a bit-field.

    The aligned unit if it holds them and lies inside the struct (``limit`` bytes), as compilers
    do; else the byte where the field starts, moved down if the struct ends before.
    """
    unit = bit_offset // (8 * size) * size
    if bit_offset + bits <= 8 * (unit + size) and unit + size <= limit:
        return unit
    return max(0, min(bit_offset // 8, limit - size))
