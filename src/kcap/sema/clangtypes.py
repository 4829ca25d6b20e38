# SPDX-License-Identifier: Apache-2.0
"""The language's types for the C types that libclang found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kcap.sema.kerneltypes import StructKeyword, storage_unit
from kcap.sema.types import (
    BOOL,
    INT8,
    VOID,
    Array,
    Enum,
    Field,
    Integer,
    Pointer,
    Struct,
    Type,
)

if TYPE_CHECKING:
    from kcap.sema.kerneltypes import KernelTypes

_SIGNED = ("SHORT", "INT", "LONG", "LONGLONG")
_UNSIGNED = ("UCHAR", "USHORT", "UINT", "ULONG", "ULONGLONG")
_CHARS = ("CHAR_S", "CHAR_U", "SCHAR")


class ClangTypes:
    """What one translation unit defines (:class:`~kcap.sema.kerneltypes.CTypes`).

    :param unit: libclang's translation unit; kept, since types are converted when asked for.
    :param cindex: the module ``clang.cindex``.
    :param kernel: gives the types that ``prelude`` only stands in for.
    :param prelude: the name of the file whose types are not the script's own.
    """

    def __init__(self, unit: Any, cindex: Any, kernel: KernelTypes, prelude: str) -> None:
        self._unit = unit
        self._cindex = cindex
        self._kernel = kernel
        self._prelude = prelude
        self._tags: dict[str, Any] = {}
        self._typedefs: dict[str, Any] = {}
        self._constants: dict[str, tuple[Any, int]] = {}
        self._converted: dict[str, Type] = {}
        for cursor in unit.cursor.get_children():
            if not self._foreign(cursor):
                self._note(cursor)

    def _note(self, cursor: Any) -> None:
        kinds = self._cindex.CursorKind
        keyword = {kinds.STRUCT_DECL: "struct", kinds.UNION_DECL: "union", kinds.ENUM_DECL: "enum"}
        if cursor.kind in keyword and cursor.is_definition():
            self._tags[f"{keyword[cursor.kind]} {cursor.spelling}"] = cursor
        elif cursor.kind == kinds.TYPEDEF_DECL:
            self._typedefs[cursor.spelling] = cursor
        if cursor.kind == kinds.ENUM_DECL:
            for constant in cursor.get_children():
                if constant.kind == kinds.ENUM_CONSTANT_DECL:
                    self._constants[constant.spelling] = (cursor, constant.enum_value)

    def _foreign(self, cursor: Any) -> bool:
        file = cursor.location.file
        return file is None or file.name == self._prelude

    # Look-ups

    def tagged(self, keyword: str, name: str) -> Type | None:
        """The ``struct``, ``union`` or ``enum`` with a tag."""
        cursor = self._tags.get(f"{keyword} {name}")
        return self._convert(cursor.type) if cursor is not None else None

    def typedef(self, name: str) -> Type | None:
        """The type that a typedef names."""
        cursor = self._typedefs.get(name)
        return self._convert(cursor.underlying_typedef_type) if cursor is not None else None

    def constant(self, name: str) -> tuple[Type, int] | None:
        """The type and value of an enum constant."""
        found = self._constants.get(name)
        return (self._convert(found[0].type), found[1]) if found is not None else None

    def names(self) -> Iterable[str]:
        """Typedefs and enum constants."""
        return [*self._typedefs, *self._constants]

    def macros(self) -> Iterator[tuple[str, str]]:
        """Names and texts of the object-like macros of the headers that were read."""
        kind = self._cindex.CursorKind.MACRO_DEFINITION
        for cursor in self._unit.cursor.get_children():
            if cursor.kind != kind or self._foreign(cursor):
                continue
            tokens = list(cursor.get_tokens())
            if len(tokens) < 2 or (
                tokens[1].spelling == "("
                and tokens[1].extent.start.offset == tokens[0].extent.end.offset
            ):
                continue
            yield cursor.spelling, " ".join(token.spelling for token in tokens[1:])

    # Conversion

    def _convert(self, type_: Any) -> Type:
        key = type_.spelling
        kind = type_.kind.name
        anonymous = "(" in key or kind == "ELABORATED"
        found = None if anonymous else self._converted.get(key)
        if found is None:
            found = self._new(type_, kind)
            if not anonymous:
                self._converted[key] = found
        return found

    def _new(self, type_: Any, kind: str) -> Type:
        handler: Callable[[Any], Type] | None = getattr(self, f"_{kind.lower()}", None)
        if handler is not None:
            return handler(type_)
        if kind in _CHARS:
            return INT8
        if kind in _SIGNED or kind in _UNSIGNED:
            return Integer(type_.get_size(), kind in _SIGNED)
        return VOID  # floats, vectors; functions, void

    def _bool(self, type_: Any) -> Type:
        return BOOL

    def _elaborated(self, type_: Any) -> Type:
        return self._convert(type_.get_named_type())

    def _typedef(self, type_: Any) -> Type:
        declaration = type_.get_declaration()
        if self._foreign(declaration):
            found = self._kernel.named(declaration.spelling)
            if found is not None:
                return found
        return self._convert(declaration.underlying_typedef_type)

    def _pointer(self, type_: Any) -> Type:
        target = type_.get_pointee()
        if target.get_canonical().kind.name.startswith("FUNCTION"):
            return Pointer(VOID, "unknown")
        return Pointer(self._convert(target), "unknown")

    def _constantarray(self, type_: Any) -> Type:
        return Array(self._convert(type_.element_type), type_.element_count)

    def _incompletearray(self, type_: Any) -> Type:
        return Array(self._convert(type_.element_type), 0)

    def _enum(self, type_: Any) -> Type:
        cursor = type_.get_declaration()
        if self._foreign(cursor):
            return self._kernel.enum(cursor.spelling) or Integer(4, False)
        values: dict[int, str] = {}
        for constant in cursor.get_children():
            values.setdefault(constant.enum_value, constant.spelling)
        integer = self._convert(cursor.enum_type)
        assert isinstance(integer, Integer)
        name = "" if cursor.is_anonymous() else cursor.spelling
        return Enum(name, integer.bytes, integer.signed, values)

    def _record(self, type_: Any) -> Type:
        declaration = type_.get_declaration()
        union = declaration.kind == self._cindex.CursorKind.UNION_DECL
        name = "" if declaration.is_anonymous() else declaration.spelling
        definition = declaration.get_definition()
        if definition is None or self._foreign(definition):
            found = self._kernel.union(name) if union else self._kernel.struct(name)
            if found is not None:
                return found
        keyword: StructKeyword = "union" if union else "struct"
        if definition is None:
            return Struct(keyword, name, 0, "declared", lambda _: None, lambda: ())
        fields = _Fields(self, definition)
        origin = ("definition", definition.location.offset)
        return Struct(keyword, name, definition.type.get_size(), origin, fields.find, fields.all)


class _Fields:
    """The fields of a struct, converted when first asked for."""

    def __init__(self, types: ClangTypes, definition: Any) -> None:
        self._types = types
        self._definition = definition
        self._found: dict[str, Field] | None = None

    def find(self, name: str) -> Field | None:
        """The field of a name, looked for in anonymous members too."""
        return self._fields().get(name)

    def all(self) -> tuple[Field, ...]:
        """Every field in order."""
        return tuple(self._fields().values())

    def _fields(self) -> dict[str, Field]:
        if self._found is None:
            size = self._definition.type.get_size()
            members = self._members(self._definition, 0, False)
            self._found = {m[0].spelling: self._field(*m, size) for m in members}
        return self._found

    def _members(self, record: Any, base: int, in_union: bool) -> Iterator[tuple[Any, int, bool]]:
        in_union = in_union or record.kind.name == "UNION_DECL"
        for member in record.type.get_fields():
            offset = base + member.get_field_offsetof()
            inner = member.type.get_canonical().get_declaration()
            if inner.is_anonymous() and (not member.spelling or "(" in member.spelling):
                yield from self._members(inner.get_definition(), offset, in_union)
            elif member.spelling:
                yield member, offset, in_union

    def _field(self, member: Any, bit_offset: int, in_union: bool, limit: int) -> Field:
        type_ = self._types._convert(member.type)
        name = member.spelling
        if not member.is_bitfield():
            return Field(name, bit_offset // 8, type_, in_union=in_union)
        bits = member.get_bitfield_width()
        offset = storage_unit(bit_offset, bits, type_.size, limit)
        return Field(name, offset, type_, bit_offset - 8 * offset, bits, in_union=in_union)
