# SPDX-License-Identifier: Apache-2.0
"""Explaining why the kernel takes no map with keys of some size."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kcap.codegen import map_specs
from kcap.lang.diagnostic import Diagnostic, Label, ScriptError
from kcap.sema import tree
from kcap.sema.types import Buffer, String, Tuple, Type

if TYPE_CHECKING:
    from kcap.errors import KcapError
    from kcap.kernel.errors import SyscallError
    from kcap.kernel.spec import MapSpec
    from kcap.lang.source import Span

#: The longest key of a hash map in Linux 5.10 (MAX_BPF_STACK, kernel/bpf/hashtab.c).
LONGEST_KEY = 512
#: Parts of a key from this size on are pointed out, in bytes.
_LARGE = 64


def map_refused(error: SyscallError, spec: MapSpec, script: tree.Script) -> KcapError:
    """What to say of a map that the kernel refused: which part of its key makes it too long, or
    the error itself where that is not the reason."""
    if error.errno != errno.E2BIG or spec.key_size <= LONGEST_KEY:
        return error
    for map_ in script.maps.values():
        if map_specs.symbol(map_.name) == spec.name and map_.key is not None:
            return ScriptError([_too_long(map_, spec.key_size, script)])
    return error


def _too_long(map_: tree.Map, size: int, script: tree.Script) -> Diagnostic:
    span, parts = _key(map_, script)
    large = [(at, type_) for at, type_ in parts if type_.size >= _LARGE]
    help_ = [
        f"this kernel takes keys of up to {LONGEST_KEY} bytes, Linux 5.12 and later longer ones"
    ]
    if any(isinstance(type_, String | Buffer) for _, type_ in large):
        help_ += [
            "take fewer bytes of a string: str(POINTER, 64)",
            "or of all strings: config = { max_strlen = 64 }, or BPFTRACE_MAX_STRLEN=64",
        ]
    return Diagnostic(
        "map-key-too-long",
        "error",
        f"the keys of {map_.name} are too long for this kernel: {size} bytes",
        span,
        label=f"of type {map_.key}",
        labels=tuple(Label(at, f"{type_.size} bytes") for at, type_ in large if at != span),
        help=tuple(help_),
    )


def _key(map_: tree.Map, script: tree.Script) -> tuple[Span | None, list[tuple[Span, Type]]]:
    """Where the map's longest key stands, and its parts with their types in the map."""
    assert map_.key is not None
    found: list[tree.Expr] = []
    for program in script.programs:
        for node in tree.walk([program.predicate, *program.body]):
            key = getattr(node, "key", None)
            if getattr(node, "map", None) is map_ and isinstance(key, tree.Expr):
                found.append(key)
    if not found:
        return None, []
    key = max(found, key=lambda expr: _written(expr).type.size)
    written = _written(key)
    if isinstance(map_.key, Tuple) and isinstance(written, tree.TupleExpr):
        types = map_.key.elements
        return key.span, [(e.span, t) for e, t in zip(written.elements, types, strict=True)]
    return key.span, [(key.span, map_.key)]


def _written(expr: tree.Expr) -> tree.Expr:
    """An expression without the conversion to the type of the map's keys."""
    while isinstance(expr, tree.Cast):
        expr = expr.operand
    return expr
