# SPDX-License-Identifier: Apache-2.0
"""Scratch variables and their scopes.

A variable lives in the block where it is declared (``let``) or first assigned, and in the blocks
inside it; none may be declared again there ("shadowing"). What a pass found out about its type is
kept for the next pass under the node that declares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kcap.records import dataclass, field
from kcap.sema import tree
from kcap.sema.conversion import identical, promote
from kcap.sema.errors import sema_error
from kcap.sema.types import UNRESOLVED, Type, Unresolved

if TYPE_CHECKING:
    from kcap.lang.source import Span

Origin = Literal["declaration", "assignment", "loop variable", "parameter"]


@dataclass(slots=True, eq=False)
class VariableFacts:
    """What is known of a variable from one pass to the next.

    :param type: so far; grows until it stays the same.
    :param typed_at: the place that gave it its type first.
    """

    type: Type = UNRESOLVED
    typed_at: Span | None = None


@dataclass(slots=True, eq=False)
class Local:
    """A variable in scope, in one pass.

    :param variable: what the typed tree refers to.
    :param span: where it was declared, first assigned, …
    :param origin: which of these.
    :param fixed: its type was declared and doesn't grow.
    :param named: the name of its declared type, where only the first value tells the type whole.
    :param assigned: whether it was assigned to so far.
    :param broken: what was assigned to it first was wrong, so that nothing is known of it.
    """

    variable: tree.Variable
    facts: VariableFacts
    span: Span
    origin: Origin
    fixed: bool = False
    named: str = ""
    assigned: bool = False
    broken: bool = False


@dataclass(slots=True)
class VariableTable:
    """The facts of all variables, for all passes.

    :ivar changed: whether a type changed since it was last set to False.
    """

    facts: dict[object, VariableFacts] = field(default_factory=dict)
    changed: bool = False

    def of(self, key: object) -> VariableFacts:
        """The facts under ``key``: what identifies the declaration, in one probe's program."""
        return self.facts.setdefault(key, VariableFacts())

    def grow(self, local: Local, type_: Type, span: Span) -> Type:
        """Note that something of ``type_`` is assigned; the variable's type after it.

        :raises SemaError: the two don't go together.
        """
        current = local.facts.type
        if local.fixed and not isinstance(current, Unresolved):
            return current
        promoted = promote(current, type_)
        if promoted is None:
            raise mismatch(local, type_, span)
        self.set(local, promoted, span)
        return promoted

    def set(self, local: Local, type_: Type, span: Span) -> None:
        """Make ``type_`` the variable's type."""
        if not identical(local.facts.type, type_):
            local.facts.type = type_
            self.changed = True
        if local.facts.typed_at is None:
            local.facts.typed_at = span
        local.variable.type = type_


def mismatch(local: Local, type_: Type, span: Span) -> Exception:
    """The error of assigning something of ``type_`` to a variable of another type."""
    name, current = local.variable.name, local.named or local.facts.type
    first = local.facts.typed_at or local.span
    return sema_error(
        "type-mismatch",
        span,
        f"Type mismatch for {name}: trying to assign value of type '{type_}' when variable "
        f"already has a type '{current}'",
        label=f"this is '{type_}'",
        labels=[(first, f"{name} became '{current}' here")] if first != span else (),
    )


class Scopes:
    """The variables in scope while one program is analysed."""

    def __init__(self) -> None:
        self.stack: list[dict[str, Local]] = []
        self.ended: dict[str, Local] = {}

    def push(self) -> None:
        """Enter a block."""
        self.stack.append({})

    def pop(self) -> list[Local]:
        """Leave a block; the variables that end with it."""
        ended = self.stack.pop()
        self.ended.update(ended)
        return list(ended.values())

    def find(self, name: str) -> Local | None:
        """The variable that a name means here."""
        for scope in reversed(self.stack):
            found = scope.get(name)
            if found is not None:
                return found
        return None

    def add(self, local: Local) -> None:
        """Declare a variable in the innermost block."""
        self.stack[-1][local.variable.name] = local

    def mark_assigned(self, name: str) -> None:
        """Note that a variable is assigned to, maybe through its address."""
        found = self.find(name)
        if found is not None:
            found.assigned = True

    def names(self) -> list[str]:
        """All names in scope."""
        return [name for scope in self.stack for name in scope]
