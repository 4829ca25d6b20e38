# SPDX-License-Identifier: Apache-2.0
"""Objects as bytes and back, without :mod:`pickle`: nothing that is read can run code of its own.

What can be written are numbers, texts, bytes, containers, and objects of classes of this package
that are made from plain values: records (:mod:`kcap.records`) from their fields, others from what
their ``plain_parts()`` gives, objects without any state from nothing. Reading calls the class with
them, or its ``from_plain``. Objects that several others refer to stay one.

The bytes are a list of operations on a stack. Each is a letter and a number in as many bytes as it
takes, seven bits each, the lowest first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = __name__.partition(".")[0]


class PlainError(ValueError):
    """Something that can't be written, or bytes that were not written by :func:`dumps`."""


def dumps(value: object) -> bytes:
    """The bytes of a value.

    :raises PlainError: something in it can't be written.
    """
    writer = _Writer()
    writer.write(value)
    return bytes(writer.made)


def loads(data: bytes) -> Any:
    """The value of bytes that :func:`dumps` made. Check before that nobody has changed them.

    :raises PlainError: they were not made by it, or by another kcap.
    """
    try:
        return _Reader(data).read()
    except PlainError:
        raise
    except Exception as error:  # whatever wrong bytes can lead to
        raise PlainError(f"not what was written: {error}") from error


class _Writer:
    def __init__(self) -> None:
        self.made = bytearray()
        self._known: dict[int, int] = {}
        self._texts: dict[str, int] = {}
        self._kept: list[object] = []  # so that no id is used twice
        self._classes: dict[type, int] = {}

    def write(self, value: Any) -> None:
        kind = type(value)
        if value is None:
            self._operation("N")
        elif kind is bool:
            self._operation("T" if value else "F")
        elif kind is int:
            self._operation("i" if value >= 0 else "m", abs(value))
        elif kind is str:
            self._text(value)
        elif kind is bytes:
            self._operation("b", len(value))
            self.made += value
        elif kind in _CONTAINERS:
            self._container(_CONTAINERS[kind], value)
        else:
            self._object(value)

    def _operation(self, letter: str, number: int = 0) -> None:
        self.made += letter.encode()
        while number > 0x7F:
            self.made.append(number & 0x7F | 0x80)
            number >>= 7
        self.made.append(number)

    def _text(self, text: str) -> None:
        if text in self._texts:
            self._operation("a", self._texts[text])
            return
        self._texts[text] = len(self._texts)
        data = text.encode("utf-8", "surrogateescape")
        self._operation("s", len(data))
        self.made += data

    def _container(self, letter: str, value: Any) -> None:
        items = [part for pair in value.items() for part in pair] if letter == "d" else value
        for item in items:
            self.write(item)
        self._operation(letter, len(value))

    def _object(self, value: Any) -> None:
        if id(value) in self._known:
            self._operation("k", self._known[id(value)])
            return
        parts = _parts(value)
        number = self._class(type(value))
        for part in parts:
            self.write(part)
        self._operation("o", number)
        self._operation("n", len(parts))
        self._known[id(value)] = len(self._known)
        self._kept.append(value)

    def _class(self, cls: type) -> int:
        if cls not in self._classes:
            if cls.__module__.partition(".")[0] != PACKAGE or "." in cls.__qualname__:
                raise PlainError(f"{cls.__module__}.{cls.__qualname__} is none of {PACKAGE}'s")
            self._text(cls.__module__)
            self._text(cls.__name__)
            self._operation("c")
            self._classes[cls] = len(self._classes)
        return self._classes[cls]


_CONTAINERS: dict[type, str] = {list: "l", tuple: "t", dict: "d", frozenset: "f"}


def _parts(value: Any) -> tuple[Any, ...]:
    """What an object is made from."""
    own = getattr(value, "plain_parts", None)
    if own is not None:
        found: tuple[Any, ...] = own()
        return found
    fields = getattr(type(value), "__kcap_fields__", None)
    if fields is not None:
        return tuple(getattr(value, name) for name in fields)
    slots = any(base.__dict__.get("__slots__") for base in type(value).__mro__)
    if slots or getattr(value, "__dict__", None):
        raise PlainError(f"{type(value).__qualname__} has a state of its own")
    return ()


class _Reader:
    """Goes through the operations; each takes its number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._texts: list[str] = []
        self._classes: list[Any] = []
        self._objects: list[Any] = []
        self._making: Any = None
        push = self._stack.append
        self._operations: dict[int, Callable[[int], None]] = {
            ord("N"): lambda _: push(None),
            ord("T"): lambda _: push(True),
            ord("F"): lambda _: push(False),
            ord("i"): push,
            ord("m"): lambda number: push(-number),
            ord("s"): self._text,
            ord("a"): lambda number: push(self._texts[number]),
            ord("b"): lambda number: push(self._bytes(number)),
            ord("l"): lambda number: push(self._taken(number)),
            ord("t"): lambda number: push(tuple(self._taken(number))),
            ord("f"): lambda number: push(frozenset(self._taken(number))),
            ord("d"): self._dict,
            ord("c"): self._class,
            ord("o"): self._kind,
            ord("n"): self._object,
            ord("k"): lambda number: push(self._objects[number]),
        }

    def read(self) -> Any:
        operations, data, end = self._operations, self._data, len(self._data)
        while self._at < end:
            letter = data[self._at]
            self._at += 1
            operations[letter](self._number())
        (value,) = self._stack
        return value

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    def _bytes(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    def _taken(self, count: int) -> list[Any]:
        """The topmost of the stack, taken from it."""
        behind = len(self._stack) - count
        found = self._stack[behind:]
        del self._stack[behind:]
        return found

    def _text(self, length: int) -> None:
        self._texts.append(self._bytes(length).decode("utf-8", "surrogateescape"))
        self._stack.append(self._texts[-1])

    def _dict(self, count: int) -> None:
        items = self._taken(2 * count)
        self._stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _class(self, _: int) -> None:
        self._classes.append(_maker(*self._taken(2)))

    def _kind(self, number: int) -> None:
        self._making = self._classes[number]

    def _object(self, count: int) -> None:
        self._objects.append(self._making(*self._taken(count)))
        self._stack.append(self._objects[-1])


def _maker(module: str, name: str) -> Any:
    """What makes an object of a class of this package.

    :raises PlainError: there is no such class, or none whose objects are written.
    """
    if module.partition(".")[0] != PACKAGE:
        raise PlainError(f"{module} is none of {PACKAGE}'s modules")
    cls = getattr(import_module(module), name, None)
    if not isinstance(cls, type) or cls.__module__ != module or not _writable(cls):
        raise PlainError(f"{module} has no class {name} that can be written")
    return getattr(cls, "from_plain", cls)


def _writable(cls: type) -> bool:
    """Whether :func:`dumps` writes objects of a class: making one must do nothing else, as opening
    a file."""
    given = hasattr(cls, "plain_parts") or hasattr(cls, "__kcap_fields__")
    return given or not any("__init__" in base.__dict__ for base in cls.__mro__[:-1])
