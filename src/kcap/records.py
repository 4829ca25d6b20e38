# SPDX-License-Identifier: Apache-2.0
"""``dataclass``, ``field``, ``fields`` and ``replace`` of :mod:`dataclasses`, cheaper to import.

``dataclasses`` compiles three to six methods of every class while it is defined (0.4 ms a class;
kcap has over a hundred of them on its way to a running script), and imports ``inspect``. Here a
constructor is compiled when the first object of its class is made; the other methods need no
compiling. Type checkers see the real ones, and what the real ``dataclasses.replace`` and ``fields``
look for is there when they are called (``__dataclass_fields__``).

Only what kcap uses is here: fields with defaults, ``compare``, ``hash`` and ``repr``; ``frozen``,
``eq``, and always ``slots``. No ``__post_init__``, no ``InitVar``, no ``kw_only``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field, fields, replace

__all__ = ["dataclass", "field", "fields", "replace"]


class _Missing:
    """Says that a field has no default."""


class RecordField:
    """What is known of a field; see :func:`dataclasses.field`.

    :param default: its value where none is given.
    :param default_factory: makes it instead.
    """

    __slots__ = ("compare", "default", "default_factory", "hash", "name", "repr")

    def __init__(
        self,
        *,
        default: Any = _Missing,
        default_factory: Callable[[], Any] | type[_Missing] = _Missing,
        compare: bool = True,
        hash: bool | None = None,
        repr: bool = True,
    ) -> None:
        self.name = ""
        self.default = default
        self.default_factory = default_factory
        self.compare = compare
        self.hash = compare if hash is None else hash
        self.repr = repr


def make_record(
    cls: type[Any] | None = None,
    /,
    *,
    frozen: bool = False,
    eq: bool = True,
    slots: bool = True,
) -> Any:
    """The decorator; see :func:`dataclasses.dataclass`.

    :raises TypeError: the class is to have no slots.
    """
    if not slots:
        raise TypeError("kcap's records have slots")
    if cls is None:
        return lambda decorated: _record(decorated, frozen, eq)
    return _record(cls, frozen, eq)


def _record(cls: type[Any], frozen: bool, eq: bool) -> type[Any]:
    namespace = dict(cls.__dict__)
    own = _own_fields(namespace)
    known: dict[str, RecordField] = {}
    for base in reversed(cls.__mro__[1:]):
        known.update(base.__dict__.get("__kcap_fields__", {}))
    slots = tuple(name for name in own if name not in known)
    known.update(own)
    for name in (*own, "__dict__", "__weakref__"):
        namespace.pop(name, None)
    namespace.update(
        __slots__=slots,
        __kcap_fields__=known,
        __kcap_frozen__=frozen,
        __dataclass_fields__=_StandardFields(),
        __dataclass_params__=_StandardParams(),
        __match_args__=tuple(known),
    )
    namespace.setdefault("__init__", _first_init)
    namespace.setdefault("__repr__", _repr)
    if frozen:
        namespace.setdefault("__setattr__", _refuse)
        namespace.setdefault("__delattr__", _refuse)
        namespace.setdefault("__getstate__", _get_state)
        namespace.setdefault("__setstate__", _set_state)
    if eq:
        _add_comparison(namespace, known, frozen)
    metaclass: Any = type(cls)
    made: type[Any] = metaclass(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


def _own_fields(namespace: dict[str, Any]) -> dict[str, RecordField]:
    """The fields of a class body. Annotations are text: ``from __future__ import annotations``."""
    own: dict[str, RecordField] = {}
    for name, annotation in namespace.get("__annotations__", {}).items():
        if "ClassVar" in annotation:
            continue
        default = namespace.get(name, _Missing)
        found = default if isinstance(default, RecordField) else RecordField(default=default)
        found.name = name
        own[name] = found
    return own


def _add_comparison(namespace: dict[str, Any], known: dict[str, RecordField], frozen: bool) -> None:
    if "__eq__" not in namespace:
        compared = _getter(name for name, each in known.items() if each.compare)

        def __eq__(self: Any, other: object) -> bool:
            if other.__class__ is self.__class__:
                same: bool = compared(self) == compared(other)
                return same
            return NotImplemented

        namespace["__eq__"] = __eq__
    if "__hash__" in namespace and namespace["__hash__"] is not None:
        return
    if not frozen:
        namespace["__hash__"] = None
        return
    hashed = _getter(name for name, each in known.items() if each.hash)
    namespace["__hash__"] = lambda self: hash(hashed(self))


def _getter(names: Any) -> Callable[[Any], Any]:
    found = tuple(names)
    return attrgetter(*found) if found else lambda _: ()


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Compile the constructor of the record's class, put it in place and call it."""
    cls: Any = next(c for c in type(self).__mro__ if c.__dict__.get("__init__") is _first_init)
    known: dict[str, RecordField] = cls.__kcap_fields__
    made: dict[str, Any] = {"_missing": _Missing}
    arguments, lines = [], []
    for name, each in known.items():
        value = name
        if each.default_factory is not _Missing:
            made[f"_f_{name}"] = each.default_factory
            arguments.append(f"{name}=_missing")
            value = f"_f_{name}() if {name} is _missing else {name}"
        elif each.default is not _Missing:
            made[f"_d_{name}"] = each.default
            arguments.append(f"{name}=_d_{name}")
        else:
            arguments.append(name)
        if cls.__kcap_frozen__:
            made[f"_s_{name}"] = getattr(cls, name).__set__
            lines.append(f"\n _s_{name}(self, {value})")
        else:
            lines.append(f"\n self.{name} = {value}")
    exec(f"def __init__({', '.join(['self', *arguments])}):{''.join(lines) or ' pass'}", made)
    init = made["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = init
    init(self, *args, **kwargs)


_being_shown: set[int] = set()


def _repr(self: Any) -> str:
    if id(self) in _being_shown:
        return "..."
    _being_shown.add(id(self))
    try:
        parts = [
            f"{name}={getattr(self, name)!r}"
            for name, each in self.__kcap_fields__.items()
            if each.repr
        ]
    finally:
        _being_shown.discard(id(self))
    return f"{type(self).__qualname__}({', '.join(parts)})"


def _refuse(self: Any, name: str, *_: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__kcap_fields__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__kcap_fields__, state, strict=True):
        getattr(type(self), name).__set__(self, value)


class _StandardFields:
    """``__dataclass_fields__``, made when the standard module looks for it."""

    def __get__(self, instance: object, owner: type[Any]) -> dict[str, Any]:
        import dataclasses

        bases = [(f"{name}", Any, _standard(each)) for name, each in owner.__kcap_fields__.items()]
        found: dict[str, Any] = dataclasses.make_dataclass("_", bases).__dict__[
            "__dataclass_fields__"
        ]
        return found


class _StandardParams:
    """``__dataclass_params__``, likewise."""

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        import dataclasses

        made = dataclasses.make_dataclass("_", (), frozen=owner.__kcap_frozen__)
        return made.__dict__["__dataclass_params__"]


def _standard(each: RecordField) -> Any:
    import dataclasses

    options: dict[str, Any] = {"compare": each.compare, "hash": each.hash, "repr": each.repr}
    if each.default_factory is not _Missing:
        options["default_factory"] = each.default_factory
    elif each.default is not _Missing:
        options["default"] = each.default
    return dataclasses.field(kw_only=True, **options)


def record_fields(record: Any) -> tuple[RecordField, ...]:
    """The fields of a record or of its class; see :func:`dataclasses.fields`."""
    return tuple(record.__kcap_fields__.values())


def replaced(record: Any, /, **changes: Any) -> Any:
    """A copy with some fields changed; see :func:`dataclasses.replace`."""
    cls = type(record)
    for name in cls.__kcap_fields__:
        if name not in changes:
            changes[name] = getattr(record, name)
    return cls(**changes)


if not TYPE_CHECKING:
    dataclass, field, fields, replace = make_record, RecordField, record_fields, replaced
