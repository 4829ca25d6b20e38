# SPDX-License-Identifier: Apache-2.0
"""A tracepoint as a raw tracepoint: the same event, with the arguments that the kernel's code
passes instead of the fields that the tracepoint makes of them.

A field is only replaced by an argument where it is clear that both are the same: a pointer that
the script casts to the type of exactly one argument, a field ``NAMEaddr`` or ``NAME`` where an
argument is called ``NAME``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.diagnose.rewrite import SameType, Value
from kcap.diagnose.targets import Function, Refusal, Target, refused, signature
from kcap.lang import ast
from kcap.lang.diagnostic import Edit, ScriptError
from kcap.lang.source import Span
from kcap.probes.names import enumerate_words, has_wildcard
from kcap.probes.registry import probe_type

if TYPE_CHECKING:
    from kcap.probes.system import System

RAW = "rawtracepoint"


def raw_target(point: ast.AttachPoint, system: System) -> Target:
    """The attach point of a tracepoint as one of rawtracepoint.

    :raises Refusal: it can't be one.
    """
    if len(point.parts) != 2 or has_wildcard(point.text):
        raise Refusal(
            f"{RAW} names one event, without its category", point.parts[-1].span if point.parts
            else point.span,
        )  # fmt: skip
    category, event = point.parts
    replaced = point.replace(provider=point.provider.replace(text=RAW), parts=[event])
    try:
        contexts = probe_type(RAW).resolve(replaced, ("args", "probe"), system)
    except ScriptError as error:
        raise refused(error, point) from error
    found = []
    for target in (t for context in contexts for t in context.targets):
        btf = system.module_btf(target.module)
        proto = b.tracepoint_prototype(btf, target.name) if btf is not None else None
        if btf is not None and proto is not None:
            found.append(Function(target.name, btf, proto))
    if not found:
        raise Refusal(f"BTF does not have the arguments of {event.text}", event.span)
    source = point.span.source
    edits = (
        Edit(point.provider.span, RAW),
        Edit(Span(source, category.span.start, event.span.start), ""),
    )
    return Target(edits, tuple(found))


def is_field(node: ast.Node) -> bool:
    """Whether a node is ``args.NAME``."""
    return (
        isinstance(node, ast.FieldAccess)
        and isinstance(node.object, ast.Identifier)
        and node.object.name == "args"
    )


def field(
    node: ast.FieldAccess, cast: ast.TypeNode | None, functions: list[Function], same: SameType
) -> Value:
    """The argument that a tracepoint's field holds.

    :param cast: the type that the script casts it to here, or None.
    :param functions: the raw tracepoints.
    :raises Refusal: there is none, or the events disagree.
    """
    values = [_field_of(node, cast, function, same) for function in functions]
    if any(value.text != values[0].text for value in values):
        raise Refusal(f"{_shown(node)} is another argument in each of the events", node.span)
    return values[0]


def _field_of(
    node: ast.FieldAccess, cast: ast.TypeNode | None, function: Function, same: SameType
) -> Value:
    params = [p for p in function.proto.params if p.name]
    name = node.field.text
    found = [p for p in params if p.name == name or f"{p.name}addr" == name]
    if cast is not None and isinstance(cast, ast.PointerType):
        fitting = [p for p in params if same(cast, function.btf, p.type_id)]
        found = [p for p in found if p in fitting] or fitting
    if len(found) != 1:
        own = enumerate_words([f"args.{p.name}" for p in params], "and")
        raise Refusal(
            f"{_shown(node)} is made by the tracepoint, and {RAW}:{function.name} has only {own}",
            node.span,
            (f"BTF: {signature(function)}",),
        )
    type_id = found[0].type_id
    pointer = b.resolve(function.btf, type_id)
    plain = isinstance(pointer, b.Ptr) and isinstance(
        b.resolve(function.btf, pointer.type_id), b.Void
    )
    return Value(f"args.{found[0].name}", function.btf, type_id, "" if plain else "void *")


def _shown(node: ast.FieldAccess) -> str:
    return f"args.{node.field.text}"
