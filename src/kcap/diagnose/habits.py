# SPDX-License-Identifier: Apache-2.0
"""Edits for what people write out of habit: as in C, as in a shell, in the wrong kind of probe.

Like :mod:`kcap.diagnose.suggestions`, by the code of the error; these rules look at little more
than the place itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Edit
from kcap.lang.source import Span
from kcap.records import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.diagnose.astquery import Tree
    from kcap.probes.system import System

C_TYPES = {
    "char": "int8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "uint": "uint32",
    "uchar": "uint8",
    "ushort": "uint16",
    "ulong": "uint64",
    "u_int": "uint32",
    "byte": "uint8",
    "i32": "int32",
    "i64": "int64",
    "uint32_t": "uint32",
    "uint64_t": "uint64",
}
_RETURNING = {"kprobe": "kretprobe", "k": "kretprobe", "uprobe": "uretprobe", "u": "uretprobe",
              "fentry": "fexit", "f": "fexit", "kfunc": "fexit"}  # fmt: skip
_ASSIGNED = re.compile(r"\(\s*[\w.\->]+\s*(=)(?!=)")
_LONE_PERCENT = re.compile(r"%(?=$|[\s\\\",.;:)])")
_FLOAT = re.compile(r"%[-+ 0-9.]*(?:l?[fgeE])")

_TEXTS = frozenset({"comm", "pcomm", "func", "probe", "str", "kstr", "ustr"})
"""Builtins and functions whose value is a text."""

Found = tuple[ast.Node, "Tree"] | None


def apply(diagnostic: Diagnostic, found: Found, system: System) -> Diagnostic | None:
    """The diagnostic with an edit, or None where there is nothing to say.

    :param found: the node that the diagnostic is about and the tree it stands in, if known.
    """
    if diagnostic.code == "attach-point-syntax" and diagnostic.span is not None:
        return _attach_point(diagnostic, diagnostic.span, system)
    rule = _RULES.get(diagnostic.code)
    if rule is None or diagnostic.span is None:
        return None
    return rule(diagnostic, diagnostic.span, found)


def _edit(diagnostic: Diagnostic, *edits: Edit, help: str = "") -> Diagnostic:
    return replace(diagnostic, edits=edits, help=(help,) if help else diagnostic.help)


def _part(span: Span, start: int, end: int) -> Span:
    return Span(span.source, span.start + start, span.start + end)


def _condition(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    match = _ASSIGNED.match(span.text)
    if match is None:
        return None
    title = "`=` does not compare"
    changed = _edit(diagnostic, Edit(_part(span, *match.span(1)), "=="), help="compare with `==`")
    return replace(changed, title=title, notes=(*diagnostic.notes, diagnostic.title))


def _function(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    if found is None or not isinstance(found[0], ast.Call) or found[0].name != "strcmp":
        return None
    call, tree = found
    assert isinstance(call, ast.Call)
    around = tree.parent(call)
    help_ = "strcmp() is C; in the language, == and != compare strings"
    if (
        len(call.arguments) != 2
        or not isinstance(around, ast.Binary)
        or around.op not in ("==", "!=")
        or around.right.span.text != "0"
    ):
        return replace(diagnostic, help=(help_,), edits=())
    left, right = (argument.span.text for argument in call.arguments)
    return _edit(diagnostic, Edit(around.span, f"{left} {around.op} {right}"), help=help_)


def _type(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    type_ = C_TYPES.get(span.text)
    return _edit(diagnostic, Edit(span, type_), help=f"write {type_}") if type_ else None


def _cast(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    match = re.match(r"\(((?:struct|union)\s+\w+)\)", span.text)
    if match is None:
        return None
    where = _part(span, match.end(1), match.end(1))
    return _edit(diagnostic, Edit(where, " *"), help=f"cast to a pointer: ({match[1]} *)")


def _aggregation(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    """``count`` without a call, or its result kept in a variable or nowhere."""
    if found is None:
        return None
    node, tree = found
    if isinstance(node, ast.Identifier):
        return _edit(diagnostic, Edit(span.at_end(), "()"), help=f"call it: {span.text}()")
    around = tree.parent(node)
    if isinstance(node, ast.ExprStatement) or isinstance(around, ast.ExprStatement):
        return _edit(diagnostic, Edit(span.at_start(), "@ = "))
    if not isinstance(around, ast.Assign) or not isinstance(around.target, ast.Variable):
        return None
    name = around.target.name
    places = [n.span for n in tree.nodes if isinstance(n, ast.Variable) and n.name == name]
    edits = [Edit(_part(place, 0, 1), "@") for place in places]
    return _edit(diagnostic, *edits, help="aggregations live in maps: use @ instead of $")


def _format(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    text = span.text.replace("%%", "..")
    lone = list(_LONE_PERCENT.finditer(text))
    if lone:
        edits = [Edit(_part(span, *match.span()), "%%") for match in lone]
        return _edit(diagnostic, *edits, help="write %% for a percent sign")
    floats = [Edit(_part(span, *match.span()), "%d") for match in _FLOAT.finditer(text)]
    return _edit(diagnostic, *floats, help="numbers are integers: use %d") if floats else None


def _probe(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    """``retval`` where nothing has been returned yet."""
    if found is None or span.text != "retval" or not isinstance(found[1].root, ast.Probe):
        return None
    tree, points = found[1], found[1].root.attach_points
    names = [n.name for n in tree.nodes if isinstance(n, ast.Identifier)]
    texts = [point.span.text for point in points]
    if all(re.match(r"(?:tracepoint|t):syscalls:sys_exit_\w+$", text) for text in texts):
        return _edit(diagnostic, Edit(span, "args.ret"), help="the field is called ret")
    if any(re.fullmatch(r"s?arg\d+|args", name) for name in names):
        return None
    kinds = [text.partition(":")[0] for text in texts]
    if not all(kind in _RETURNING for kind in kinds):
        return None
    edits = [
        Edit(_part(point.span, 0, len(kind)), _RETURNING[kind])
        for point, kind in zip(points, kinds, strict=True)
    ]
    return _edit(diagnostic, *edits)


def _attach_point(diagnostic: Diagnostic, span: Span, system: System) -> Diagnostic | None:
    text = span.source.text
    comma = Span(span.source, span.start, span.start + 1)
    if comma.text == "," and re.match(r",[A-Za-z_]\w*\s*[/{]", text[span.start :]):
        return _edit(diagnostic, Edit(comma, ":"), help="a colon stands behind the probe type")
    colon = Span(span.source, span.start - 1, span.start)
    if re.search(r"\b(begin|end|BEGIN|END):$", text[: span.start]) and not span.text:
        return _edit(diagnostic, Edit(colon, ""))
    parameter = re.match(r":?\$(\d+)", text[span.start :])
    if parameter is not None:
        help_ = f"${parameter[1]} is not given: parameters stand behind the script's name"
        return replace(diagnostic, help=(help_, *diagnostic.help))
    minutes = re.match(r"m:(\d+)", text[span.start :])
    if span.text == "m" and minutes is not None:
        where = _part(span, 0, minutes.end())
        return _edit(diagnostic, Edit(where, f"s:{60 * int(minutes[1])}"))
    event = re.search(r"(?:tracepoint|t):$", text[: span.start + 1]) and re.match(
        r":?(\w+)\s*[/{,]", text[span.start :]
    )
    if not event:
        return None
    categories = [name for name, events in system.events.items() if event[1] in events]
    if len(categories) != 1:
        return None
    where = _part(span, event.start(1), event.start(1))
    return _edit(diagnostic, Edit(where, f"{categories[0]}:"))


def _provider(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    """``kprobe:a,b`` for ``kprobe:a,kprobe:b``."""
    if diagnostic.edits or span.source.text[span.end : span.end + 1] == ":":
        return None
    before = re.search(r"(\w+):[^\s,:]+\s*,\s*$", span.source.text[: span.start])
    if before is None:
        return None
    help_ = f"each probe has its type: {before[1]}:{span.text}"
    return _edit(diagnostic, Edit(span.at_start(), f"{before[1]}:"), help=help_)


def _call(found: Found, name: str) -> ast.Call | None:
    """The call of a function that a node is, or that it is an argument of."""
    if found is None:
        return None
    for node in (found[0], found[1].parent(found[0])):
        if isinstance(node, ast.ExprStatement):
            node = node.expression
        if isinstance(node, ast.Call) and node.name == name:
            return node
    return None


def _swapped(diagnostic: Diagnostic, one: ast.Expr, other: ast.Expr) -> Diagnostic:
    edits = Edit(one.span, other.span.text), Edit(other.span, one.span.text)
    return _edit(diagnostic, *edits)


def _bounds(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    call = _call(found, "lhist")
    given = re.search(r"min (-?\d+) and max (-?\d+)", diagnostic.title)
    if call is None or len(call.arguments) != 4 or given is None or given[1] == given[2]:
        return None
    return _swapped(diagnostic, call.arguments[1], call.arguments[2])


def _element(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    """``clear(@a[k])``."""
    call, match = _call(found, "clear"), re.fullmatch(r"(@\w*)\[(.*)\]", span.text)
    if call is None or match is None:
        return None
    key = f"({match[2]})" if "," in match[2] else match[2]
    edits = Edit(call.name_span, "delete"), Edit(span, f"{match[1]}, {key}")
    return _edit(diagnostic, *edits, help="delete() takes one element away, clear() all of them")


def _arity(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    capture = _call(found, "skboutput")
    if capture is not None and len(capture.arguments) == 3:
        return _edit(diagnostic, Edit(capture.arguments[2].span.at_end(), ", 0"))
    call = _call(found, "strncmp")
    if call is None or len(call.arguments) != 2:
        return None
    text = call.arguments[1]
    if not isinstance(text, ast.String) or "\\" in text.span.text:
        return None
    return _edit(diagnostic, Edit(text.span.at_end(), f", {len(text.span.text) - 2}"))


def _format_first(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    call = _call(found, "strftime")
    if call is None or len(call.arguments) != 2 or not isinstance(call.arguments[1], ast.String):
        return None
    return _swapped(diagnostic, call.arguments[0], call.arguments[1])


def _text(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    if found is None or diagnostic.edits:
        return None
    call = _call(found, "printf") or _call(found, "print")
    if span.text.isupper():  # a constant that is not known here
        return None
    if (call is None or call.arguments[0] is not found[0]) and not _compared_to_text(*found):
        return None
    return _edit(
        diagnostic, Edit(span, f'"{span.text}"'), help="texts are written in double quotes"
    )


def _compared_to_text(node: ast.Node, tree: Tree) -> bool:
    around = tree.parent(node)
    if not isinstance(around, ast.Binary) or around.op not in ("==", "!="):
        return False
    other = around.left if around.right is node else around.right
    return isinstance(other, ast.Identifier | ast.Call) and other.name in _TEXTS


def _register(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    short = span.text.strip('"').removeprefix("r")
    if not any(re.search(rf"\b{re.escape(short)}\b", line) for line in diagnostic.help):
        return None
    return _edit(diagnostic, Edit(span, f'"{short}"'))


def _declared(diagnostic: Diagnostic, span: Span, found: Found) -> Diagnostic | None:
    before = re.search(r"\blet\s+$", span.source.text[: span.start])
    if before is None or not re.match(r"\s*=(?!=)", span.source.text[span.end :]):
        return None
    where = Span(span.source, before.start(), span.start)
    return _edit(diagnostic, Edit(where, ""), help="declare it once, then only assign to it")


_RULES: dict[str, Callable[[Diagnostic, Span, Found], Diagnostic | None]] = {
    "not-a-condition": _condition,
    "unknown-function": _function,
    "unknown-probe-type": _provider,
    "unknown-type": _type,
    "invalid-cast": _cast,
    "map-function": _aggregation,
    "format": _format,
    "not-in-this-probe": _probe,
    "argument-value": _bounds,
    "argument-type": _element,
    "arity": _arity,
    "not-a-string-literal": _format_first,
    "unknown-identifier": _text,
    "unknown-register": _register,
    "shadowing": _declared,
}
