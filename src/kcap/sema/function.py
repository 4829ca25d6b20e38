# SPDX-License-Identifier: Apache-2.0
"""What semantic analysis asks of a builtin or function.

``functions/`` holds one class each; all of what kcap knows of it stands there. This is the part
of its interface that type checking needs; ``codegen/function.py`` adds emission.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Protocol

from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from kcap.lang import ast
    from kcap.lang.source import Span
    from kcap.sema import tree
    from kcap.sema.config import Config
    from kcap.sema.errors import ErrorDetails
    from kcap.sema.kerneltypes import KernelTypes
    from kcap.sema.parameters import NamedParameters
    from kcap.sema.probe import ProbeContext
    from kcap.sema.types import Type


@dataclass(frozen=True, slots=True)
class CallSite:
    """A use of a function or builtin in the syntax tree.

    :param name: as written.
    :param name_span: the name alone.
    :param span: the whole call.
    :param args: the arguments as written; empty for a bare builtin (``pid``).
    :param target: for ``@x[k] = count()``, the map (or its element) that is assigned to, else None.
    :param statement: whether the value is not used.
    """

    name: str
    name_span: Span
    span: Span
    args: list[ast.Expr]
    target: ast.Map | ast.MapAccess | None = None
    statement: bool = False


class Sema(Protocol):
    """What a function's check may ask of the analysis that calls it."""

    config: Config
    context: ProbeContext
    types: KernelTypes
    named: NamedParameters
    child_pid: int
    unwound_files: Callable[[], tuple[str, ...]] | None

    def expr(self, node: ast.Expr) -> tree.Expr:
        """The typed form of an expression."""
        ...

    def rvalue(self, node: ast.Expr) -> tree.Expr:
        """The same, with char arrays turned into strings and aggregates into their integer."""
        ...

    def convert(self, expr: tree.Expr, type_: Type, what: str) -> tree.Expr:
        """``expr`` converted to ``type_`` as an implicit conversion.

        :param what: what it is for, for the message: 'the length of skboutput()'.
        :raises SemaError: when there is no such conversion.
        """
        ...

    def string_literal(self, node: ast.Expr, what: str) -> str:
        """The text of a node that has to be a literal string."""
        ...

    def integer_literal(self, node: ast.Expr, what: str) -> int:
        """The value of a node that has to be a constant integer (after folding)."""
        ...

    def map_argument(self, node: ast.Expr, what: str) -> tuple[tree.Map, tree.Expr | None]:
        """The map that an argument names and the key, if it has one (``@x[1]``)."""
        ...

    def set_map_value(
        self, access: ast.Map | ast.MapAccess, type_: Type
    ) -> tuple[tree.Map, tree.Expr | None]:
        """Note that the map that ``access`` names has values of ``type_``; its map and key.

        :raises SemaError: when it has another type already.
        """
        ...

    def map_key(self, map_: tree.Map, node: ast.Expr) -> tree.Expr:
        """A key of a map, as the type of its keys, which this use may widen (``has_key``).

        :raises SemaError: when it does not go with the map's other keys.
        """
        ...

    def warn(self, code: str, span: Span, title: str, *, help: Iterable[str] = ()) -> None:
        """Note a warning (once for a span)."""
        ...

    def fail(
        self, code: str, span: Span | None, title: str, **details: Unpack[ErrorDetails]
    ) -> Exception:
        """An error to raise: ``raise sema.fail(…)``; analysis goes on with the next statement."""
        ...


class Callable_(ABC):
    """A builtin or function of the language, as type checking sees it.

    :cvar name: as scripts write it.
    :cvar aliases: other spellings that mean the same.
    :cvar signatures: as the documentation writes them, one a variant.
    :cvar summary: one sentence.
    :cvar arity: the least and the most arguments (None: any number more). (0, 0) may be used bare.
    :cvar helpers: BPF helpers (numbers) that every use of it calls; see :meth:`needs`.
    :cvar unsafe: needs ``--unsafe``.
    :cvar unsafe_title: what is said where that is missing.
    :cvar instead: what to do where no probe in which it may be used fits, each a sentence.
    :cvar discardable: no warning when its result is not used.
    :cvar lasting: what becomes of it depends on the script, its options and the running kernel with
        its modules alone, so that a compiled script that uses it may be kept. Not what looks at
        files or processes when it is checked.
    :cvar named_type: name and type of its result, where scripts may declare variables of it;
        unresolved where each call has one of its own.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    signatures: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    helpers: ClassVar[frozenset[int]] = frozenset()
    unsafe: ClassVar[bool] = False
    unsafe_title: ClassVar[str] = "{name}() is an unsafe function being used in safe mode"
    instead: ClassVar[tuple[str, ...]] = ()
    discardable: ClassVar[bool] = False
    lasting: ClassVar[bool] = True
    named_type: ClassVar[tuple[str, Type] | None] = None

    @abstractmethod
    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        """The typed form of a use of it; the number of arguments was checked already.

        :raises SemaError: from ``sema.fail`` when the use is wrong.
        """

    def needs(self, call: tree.Call) -> frozenset[int]:
        """The BPF helpers that this use of it calls; ``diagnose/`` compares them with what the
        probe's program type may call."""
        return self.helpers


def unstable_feature(sema: Sema, span: Span, feature: str, setting: str) -> None:
    """Warn of a feature that may change, or refuse it, as its setting says.

    :param feature: what it is called.
    :param setting: the configuration variable that is about it.
    :raises SemaError: the setting is ``error``.
    """
    wish = getattr(sema.config, setting)
    if wish == "error":
        raise sema.fail(
            "unstable-feature",
            span,
            f"{feature} feature is not enabled by default. To enable this unstable feature, set "
            f"the config flag to enable. {setting}=enable",
        )
    if wish == "warn":
        sema.warn(
            "unstable-feature",
            span,
            f"Script is using an unstable feature: {feature}. To prevent this warning you must "
            f"explicitly enable it in the config e.g. {setting}=enable",
        )
