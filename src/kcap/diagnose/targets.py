# SPDX-License-Identifier: Apache-2.0
"""What a kprobe's functions are as targets of fentry and fexit: found by the probe types' own
look-up, so that what they refuse is refused here with the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf import render
from kcap.diagnose.rewrite import SameType, Value
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Edit, ScriptError
from kcap.probes import problems
from kcap.probes.names import enumerate_words, has_wildcard
from kcap.probes.registry import probe_type
from kcap.probes.renames import successors
from kcap.records import dataclass
from kcap.words import plural

if TYPE_CHECKING:
    from kcap.btf import Btf
    from kcap.lang.source import Span
    from kcap.probes.btf_targets import BtfTarget
    from kcap.probes.system import System

SUCCESSOR = {"kprobe": "fentry", "kretprobe": "fexit", "tracepoint": "rawtracepoint"}
"""The typed probe type that stands where the untyped one does."""

_SHOWN = 3
"""How many functions a message names."""


class Refusal(Exception):
    """Why there is no safe rewrite.

    :param reason: the end of a sentence.
    :param span: the place that stands in the way.
    """

    def __init__(
        self, reason: str, span: Span, notes: tuple[str, ...] = (), help: tuple[str, ...] = ()
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.span = span
        self.notes = notes
        self.help = help


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a probe stands for.

    :param name: its name on this kernel.
    :param renamed: the name in the script, where the function has another one here; then only
        the types of casts tell which argument is meant.
    """

    name: str
    btf: Btf
    proto: b.FuncProto
    renamed: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An attach point after the rewrite.

    :param edits: what changes in the attach point.
    :param functions: what it stands for.
    :param notes: what the user had better know.
    """

    edits: tuple[Edit, ...]
    functions: tuple[Function, ...]
    notes: tuple[str, ...] = ()


def full_name(point: ast.AttachPoint) -> str:
    """The full name of the attach point's probe type; '' if there is none such."""
    try:
        return probe_type(point.provider.text).name
    except KeyError:
        return ""


def typed_target(point: ast.AttachPoint, system: System) -> Target:
    """The attach point of a kprobe or kretprobe as one of fentry or fexit.

    One of fentry or fexit is taken as it is.

    :raises Refusal: it can't be one.
    """
    provider = full_name(point)
    wanted = SUCCESSOR.get(provider, provider)
    _check_form(point, wanted)
    edits = () if wanted == provider else (Edit(point.provider.span, wanted),)
    replaced = point.replace(provider=point.provider.replace(text=wanted))
    try:
        functions = _functions(replaced, system)
    except problems.NoMatchError as error:
        successor = _renamed(replaced, system)
        if successor is None:
            raise refused(error, point) from error
        rename, found, note = successor
        return Target((*edits, rename), tuple(found), (note,))
    except ScriptError as error:
        raise refused(error, point) from error
    if has_wildcard(point.text) and provider in SUCCESSOR:
        _check_complete(point, functions, system)
    return Target(edits, tuple(functions))


def _check_form(point: ast.AttachPoint, wanted: str) -> None:
    function = point.parts[-1].text if point.parts else ""
    last = point.parts[-1].span if point.parts else point.span
    if "+" in function:
        name, _, offset = function.partition("+")
        raise Refusal(
            f"{wanted} attaches to the entry of {name}, not to an instruction in it (+{offset})",
            last,
        )
    if function[:1].isdigit():
        raise Refusal(f"{wanted} attaches to functions by name, not to an address", last)


def _functions(point: ast.AttachPoint, system: System) -> list[Function]:
    """What fentry finds for the attach point.

    :raises ScriptError: what it says if there is nothing.
    """
    contexts = probe_type(point.provider.text).resolve(point, ("args", "probe"), system)
    targets: list[BtfTarget] = [t for context in contexts for t in context.targets]
    found = []
    for target in targets:
        btf = system.module_btf(target.module)
        function = btf.type(target.btf_id) if btf is not None else None
        if btf is not None and isinstance(function, b.Func):
            found.append(Function(target.name, btf, btf.prototype(function)))
    if not found:
        raise problems.no_match(point.provider.text, point.parts[-1].text, point.parts[-1].span)
    return found


def _check_complete(point: ast.AttachPoint, functions: list[Function], system: System) -> None:
    """A wildcard must not silently lose functions by the rewrite."""
    try:
        contexts = probe_type(point.provider.text).resolve(point, (), system)
    except ScriptError:  # the kprobe itself finds nothing to compare with
        return
    typed = {function.name for function in functions}
    lost = sorted({t.name for context in contexts for t in context.targets} - typed)
    if lost:
        raise Refusal(
            f"{len(lost)} of the functions that {point.parts[-1].text} stands for can't be traced "
            f"by {SUCCESSOR[full_name(point)]}: {_some(lost)}",
            point.parts[-1].span,
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _renamed(point: ast.AttachPoint, system: System) -> tuple[Edit, list[Function], str] | None:
    """The same attach point with the name that the function has on this kernel."""
    part = point.parts[-1]
    if has_wildcard(part.text):
        return None
    for name, note in successors(part.text):
        other = point.replace(parts=[*point.parts[:-1], part.replace(text=name)])
        try:
            found = _functions(other, system)
        except ScriptError:  # not on this kernel either
            continue
        renamed = [Function(f.name, f.btf, f.proto, part.text) for f in found]
        return Edit(part.span, name), renamed, f"{part.text} → {name}: {note}"
    return None


def refused(error: ScriptError, point: ast.AttachPoint) -> Refusal:
    """The refusal that says what a probe type's look-up says."""
    first = next((d for d in error.diagnostics if d.severity == "error"), error.diagnostics[0])
    reason = first.title.rstrip(".")
    return Refusal(reason[:1].lower() + reason[1:] if reason.startswith("No ") else reason,
                   first.span or point.span, first.notes, first.help)  # fmt: skip


def argument(
    node: ast.Identifier,
    index: int,
    cast: ast.TypeNode | None,
    functions: list[Function],
    same: SameType,
) -> Value:
    """What ``argN`` is as a named argument.

    :param index: N.
    :param cast: the type that the script casts it to here, or None.
    :param functions: all that the probe stands for.
    :raises Refusal: it is beyond the arguments, has no name, or the functions disagree.
    """
    values = [_argument_of(node, index, cast, function, same) for function in functions]
    first = values[0]
    for value, function in zip(values, functions, strict=True):
        if value.text != first.text or _type_text(value) != _type_text(first):
            raise Refusal(
                f"{node.name} is `{_described(first)}` in {functions[0].name}, and "
                f"`{_described(value)}` in {function.name}",
                node.span,
            )
    return first


def _argument_of(
    node: ast.Identifier, index: int, cast: ast.TypeNode | None, function: Function, same: SameType
) -> Value:
    params = function.proto.params
    if function.renamed:
        return _by_type(node, cast, function, same)
    if index >= len(params):
        raise Refusal(
            f"{function.name} has {plural(len(params), 'argument')}, so {node.name} is "
            "none of them",
            node.span,
            (f"BTF: {signature(function)}",),
        )
    for param in params[: index + 1]:
        if isinstance(b.resolve(function.btf, param.type_id), b.Composite):
            raise Refusal(
                f"{function.name} takes the struct {param.name} by value, so that {node.name} may "
                "be a part of it",
                node.span,
            )
    param = params[index]
    if not param.name:
        raise Refusal(f"BTF does not name {node.name} of {function.name}", node.span)
    return Value(f"args.{param.name}", function.btf, param.type_id)


def _by_type(
    node: ast.Identifier, cast: ast.TypeNode | None, function: Function, same: SameType
) -> Value:
    """The argument of a function that took the place of another: the only one of the type that
    the script casts to."""
    about = f"{function.renamed} is {function.name} here, whose arguments differ"
    if cast is None:
        raise Refusal(
            f"{about}: which one {node.name} was can't be told without a cast", node.span,
            (f"BTF: {signature(function)}",),
        )  # fmt: skip
    fitting = [p for p in function.proto.params if same(cast, function.btf, p.type_id)]
    if len(fitting) != 1 or not fitting[0].name:
        which = enumerate_words([p.name for p in fitting], "and") if fitting else "none"
        raise Refusal(
            f"{about}: of type `{cast.span.text}` are {which}", node.span,
            (f"BTF: {signature(function)}",),
        )  # fmt: skip
    return Value(f"args.{fitting[0].name}", function.btf, fitting[0].type_id)


def returned(node: ast.Identifier, functions: list[Function]) -> Value:
    """What ``retval`` is.

    :raises Refusal: a function returns nothing, or they disagree.
    """
    values = [Value("retval", f.btf, f.proto.return_type_id) for f in functions]
    for value, function in zip(values, functions, strict=True):
        if isinstance(b.resolve(value.btf, value.type_id), b.Void):
            raise Refusal(f"{function.name} returns nothing", node.span)
        if _type_text(value) != _type_text(values[0]):
            raise Refusal(
                f"{functions[0].name} returns `{_type_text(values[0])}`, and {function.name} "
                f"`{_type_text(value)}`",
                node.span,
            )
    return values[0]


def _type_text(value: Value) -> str:
    return render.type_name(value.btf, value.type_id)


def _described(value: Value) -> str:
    return render.declaration(value.btf, value.type_id, value.text.removeprefix("args."))


def signature(function: Function) -> str:
    """The prototype as C."""
    return render.declaration(function.btf, function.proto.id, function.name)


def refusal_diagnostic(what: str, refusal: Refusal) -> Diagnostic:
    """A refusal for the user.

    :param what: what can't be done: ``kprobe:f can't be rewritten as fentry``.
    """
    return Diagnostic(
        "no-safe-rewrite",
        "error",
        f"{what}: {refusal.reason}",
        refusal.span,
        "in the way of the rewrite",
        notes=refusal.notes,
        help=refusal.help,
    )
