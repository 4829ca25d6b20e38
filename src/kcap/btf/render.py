# SPDX-License-Identifier: Apache-2.0
"""BTF types written as C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.btf import types as t

if TYPE_CHECKING:
    from kcap.btf.btf import Btf

_QUALIFIERS: dict[type[t.Type], str] = {
    t.Const: "const",
    t.Volatile: "volatile",
    t.Restrict: "restrict",
}
_INDENT = "\t"  # as libbpf's btf_dump, which bpftrace prints with


def declaration(btf: Btf, type_id: int, name: str = "") -> str:
    """A type and the name it declares, such as ``struct sk_buff *skb`` or ``int (*fn)(void)``.

    :param name: the identifier; empty for the type alone.
    """
    return _declare(btf, type_id, name, None)


def type_name(btf: Btf, type_id: int) -> str:
    """A type alone, such as ``struct sk_buff *`` or ``const char *``."""
    return _declare(btf, type_id, "", None)


def parameter(btf: Btf, param: t.Param) -> str:
    """A parameter as ``bpftrace -lv`` prints arguments: ``struct sk_buff * skb``."""
    return f"{type_name(btf, param.type_id)} {param.name}".rstrip()


def layout(btf: Btf, composite: t.Type) -> str:
    """A struct, union or enum as C, in the form ``bpftrace -lv 'struct x'`` prints.

    :param composite: a Composite or an Enum.
    :return: lines without a final newline; the last is ``};``.
    """
    return _body(btf, composite, 0) + ";"


def signature(btf: Btf, function: t.Func) -> str:
    """A function's prototype as C: ``int ip_rcv(struct sk_buff *skb, ...)``."""
    return declaration(btf, function.type_id, function.name)


def _declare(btf: Btf, type_id: int, inner: str, indent: int | None) -> str:
    """Wrap ``inner`` (a declarator) in the type, inside out, as C's grammar wants it.

    :param indent: depth at which bodies of unnamed structs are written, or None for ``{...}``.
    """
    found = btf.type(type_id)
    if isinstance(found, t.Ptr):
        return _pointer(btf, found, inner, indent)
    if isinstance(found, t.Array):
        return _declare(btf, found.type_id, f"{inner}[{found.length}]", indent)
    if isinstance(found, t.FuncProto):
        params = [declaration(btf, p.type_id, p.name) for p in found.params]
        if found.variadic:
            params.append("...")
        text = f"{inner}({', '.join(params) or 'void'})"
        return _declare(btf, found.return_type_id, text, indent)
    if isinstance(found, t.Const | t.Volatile | t.Restrict):
        return _qualified(btf, found, inner, indent)
    if isinstance(found, t.TypeTag):
        return _declare(btf, found.type_id, inner, indent)
    base = _base_name(btf, found, indent)
    if not inner or inner.startswith("["):
        return base + inner
    return f"{base} {inner}"


def _pointer(btf: Btf, pointer: t.Ptr, inner: str, indent: int | None) -> str:
    target = btf.type(pointer.type_id)
    while isinstance(target, t.TypeTag):
        target = btf.type(target.type_id)
    if isinstance(target, t.FuncProto | t.Array):
        return _declare(btf, target.id, f"(*{inner})", indent)
    return _declare(btf, pointer.type_id, f"*{inner}", indent)


def _qualified(
    btf: Btf, found: t.Const | t.Volatile | t.Restrict, inner: str, indent: int | None
) -> str:
    word = _QUALIFIERS[type(found)]
    target = btf.type(found.type_id)
    if isinstance(target, t.Ptr):  # the pointer itself is const: "char *const p"
        text = f"{word} {inner}" if inner and not inner.startswith("[") else word + inner
        return _declare(btf, found.type_id, text, indent)
    return f"{word} {_declare(btf, found.type_id, inner, indent)}"


def _base_name(btf: Btf, found: t.Type, indent: int | None) -> str:
    if isinstance(found, t.Fwd):
        return f"{'union' if found.is_union else 'struct'} {found.name}"
    keyword = _keyword(found)
    if not keyword:
        return found.name
    if found.name:
        return f"{keyword} {found.name}"
    if indent is None:
        return f"{keyword} {{...}}"
    return _body(btf, found, indent)


def _keyword(found: t.Type) -> str:
    if isinstance(found, t.Struct):
        return "struct"
    if isinstance(found, t.Union):
        return "union"
    return "enum" if isinstance(found, t.Enum) else ""


def _body(btf: Btf, found: t.Type, depth: int) -> str:
    margin = _INDENT * depth
    lines = [f"{_keyword(found)} {found.name}".rstrip() + " {"]
    if isinstance(found, t.Enum):
        lines += [f"{margin}{_INDENT}{name} = {value}," for name, value in found.values]
    elif isinstance(found, t.Composite):
        for member in found.members:
            text = _declare(btf, member.type_id, member.name, depth + 1)
            bits = f": {member.bitfield_size}" if member.bitfield_size else ""
            lines.append(f"{margin}{_INDENT}{text}{bits};")
    lines.append(f"{margin}}}")
    return "\n".join(lines)
