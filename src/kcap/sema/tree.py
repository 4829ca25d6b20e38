# SPDX-License-Identifier: Apache-2.0
"""The typed tree: what semantic analysis makes of a script and code generation reads.

Names are resolved, every expression has its type, implicit conversions are explicit
:class:`Cast` nodes, macros and compile-time branches are gone, and each probe stands once for
every set of targets that share one program.

Expressions whose type is a struct, array, string, buffer or tuple stand for a *place* in some
address space; code generation copies from it only where a value must be in BPF memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from kcap.lang import node
from kcap.records import dataclass, field
from kcap.sema.types import Aggregate, Field, Struct, Type

if TYPE_CHECKING:
    from kcap.lang.source import Span
    from kcap.sema.function import Callable_
    from kcap.sema.probe import ProbeContext


class Node(node.Node):
    """Base of the typed tree; ``span`` is where in the script it comes from.

    No dataclasses: see :mod:`kcap.lang.node` for why.
    """


class Expr(Node):
    """Base of expressions; ``type`` is final."""

    type: Type


# --- leaves ---------------------------------------------------------------------------------


class IntegerLiteral(Expr):
    """A constant integer, boolean or enum value; ``value`` lies in the range of ``type``."""

    value: int


class StringLiteral(Expr):
    """A constant string, without its terminating NUL; ``type`` is a String that holds it."""

    value: bytes


@dataclass(slots=True, eq=False)
class Variable:
    """A scratch variable, after scopes are resolved: one object for one variable.

    :param name: as written, with the ``$``.
    :param type: its final type.
    """

    name: str
    type: Type


class VariableRef(Expr):
    """The value of a scratch variable."""

    variable: Variable


@dataclass(slots=True, eq=False)
class Map:
    """A map variable of the script.

    :param name: as written, with the ``@``.
    :param key: the type of its key, or None for a map without keys.
    :param value: the type of its value; an :class:`~kcap.sema.types.Aggregate` for count() etc.
    :param kind: the kind of BPF map that a ``let @x = kind(n)`` declaration asked for, or ''.
    :param max_entries: how many keys it holds, from a declaration or the configuration.
    :param emptied: whether the script deletes its element though it has no keys (``delete(@x)``).
    """

    name: str
    key: Type | None
    value: Type
    kind: str = ""
    max_entries: int = 4096
    emptied: bool = False

    @property
    def in_array(self) -> bool:
        """Whether its elements are those of a per-CPU array, found without hashing: an aggregate
        without keys. Nothing can be deleted from one, so that a mark says what was ever set."""
        return (
            isinstance(self.value, Aggregate)
            and self.key is None
            and not self.kind
            and not self.emptied
        )

    @property
    def per_cpu(self) -> bool:
        """Whether each CPU has its own value."""
        return isinstance(self.value, Aggregate) or self.kind.startswith("percpu")


class MapRead(Expr):
    """``@x`` or ``@x[key]``: zero when there is no such key."""

    map: Map
    key: Expr | None


class MapRef(Expr):
    """A map itself as the argument of a function: ``clear(@x)``. Its type is Void."""

    map: Map


class Args(Expr):
    """``args``: a place in the context, its type a Struct of keyword 'args'.

    For programs of type tracing, each argument takes an 8-byte slot (``Field.slot``).
    """

    if TYPE_CHECKING:
        type: Struct


# --- operators ------------------------------------------------------------------------------

UnaryOp = Literal["-", "~", "!"]
BinaryOp = Literal[
    "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "==", "!=", "<", "<=", ">", ">="
]


class Unary(Expr):
    """``-x``, ``~x`` (type of the operand) or ``!x`` (boolean; any scalar operand)."""

    op: UnaryOp
    operand: Expr


class Binary(Expr):
    """An operator on two operands of the same type (shifts: the left one's type counts).

    Integers: signedness of the operands' type decides ``/ % >> <``. Comparisons yield boolean and
    also take two pointers, or (== and != only) two strings, buffers, arrays or tuples of the same
    type; strings of different size compare as C strings.
    """

    op: BinaryOp
    left: Expr
    right: Expr


class Logical(Expr):
    """``&&`` or ``||``, evaluated short-circuit; boolean. Operands are any scalars."""

    op: Literal["&&", "||"]
    left: Expr
    right: Expr


class Ternary(Expr):
    """``condition ? then : otherwise``; both branches have the node's type (or Void)."""

    condition: Expr
    then: Expr
    otherwise: Expr


class Cast(Expr):
    """A conversion to ``type``, explicit or implied.

    Between integers, booleans, enums, pointers: truncation or extension by the operand's sign; to
    boolean: ``!= 0``. Array of integers to or from an integer of the same size: the same bytes.
    Char array to String: a C string read from the place; String to an array of chars: its bytes.
    String to a larger String, Buffer to a larger Buffer, tuple to a tuple of wider elements:
    element by element. Aggregate to integer: the sum over all CPUs (or what the aggregate's
    ``castable`` says).
    """

    operand: Expr


class PointerOffset(Expr):
    """``pointer + index``: ``index`` (an int64) times the size of the target."""

    pointer: Expr
    index: Expr


class Deref(Expr):
    """``*pointer``, and the left side of ``->``."""

    pointer: Expr


class AddressOf(Expr):
    """``&place``: a pointer to where a variable, a map's element or a struct's field stands.

    Its type is a Pointer; its space says which memory: 'bpf' for variables and map elements.
    """

    place: Expr


class FieldAccess(Expr):
    """A field of a struct (or union, or ``args``) place."""

    object: Expr
    field: Field


class TupleElement(Expr):
    """An element of a tuple, or a named one of a record."""

    object: Expr
    index: int


class Index(Expr):
    """An element of an array place; ``index`` is an integer, in range if constant.

    An index that is not constant and out of range at run time reads zero.
    """

    array: Expr
    index: Expr


class TupleExpr(Expr):
    """``(a, b)``, also a map key of several parts; each element has its element type."""

    elements: list[Expr]


class IncDec(Expr):
    """``++``/``--`` on a variable or map element; by the target's size for pointers."""

    target: VariableRef | MapRead
    op: Literal["++", "--"]
    prefix: bool


class Call(Expr):
    """A call of a function, or the use of a builtin.

    :param function: the object that checked it and will emit it.
    :param args: the arguments, converted as the function wants them.
    :param data: whatever the function's check wants to hand to its emission.
    """

    function: Callable_
    args: list[Expr]
    data: Any = None


class BlockExpr(Expr):
    """``{ statements; result }``; ``result`` is None for a block of type Void."""

    body: list[Stmt]
    result: Expr | None


# --- statements -----------------------------------------------------------------------------


class Stmt(Node):
    """Base of statements."""


class ExprStmt(Stmt):
    """An expression whose value is not used."""

    expr: Expr


class AssignVariable(Stmt):
    """``$x = value`` (the value has the variable's type); None: declared, set to zero."""

    variable: Variable
    value: Expr | None


class AssignMap(Stmt):
    """``@x[key] = value``."""

    map: Map
    key: Expr | None
    value: Expr


class UpdateAggregate(Stmt):
    """``@x[key] = count()`` and its like: the call updates the map's aggregate in place."""

    map: Map
    key: Expr | None
    call: Call


class If(Stmt):
    """Both branches are lists of statements."""

    condition: Expr
    then: list[Stmt]
    otherwise: list[Stmt]


class While(Stmt):
    """``while (condition) { … }``."""

    condition: Expr
    body: list[Stmt]


class ForRange(Stmt):
    """``for ($i : start..end)``; the bounds have the variable's type."""

    variable: Variable
    start: Expr
    end: Expr
    body: list[Stmt]


class ForMap(Stmt):
    """``for ($kv : @map)``; the variable is a tuple of key and value."""

    variable: Variable
    map: Map
    body: list[Stmt]


class Unroll(Stmt):
    """The body, ``times`` times over."""

    times: int
    body: list[Stmt]


class Break(Stmt):
    """Leave the innermost loop."""


class Continue(Stmt):
    """Go on with the next round of the innermost loop."""


class Return(Stmt):
    """Leave the probe."""

    value: Expr | None


# --- the whole ------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Program:
    """One probe block, for all the targets that can share one BPF program.

    :param context: the probe that it runs in: name, program type, arguments, targets.
    :param predicate: the filter, or None.
    """

    span: Span
    context: ProbeContext
    predicate: Expr | None
    body: list[Stmt]


@dataclass(slots=True, eq=False)
class Script:
    """A checked script.

    :param programs: in the order of the script.
    :param maps: by name, in the order of first use.
    :param config: the configuration that holds for it.
    :param lasting: it uses only functions that are (:class:`kcap.sema.function.Callable_`).
    """

    programs: list[Program]
    maps: dict[str, Map]
    config: Any
    warnings: list[Any] = field(default_factory=list)
    lasting: bool = True


def walk(root: object) -> Iterator[Node]:
    """Every node below and including ``root`` (a node or a list of nodes), in order."""
    if isinstance(root, list):
        for item in root:
            yield from walk(item)
    elif isinstance(root, Node):
        yield root
        for name in type(root)._fields:
            value = getattr(root, name)
            if isinstance(value, Node | list):
                yield from walk(value)
