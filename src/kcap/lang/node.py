# SPDX-License-Identifier: Apache-2.0
"""The base of syntax tree nodes: what ``@dataclass(slots=True, eq=False)`` would give, cheaper.

Some 50 dataclasses cost 15-25 ms at import, each start of kcap anew, because ``dataclasses``
compiles every constructor and builds every class twice. Here a class statement only notes its
fields, and a constructor is compiled when the first node of that class is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self, TypeVar, dataclass_transform

    from kcap.lang.source import Span

    _T = TypeVar("_T")
else:

    def dataclass_transform(**_options):
        """Only type checkers need the real one (``typing.dataclass_transform``)."""
        return lambda cls: cls


@dataclass_transform(eq_default=False)
class NodeType(type):
    """Turns the annotations of a node class into slots and constructor arguments."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> NodeType:
        """Make the class ``name``; see :class:`type`."""
        own = tuple(namespace.get("__annotations__", ()))
        inherited: tuple[str, ...] = ()
        defaults: dict[str, Any] = {}
        for base in bases:
            if isinstance(base, NodeType):
                inherited = base._fields
                defaults.update(base._defaults)
        for field in own:
            if field in namespace:
                defaults[field] = namespace.pop(field)
        fields = inherited + own
        namespace["__slots__"] = own
        namespace["__match_args__"] = fields
        namespace["__init__"] = _first_init
        cls = super().__new__(mcs, name, bases, namespace)
        cls._fields = fields
        cls._defaults = defaults
        return cls


def _first_init(self: Node, *args: Any, **kwargs: Any) -> None:
    """Compile the constructor of the node's class, put it in place and call it."""
    cls = type(self)
    defaults = cls._defaults
    arguments = ", ".join(f"{f}=_d[{f!r}]" if f in defaults else f for f in cls._fields)
    body = "".join(f"\n self.{f} = {f}" for f in cls._fields)
    made: dict[str, Any] = {"_d": defaults}
    exec(f"def __init__(self, {arguments}):{body}", made)
    made["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = made["__init__"]  # type: ignore[method-assign]
    self.__init__(*args, **kwargs)  # type: ignore[misc]


class Node(metaclass=NodeType):
    """Base of all nodes. Nodes compare and hash by identity."""

    span: Span

    def __repr__(self) -> str:
        inside = ", ".join(f"{f}={getattr(self, f)!r}" for f in type(self)._fields if f != "span")
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """A copy of this node (children shared) with some fields changed."""
        cls = type(self)
        values = {field: getattr(self, field) for field in cls._fields}
        return cls(**(values | changes))


def field_names(kind: type[Node]) -> tuple[str, ...]:
    """The names of all fields of a node class but ``span``, in the order of its constructor."""
    return kind._fields[1:]


def children(node: Node) -> list[Node]:
    """The direct children of ``node``, in the order of its fields."""
    found: list[Node] = []
    for name in type(node)._fields:
        value = getattr(node, name)
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, list):
            found.extend(value)
    return found


def walk(node: Node) -> Iterator[Node]:
    """``node`` and all its descendants, parents first, in the order of the text.

    Needs no recursion, so depth doesn't matter.
    """
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children(current)))
