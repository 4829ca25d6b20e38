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
from typing import Any

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
        return _read(data)
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
            self.made += b"N"
        elif kind is bool:
            self.made += b"T" if value else b"F"
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

    def _operation(self, letter: str, number: int) -> None:
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
            self.made += b"c"
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


def _read(data: bytes) -> Any:
    stack: list[Any] = []
    texts: list[str] = []
    classes: list[Any] = []
    objects: list[Any] = []
    making: Any = None
    push, pop = stack.append, stack.pop
    at, end = 0, len(data)
    while at < end:
        letter = data[at]
        at += 1
        if letter in _WITHOUT_NUMBER:
            if letter == _CLASS:
                name, module = pop(), pop()
                classes.append(_maker(module, name))
            else:
                push(_WITHOUT_NUMBER[letter])
            continue
        number = data[at]
        at += 1
        if number > 0x7F:
            number &= 0x7F
            shift = 7
            while data[at] > 0x7F:
                number |= (data[at] & 0x7F) << shift
                shift += 7
                at += 1
            number |= data[at] << shift
            at += 1
        if letter == _OBJECT:
            making = classes[number]
        elif letter == _PARTS:
            behind = len(stack) - number
            made = making(*stack[behind:])
            del stack[behind:]
            objects.append(made)
            push(made)
        elif letter == _KNOWN:
            push(objects[number])
        elif letter == _AGAIN:
            push(texts[number])
        elif letter == _INTEGER:
            push(number)
        elif letter == _MINUS:
            push(-number)
        elif letter == _TEXT:
            text = data[at : at + number].decode("utf-8", "surrogateescape")
            at += number
            texts.append(text)
            push(text)
        elif letter == _BYTES:
            push(data[at : at + number])
            at += number
        elif letter == _DICT:
            behind = len(stack) - 2 * number
            pairs = dict(zip(stack[behind::2], stack[behind + 1 :: 2], strict=True))
            del stack[behind:]
            push(pairs)
        else:
            behind = len(stack) - number
            items = _MADE_OF[letter](stack[behind:])
            del stack[behind:]
            push(items)
    (value,) = stack
    return value


_OBJECT, _PARTS, _KNOWN, _AGAIN, _CLASS = b"onkac"
_INTEGER, _MINUS, _TEXT, _BYTES, _DICT = b"imsbd"
_WITHOUT_NUMBER: dict[int, Any] = {ord("N"): None, ord("T"): True, ord("F"): False, _CLASS: None}
_MADE_OF: dict[int, Any] = {
    ord(letter): kind for kind, letter in _CONTAINERS.items() if letter != "d"
}


def _maker(module: str, name: str) -> Any:
    """What makes an object of a class of this package.

    :raises PlainError: there is no such class.
    """
    if module.partition(".")[0] != PACKAGE:
        raise PlainError(f"{module} is none of {PACKAGE}'s modules")
    cls = getattr(import_module(module), name, None)
    if not isinstance(cls, type) or cls.__module__ != module:
        raise PlainError(f"{module} has no class {name}")
    return getattr(cls, "from_plain", cls)
