# SPDX-License-Identifier: Apache-2.0
"""Types as scripts write them, and ``sizeof``, ``offsetof``, ``typeof``, ``typeinfo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.sema import tree
from kcap.sema.basictypes import BASIC_TYPES
from kcap.sema.conversion import literal_type
from kcap.sema.function import unstable_feature
from kcap.sema.places import offset_of
from kcap.sema.types import (
    BOOL,
    UINT64,
    UNRESOLVED,
    Array,
    Boolean,
    Buffer,
    Enum,
    Integer,
    Pointer,
    String,
    Struct,
    Tuple,
    Type,
    Void,
)
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from kcap.sema.errors import SemaError
    from kcap.sema.program import Analyzer


def resolve(a: Analyzer, node: ast.TypeNode) -> Type:
    """The type that a script means.

    ``string``, ``buffer`` and ``int8[]`` without a size have size 0: what is cast or assigned
    decides.

    :raises SemaError: there is no such type.
    """
    if isinstance(node, ast.NamedType):
        return _named(a, node)
    if isinstance(node, ast.TagType):
        return _tagged(a, node)
    if isinstance(node, ast.PointerType):
        return Pointer(_target(a, node.target), "unknown")
    if isinstance(node, ast.ArrayType):
        length = 0 if node.size is None else _length(a, node.size)
        return Array(resolve(a, node.element), length)
    assert isinstance(node, ast.TypeofType)
    return type_of(a, node.operand)


def _target(a: Analyzer, node: ast.TypeNode) -> Type:
    """What a pointer points to: a struct that nothing defines is all right until it is read."""
    if isinstance(node, ast.TagType) and node.kind != "enum":
        found = _find_tag(a, node)
        if found is None and a.types.btf is None and a.types.definitions is None:
            return Struct(node.kind, node.name, 0, "undefined", lambda _: None, lambda: ())
    return resolve(a, node)


def _length(a: Analyzer, node: ast.Expr) -> int:
    length = a.integer_literal(node, "the size of a type")
    if not 0 <= length < 1 << 31:
        raise a.fail("type-size", node.span, f"a type can't have the size {length}")
    return length


def _named(a: Analyzer, node: ast.NamedType) -> Type:
    name = " ".join(node.name.split())
    if name in ("string", "buffer"):
        size = _length(a, node.size) if node.size is not None else 0
        return String(size) if name == "string" else Buffer(size)
    found = a.types.named(name) or BASIC_TYPES.get(_c_words(name)) or _of_functions(a, name)
    if found is not None:
        return found
    near = nearest(name, [*a.types.names(), "string", "buffer"])
    raise a.fail(
        "unknown-type",
        node.span,
        f'Cannot resolve unknown type "{name}"',
        help=[f"did you mean {near[0]}?"] if near else (),
        edits=[Edit(node.span, near[0])] if near else (),
    )


def _of_functions(a: Analyzer, name: str) -> Type | None:
    """What a function returns that has a type of its own (``inet``)."""
    named = (function.named_type for function in a.functions.values())
    return next((found[1] for found in named if found is not None and found[0] == name), None)


def _c_words(name: str) -> str:
    """C's integer types in one spelling: ``long unsigned int`` is ``unsigned long``."""
    words = name.split()
    unsigned = "unsigned" in words
    rest = [word for word in words if word not in ("unsigned", "signed", "int")]
    base = " ".join(rest) or "int"
    return f"unsigned {base}" if unsigned else base


def _tagged(a: Analyzer, node: ast.TagType) -> Type:
    found = _find_tag(a, node)
    if found is not None:
        return found
    raise _unknown_tag(a, node)


def _find_tag(a: Analyzer, node: ast.TagType) -> Type | None:
    if node.kind == "enum":
        return a.types.enum(node.name)
    return a.types.struct(node.name) if node.kind == "struct" else a.types.union(node.name)


def _unknown_tag(a: Analyzer, node: ast.TagType) -> SemaError:
    similar = a.types.similar_tags(node.kind, node.name)
    notes = []
    if a.types.btf is None:
        notes = ["the kernel has no BTF here, so only types defined in the script are known"]
    return a.fail(
        "unknown-type",
        node.span,
        f'Cannot resolve unknown type "{node.kind} {node.name}"',
        notes=notes,
        help=[f"did you mean {node.kind} {similar[0]}?"] if similar else (),
        edits=[Edit(node.span, f"{node.kind} {similar[0]}")] if similar else (),
    )


def type_of(a: Analyzer, operand: ast.TypeNode | ast.Expr) -> Type:
    """The type of a type or an expression; nothing of the expression is evaluated.

    ``typeof(@m)`` of a map with keys is the type of its key.
    """
    if isinstance(operand, ast.NamedType) and _is_value(a, operand):
        operand = ast.Identifier(operand.span, operand.name)
    if isinstance(operand, ast.TypeNode):
        return resolve(a, operand)
    if isinstance(operand, ast.Typeof):
        return type_of(a, operand.operand)
    with a.unevaluated():
        if isinstance(operand, ast.Map):
            facts = a.maps.of(operand.name)
            facts.mentioned = True
            if facts.keyed is not False:
                key = facts.map.key if facts.map.key is not None else UNRESOLVED
                return a.known(key, operand.span, operand.name)
        return a.rvalue(operand).type


def _is_value(a: Analyzer, node: ast.NamedType) -> bool:
    """Whether a bare name is no type but a constant or a builtin."""
    if node.size is not None or node.name in BASIC_TYPES or a.types.named(node.name) is not None:
        return False
    known = node.name in a.functions or a.defines.expression(node.name) is not None
    return known or a.types.constant(node.name) is not None


def sizeof(a: Analyzer, node: ast.Sizeof) -> tree.Expr:
    """``sizeof(type or expression)``, a literal."""
    size = type_of(a, node.operand).size
    return tree.IntegerLiteral(node.span, literal_type(size), size)


def offsetof(a: Analyzer, node: ast.Offsetof) -> tree.Expr:
    """``offsetof(type or expression, a.b)``, a literal."""
    type_ = type_of(a, node.operand)
    while isinstance(type_, Pointer):
        type_ = type_.target
    offset = offset_of(a, type_, node.fields)
    return tree.IntegerLiteral(node.span, literal_type(offset), offset)


def typeinfo(a: Analyzer, node: ast.Typeinfo) -> tree.Expr:
    """``typeinfo(x)``: the record (btf_id, base_type, full_type), all literals."""
    unstable_feature(a, node.span, "typeinfo", "unstable_typeinfo")
    type_ = type_of(a, node.operand)
    texts = [base_name(type_).encode(), str(type_).encode()]
    elements: list[tree.Expr] = [tree.IntegerLiteral(node.span, UINT64, 0)]
    elements += [tree.StringLiteral(node.span, String(len(t) + 1), t) for t in texts]
    types = tuple(element.type for element in elements)
    record = Tuple(types, ("btf_id", "base_type", "full_type"))
    return tree.TupleExpr(node.span, record, elements)


_BASE_NAMES: tuple[tuple[type[Type], str], ...] = (
    (Integer, "int"),
    (Enum, "int"),
    (Boolean, "bool"),
    (String, "string"),
    (Buffer, "buffer"),
    (Pointer, "pointer"),
    (Array, "array"),
    (Struct, "c_type"),
    (Void, "void"),
)


def base_name(type_: Type) -> str:
    """``base_type`` of ``typeinfo``: the kind of type."""
    if isinstance(type_, Tuple):
        return "tuple" if type_.names is None else "record"
    for kind, name in _BASE_NAMES:
        if isinstance(type_, kind):
            return name
    return str(type_)


def boolean(node: ast.Boolean) -> tree.Expr:
    """``true`` or ``false``."""
    return tree.IntegerLiteral(node.span, BOOL, int(node.value))
