# SPDX-License-Identifier: Apache-2.0
"""Map variables: their keys, values, declarations, and how they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.records import dataclass, field
from kcap.sema import tree
from kcap.sema.conversion import identical, promote
from kcap.sema.errors import SemaError, sema_error
from kcap.sema.types import INT8, UNRESOLVED, Aggregate, Type, Unresolved, Void

if TYPE_CHECKING:
    from kcap.lang.diagnostic import Diagnostics
    from kcap.lang.source import Span
    from kcap.sema.config import Config

KINDS = ("hash", "lruhash", "percpuhash", "percpulruhash")
"""Kinds of BPF maps that a declaration may ask for."""


@dataclass(slots=True, eq=False)
class MapFacts:
    """What is known of a map from one pass to the next.

    :param map: what the typed tree refers to; key and value are filled in as they become known.
    :param keyed: whether its elements have keys; None until it is read or written.
    :param used_at: the place that decided on ``keyed``.
    :param mentioned: whether a probe names it, if only as a whole (``clear(@x)``).
    :param broken: what was assigned to it was wrong, so that little is known of it.
    :param pending: what is assigned to it has a type that is not known yet.
    """

    map: tree.Map
    keyed: bool | None = None
    used_at: Span | None = None
    key_at: Span | None = None
    value_at: Span | None = None
    mentioned: bool = False
    mention_at: Span | None = None
    broken: bool = False
    pending: bool = False


@dataclass(slots=True)
class MapTable:
    """The maps of a script.

    :ivar changed: whether a type changed since it was last set to False.
    """

    max_entries: int
    facts: dict[str, MapFacts] = field(default_factory=dict)
    declarations: dict[str, ast.MapDeclaration] = field(default_factory=dict)
    changed: bool = False

    def of(self, name: str) -> MapFacts:
        """The facts of a map, made when it is first mentioned."""
        found = self.facts.get(name)
        if found is None:
            map_ = tree.Map(name, None, UNRESOLVED, "", self.max_entries)
            found = self.facts[name] = MapFacts(map_)
        return found

    def use(self, name: str, keyed: bool, span: Span) -> MapFacts:
        """Note a read or write of an element, with or without a key.

        :raises SemaError: the map was used the other way before.
        """
        facts = self.of(name)
        if facts.keyed is None:
            facts.keyed, facts.used_at = keyed, span
        elif facts.keyed != keyed:
            raise _mixed_use(name, keyed, span, facts)
        return facts

    def set_key(self, facts: MapFacts, type_: Type, span: Span) -> Type:
        """Note that the map is used with a key of ``type_``; the type of its keys after it.

        :raises SemaError: its keys have another type.
        """
        current = facts.map.key if facts.map.key is not None else UNRESOLVED
        if isinstance(type_, Aggregate | Void):
            raise sema_error("invalid-key", span, f"Value '{type_}' cannot be used as a map key.")
        promoted = promote(current, type_)
        if promoted is None:
            raise sema_error(
                "key-mismatch",
                span,
                f"Argument mismatch for {facts.map.name}: trying to access with arguments: "
                f"'{type_}' when map expects arguments: '{current}'",
                label=f"this is '{type_}'",
                labels=_first(facts.key_at, span, f"keys became '{current}' here"),
                help=["all keys of a map have one type: use another map for these"],
            )
        if not identical(current, promoted):
            facts.map.key = promoted
            self.changed = True
        facts.key_at = facts.key_at or span
        return promoted

    def set_value(self, facts: MapFacts, type_: Type, span: Span) -> Type:
        """Note that something of ``type_`` is assigned; the type of the map's values after it.

        :raises SemaError: its values have another type, or can't have this one.
        """
        current = facts.map.value
        promoted = promote(current, type_)
        if promoted is None or isinstance(type_, Aggregate) != isinstance(promoted, Aggregate):
            raise sema_error(
                "type-mismatch",
                span,
                f"Type mismatch for {facts.map.name}: trying to assign value of type '{type_}' "
                f"when map already has a type '{current}'",
                label=f"this is '{type_}'",
                labels=_first(facts.value_at, span, f"{facts.map.name} became '{current}' here"),
                help=["all values of a map have one type: use another map for these"],
            )
        if not identical(current, promoted):
            facts.map.value = promoted
            self.changed = True
        facts.value_at = facts.value_at or span
        return promoted

    def give_defaults(self) -> None:
        """Take maps that are read, or only counted up, for integers that start at zero.

        What is assigned to others may follow from these, so they wait while there are such maps.
        """
        unknown = [
            facts
            for facts in self.facts.values()
            if facts.keyed is not None
            and not facts.broken
            and isinstance(facts.map.value, Unresolved)
        ]
        for facts in [facts for facts in unknown if not facts.pending] or unknown:
            facts.map.value = INT8
            self.changed = True

    def declare(self, declarations: list[ast.MapDeclaration], diagnostics: Diagnostics) -> None:
        """Take the ``let @m = kind(n);`` declarations of a script."""
        for declaration in declarations:
            try:
                self._declare(declaration)
            except SemaError as error:
                diagnostics.add(error.diagnostic)

    def _declare(self, declaration: ast.MapDeclaration) -> None:
        name, kind = declaration.map.name, declaration.kind
        earlier = self.declarations.get(name)
        if earlier is not None:
            raise sema_error(
                "map-redeclared",
                declaration.map.span,
                f"Map {name} is declared twice",
                labels=[(earlier.map.span, "first declared here")],
            )
        if kind.text not in KINDS:
            raise sema_error(
                "unknown-map-kind",
                kind.span,
                f"Invalid bpf map type: {kind.text}",
                help=[f"valid map types: {', '.join(KINDS)}"],
            )
        map_ = self.of(name).map
        map_.kind = kind.text
        map_.max_entries = _declared_entries(declaration)
        self.declarations[name] = declaration

    def check(self, config: Config, diagnostics: Diagnostics) -> None:
        """What can be said of declarations when all types are known."""
        for name, facts in self.facts.items():
            if facts.keyed is None and facts.mention_at is not None:
                diagnostics.error(
                    "undefined-map",
                    f"Undefined map: {name}",
                    facts.mention_at,
                    label="nothing is ever put into it",
                )
        for name, declaration in self.declarations.items():
            facts = self.facts[name]
            if facts.keyed is None and not facts.mentioned:
                diagnostics.warning("unused-map", f"Unused map: {name}", declaration.map.span)
                del self.facts[name]
            elif isinstance(facts.map.value, Aggregate) and not facts.map.kind.startswith("percpu"):
                diagnostics.error(
                    "map-kind",
                    f"Incompatible map types. Type from declaration: {facts.map.kind}. "
                    "Type from value/key type: percpuhash",
                    declaration.kind.span,
                    notes=[f"{facts.map.value} keeps one value for each CPU"],
                )


def _declared_entries(declaration: ast.MapDeclaration) -> int:
    arguments = declaration.arguments
    if len(arguments) != 1:
        raise sema_error(
            "map-entries",
            declaration.span,
            "Map declarations take one argument: the most entries that the map holds",
            help=[f"let {declaration.map.name} = {declaration.kind.text}(100);"],
        )
    entries = arguments[0]
    if not isinstance(entries, ast.Integer) or not 0 < entries.value < 1 << 32:
        raise sema_error(
            "map-entries",
            entries.span,
            "The number of entries of a map has to be a positive integer literal",
        )
    return entries.value


def _first(at: Span | None, span: Span, text: str) -> list[tuple[Span, str]]:
    return [(at, text)] if at is not None and at != span else []


def _mixed_use(name: str, keyed: bool, span: Span, facts: MapFacts) -> SemaError:
    if keyed:
        title = (
            f"{name} used as a map with an explicit key (non-scalar map), previously used "
            "without an explicit key (scalar map)"
        )
    else:
        title = (
            f"{name} used as a map without an explicit key (scalar map), previously used with "
            "an explicit key (non-scalar map)"
        )
    before = "used without a key here" if keyed else "used with a key here"
    labels = _first(facts.used_at, span, before)
    help_ = ["a map has keys wherever it is used or nowhere: use another map for these"]
    return sema_error("map-key-use", span, title, labels=labels, help=help_)
