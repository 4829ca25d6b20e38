# SPDX-License-Identifier: Apache-2.0
"""The syntax tree of the bpftrace language (0.27).

Every node has a ``span``. Nodes compare and hash by identity, so that later passes can key tables
by node; :func:`kcap.lang.traverse.same_tree` compares by structure. Names keep their sigil
(``$x``, ``@m``).

What the tree normalises, so that later passes see one form:

- ``@m[1, 2]`` and ``@m[(1, 2)]`` both have a :class:`Tuple` as key (``bare`` tells them apart).
- :attr:`Block.value` (the last expression, written without ``;``) is only set where the value of
  the block is used: block expressions, ``if`` used as an expression, macro bodies. Elsewhere
  (probes, loops, functions, ``if`` as a statement) the last expression is an
  :class:`ExprStatement` like the others.
- ``if`` is an expression in the language; as a statement it is ``ExprStatement(If(...))``, and a
  bare block is ``ExprStatement(BlockExpr(...))``.
- Parentheses that only group leave no node; the span of the inner node excludes them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from kcap.lang.node import Node as Node
from kcap.lang.node import children as children
from kcap.lang.node import field_names as field_names
from kcap.lang.node import walk as walk
from kcap.lang.source import Span

BinaryOp = Literal[
    "||", "&&", "|", "^", "&", "==", "!=", "<", ">", "<=", ">=", "<<", ">>", "+", "-", "*", "/", "%"
]  # fmt: skip
UnaryOp = Literal["!", "~", "-", "*", "&"]
AssignOp = Literal["=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="]
StepOp = Literal["++", "--"]
TagKind = Literal["struct", "union", "enum"]


class Name(Node):
    """A name with its place, where it is no expression: a field, a parameter, a config key."""

    text: str


# --- types -------------------------------------------------------------------------------------


class TypeNode(Node):
    """Base of types as written in casts, ``let``, ``sizeof`` and the like."""


class NamedType(TypeNode):
    """``int32``, ``void``, ``uint64_t``, a macro parameter; ``string[64]`` has a ``size``.

    ``size`` is only set for ``string``, ``buffer`` and ``inet``, whose ``[N]`` is a parameter of
    the type and not an array.
    """

    name: str
    size: Expr | None = None


class TagType(TypeNode):
    """``struct NAME``, ``union NAME``, ``enum NAME``."""

    kind: TagKind
    name: str


class PointerType(TypeNode):
    """``target*``."""

    target: TypeNode


class ArrayType(TypeNode):
    """``element[size]``; ``element[]`` (size None) takes the size from the value cast."""

    element: TypeNode
    size: Expr | None


class TypeofType(TypeNode):
    """``typeof(operand)`` where a type stands; the operand is a type or an expression."""

    operand: TypeNode | Expr


# --- expressions -------------------------------------------------------------------------------


class Expr(Node):
    """Base of expressions."""


class Integer(Expr):
    """An integer literal.

    :param value: the value; durations are in nanoseconds. Always 0 ≤ value < 2**64.
    :param text: as written, such as ``1e6``, ``0x1fUL``, ``1_000`` or ``5ms``.
    :param suffix: ``U``/``L`` letters in lower case, or the duration unit, or ``""``.
    """

    value: int
    text: str
    suffix: str = ""

    @property
    def unsigned(self) -> bool:
        """Whether the value only fits ``uint64`` (suffixes don't matter in the language)."""
        return self.value > 0x7FFF_FFFF_FFFF_FFFF

    @property
    def is_duration(self) -> bool:
        """Whether it was written with a unit of time."""
        return self.suffix in ("ns", "us", "ms", "s", "m", "h", "d")


class String(Expr):
    """A string literal.

    :param value: the decoded text; bytes that are not UTF-8 are ``surrogateescape`` characters.
    """

    value: str

    @property
    def data(self) -> bytes:
        """The bytes of the string, without a final NUL."""
        return self.value.encode("utf-8", "surrogateescape")


class Boolean(Expr):
    """``true`` or ``false``."""

    value: bool


class Identifier(Expr):
    """A bare name: a builtin (``pid``), an enum or ``#define`` constant, a macro, its parameter."""

    name: str


class PositionalParam(Expr):
    """``$1``, ``$2``, … (``index`` from 1)."""

    index: int


class PositionalCount(Expr):
    """``$#``."""


class Variable(Expr):
    """A scratch variable; ``name`` starts with ``$``."""

    name: str


class Map(Expr):
    """A map without a key; ``name`` starts with ``@`` (and may be just that)."""

    name: str


class MapAccess(Expr):
    """``@m[key]``; several keys make a :class:`Tuple` whose ``bare`` is true."""

    map: Map
    key: Expr


class Call(Expr):
    """``name(arguments)``: a function, a macro, or a C function."""

    name: str
    name_span: Span
    arguments: list[Expr]


class Unary(Expr):
    """``!x``, ``~x``, ``-x``, ``*x`` (dereference), ``&x`` (address of)."""

    op: UnaryOp
    operand: Expr


class Step(Expr):
    """``++x``, ``x++``, ``--x``, ``x--``; the target is a variable or a map."""

    op: StepOp
    prefix: bool
    target: Expr


class Binary(Expr):
    """``left op right``."""

    op: BinaryOp
    op_span: Span
    left: Expr
    right: Expr


class Ternary(Expr):
    """``condition ? then : otherwise``; ``then`` is None in ``condition ?: otherwise``."""

    condition: Expr
    then: Expr | None
    otherwise: Expr


class FieldAccess(Expr):
    """``object.field``, or ``object->field`` (``arrow``), which means the same."""

    object: Expr
    field: Name
    arrow: bool = False


class TupleAccess(Expr):
    """``object.0``."""

    object: Expr
    index: int
    index_span: Span


class ArrayAccess(Expr):
    """``object[index]``, where the object is no map."""

    object: Expr
    index: Expr


class Cast(Expr):
    """``(type)operand``."""

    type: TypeNode
    operand: Expr


class Sizeof(Expr):
    """``sizeof(type)`` or ``sizeof(expression)``."""

    operand: TypeNode | Expr


class Offsetof(Expr):
    """``offsetof(type or expression, a.b.c)``; ``fields`` are ``a``, ``b``, ``c``."""

    operand: TypeNode | Expr
    fields: list[Name]


class Typeof(Expr):
    """``typeof(type or expression)`` as an argument of a macro call."""

    operand: TypeNode | Expr


class Typeinfo(Expr):
    """``typeinfo(type or expression)``."""

    operand: TypeNode | Expr


class Tuple(Expr):
    """``(a, b)``, ``(a,)``, ``()``; ``bare`` when it is the key list ``a, b`` of ``@m[a, b]``."""

    elements: list[Expr]
    bare: bool = False


class RecordField(Node):
    """``name=value`` of a record."""

    name: Name
    value: Expr


class Record(Expr):
    """``(name=value, …)``."""

    fields: list[RecordField]


class BlockExpr(Expr):
    """``{ …; value }`` used as an expression, or a bare block."""

    block: Block


class If(Expr):
    """``if condition { … } else …``; ``otherwise`` is a block, another ``if``, or None."""

    condition: Expr
    then: Block
    otherwise: Block | If | None


class Comptime(Expr):
    """``comptime expression``: evaluated at compile time."""

    operand: Expr


class Range(Expr):
    """``start..end`` of a ``for``: start included, end not."""

    start: Expr
    end: Expr


# --- statements --------------------------------------------------------------------------------


class Stmt(Node):
    """Base of statements."""


class Block(Node):
    """``{ … }``; see the module's text for when ``value`` is set."""

    statements: list[Stmt]
    value: Expr | None = None


class ExprStatement(Stmt):
    """An expression whose value is not used; the span includes parentheses around it."""

    expression: Expr


class Discard(Stmt):
    """``_ = expression;``."""

    expression: Expr


class Let(Stmt):
    """``let $x;``, ``let $x: type;``, ``let $x = value;``, ``let $x: type = value;``."""

    variable: Variable
    type: TypeNode | None
    value: Expr | None


class Assign(Stmt):
    """``target op value``; the target is a :class:`Variable`, :class:`Map` or :class:`MapAccess`.

    :param op: ``=`` or a compound such as ``+=``; :attr:`binary_op` is its operator.
    """

    target: Variable | Map | MapAccess
    op: AssignOp
    op_span: Span
    value: Expr

    @property
    def binary_op(self) -> BinaryOp | None:
        """``+`` for ``+=`` and so on; None for ``=``."""
        return self.op[:-1] or None  # type: ignore[return-value]


class While(Stmt):
    """``while (condition) { … }``, deprecated in the language."""

    condition: Expr
    body: Block


class For(Stmt):
    """``for ($kv : @map) { … }`` (:class:`Map`) or ``for ($i : a..b) { … }`` (:class:`Range`)."""

    variable: Variable
    iterable: Expr
    body: Block


class Unroll(Stmt):
    """``unroll (count) { … }``."""

    count: Expr
    body: Block


class Break(Stmt):
    """``break;``."""


class Continue(Stmt):
    """``continue;``."""


class Return(Stmt):
    """``return;`` or ``return value;``."""

    value: Expr | None


class Import(Stmt):
    """``import "path";``, at the top or inside a block."""

    path: String


# --- program -----------------------------------------------------------------------------------


class CDefinition(Node):
    """A piece of C at the top, kept as raw text (``span.text``).

    :param kind: ``include``, ``define``, ``directive`` (any other ``#`` line), or ``type`` (a
        struct, union or enum definition).
    :param name: the macro of a ``define``, the tag of a ``type``, else ``""``.
    :param value: the replacement text of an object-like ``#define``, the header with its ``<>`` or
        quotes of an ``include``; else None.
    :param value_span: where ``value`` stands.
    """

    kind: Literal["include", "define", "directive", "type"]
    name: str = ""
    value: str | None = None
    value_span: Span | None = None

    @property
    def text(self) -> str:
        """The C text."""
        return self.span.text


class ConfigEntry(Node):
    """``name = value`` of the config block; a bare word is an :class:`Identifier`."""

    name: Name
    value: Integer | String | Boolean | Identifier


class Config(Node):
    """``config = { … }``."""

    entries: list[ConfigEntry]


class MapDeclaration(Node):
    """``let @m = hash(100);``; ``arguments`` is usually one integer."""

    map: Map
    kind: Name
    arguments: list[Expr]


class Macro(Node):
    """``macro name(ident, $variable, @map) { … }``."""

    name: Name
    parameters: list[Identifier | Variable | Map]
    body: Block


class FunctionMacro(Macro):
    """What :mod:`kcap.lang.functions` makes of a :class:`Subprog`: a macro that sees all maps."""


class Parameter(Node):
    """``$a : type`` of a function."""

    variable: Variable
    type: TypeNode


class Subprog(Node):
    """``fn name($a : type, …) : return_type { … }``."""

    name: Name
    parameters: list[Parameter]
    return_type: TypeNode | None
    body: Block


class AttachPart(Node):
    """One colon-separated part of an attach point.

    :param text: the part without quotes. ``$1`` stands for a positional parameter, as written.
    :param quoted: whether any of it was in double quotes.
    """

    text: str
    quoted: bool = False


class AttachPoint(Node):
    """``provider:part:part``, such as ``kprobe:tcp_*`` or ``uprobe:/bin/bash:"f(int)"+4``.

    :param name: the optional name before ``=``.
    :param provider: as written: may be a short name, an old name or a wildcard.
    :param parts: what follows the provider, split at colons outside quotes; may be empty.
    """

    name: Name | None
    provider: AttachPart
    parts: list[AttachPart]

    @property
    def text(self) -> str:
        """Provider and parts joined by colons, quotes removed."""
        return ":".join([self.provider.text, *(part.text for part in self.parts)])


class Probe(Node):
    """``attach_point, … /predicate/ { … }``."""

    attach_points: list[AttachPoint]
    predicate: Expr | None
    block: Block


class Comment(Node):
    """A comment with its markers, ``//…`` without the line end, or ``/*…*/``."""

    text: str


Item: TypeAlias = Probe | Macro | Subprog | MapDeclaration


class Program(Node):
    """A whole script, in the order of its sections.

    ``items`` has probes, macros, functions and map declarations in the order written; the
    properties pick one kind. ``config`` and ``imports`` are also in ``preamble``, as written.
    ``comments`` and ``grouped`` (expressions in parentheses that only group, with the span of
    those) serve the formatter.
    """

    header: Name | None
    c_definitions: list[CDefinition]
    preamble: list[Config | Import]
    items: list[Item]
    comments: list[Comment]
    grouped: dict[Node, Span]

    @property
    def config(self) -> Config | None:
        """The config block, if there is one."""
        return next((item for item in self.preamble if isinstance(item, Config)), None)

    @property
    def imports(self) -> list[Import]:
        """The imports at the top."""
        return [item for item in self.preamble if isinstance(item, Import)]

    @property
    def probes(self) -> list[Probe]:
        """The probes in the order written."""
        return [item for item in self.items if isinstance(item, Probe)]

    @property
    def macros(self) -> list[Macro]:
        """The macros in the order written."""
        return [item for item in self.items if isinstance(item, Macro)]

    @property
    def subprogs(self) -> list[Subprog]:
        """The functions (``fn``) in the order written."""
        return [item for item in self.items if isinstance(item, Subprog)]

    @property
    def map_declarations(self) -> list[MapDeclaration]:
        """The ``let @m = …`` declarations in the order written."""
        return [item for item in self.items if isinstance(item, MapDeclaration)]
