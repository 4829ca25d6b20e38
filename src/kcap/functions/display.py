# SPDX-License-Identifier: Apache-2.0
"""Decoded values as text and as JSON, as bpftrace prints them.

A map's value may be an aggregate; its ``reduce`` gives an object that knows its own forms
(:class:`~kcap.functions.aggregates.Stats`, histograms), which ``output/`` treats separately.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.sema import types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.codegen.environment import Environment

#: A byte of a buffer as ``%r`` prints it.
ESCAPED = tuple(chr(b) if 32 <= b <= 126 else f"\\x{b:02x}" for b in range(256))

_JSON_ESCAPES = str.maketrans(
    {
        '"': '\\"',
        "\\": "\\\\",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        **{chr(c): f"\\u{c:04x}" for c in range(32) if chr(c) not in "\b\f\n\r\t"},
    }
)


def buffer_text(data: bytes) -> str:
    """A buffer: printable ASCII as it is, all else as ``\\xNN``."""
    return "".join([ESCAPED[b] for b in data])


def json_string(text: str) -> str:
    """A JSON string; only what has to be escaped is."""
    return f'"{text.translate(_JSON_ESCAPES)}"'


def is_text_array(type_: types.Type) -> bool:
    """Whether an array is a C string: its elements are ``char``."""
    if not isinstance(type_, types.Array) or type_.numbers:
        return False
    return type_.element == types.INT8


def char_text(values: list[int]) -> str:
    """A ``char`` array up to its first NUL."""
    raw = bytes(v & 0xFF for v in values)
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def members(type_: types.Type, value: Any) -> list[tuple[str, types.Type, Any]]:
    """Name, type and value of each part of a struct, tuple or record (a tuple's names are '')."""
    if isinstance(type_, types.Struct):
        return [(f.name, f.type, value[f.name]) for f in type_.all_fields() if f.name in value]
    assert isinstance(type_, types.Tuple)
    if type_.names is None:
        return [("", t, v) for t, v in zip(type_.elements, value, strict=True)]
    return [(n, t, value[n]) for n, t in zip(type_.names, type_.elements, strict=True)]


def text(type_: types.Type, value: Any, environment: Environment) -> str:
    """A decoded value as ``print()`` shows it.

    :param type_: its type in the language.
    :param environment: resolves symbols, times and the like.
    """
    match type_:
        case types.Boolean():
            return "true" if value else "false"
        case types.Enum():
            return type_.values.get(value, str(value))
        case types.Pointer():
            return f"0x{value:x}"
        case types.String():
            return environment.cut(value, type_.length)
        case types.Buffer():
            return buffer_text(value)
        case types.Opaque():
            return str(type_.resolve(value, environment))
        case types.Array():
            return _array_text(type_, value, environment)
        case types.Tuple() if type_.names is None:
            parts = members(type_, value)
            return f"({', '.join([text(t, v, environment) for _, t, v in parts])})"
        case types.Struct() | types.Tuple():
            parts = members(type_, value)
            inner = ", ".join(f".{n} = {text(t, v, environment)}" for n, t, v in parts)
            return f"{{ {inner} }}"
        case _:
            return "" if value is None else str(value)


def _array_text(type_: types.Array, value: list[Any], environment: Environment) -> str:
    if is_text_array(type_):
        return char_text(value)
    return f"[{','.join([text(type_.element, v, environment) for v in value])}]"


def key_text(type_: types.Type, value: Any, environment: Environment) -> str:
    """A map's key as it stands between the brackets: a tuple loses its parentheses."""
    if isinstance(type_, types.Tuple) and type_.names is None:
        return ", ".join([_part_text(t, v, environment) for _, t, v in members(type_, value)])
    return _part_text(type_, value, environment)


def key_texts(
    type_: types.Type, values: Sequence[Any], environment: Environment
) -> Sequence[str | int]:
    """The keys of a whole map, each as :func:`key_text` has it; integers stay what they are."""
    if isinstance(type_, types.Integer):
        return values
    if not isinstance(type_, types.Tuple) or type_.names is not None or not values:
        return _part_texts(type_, values, environment)
    columns = zip(type_.elements, zip(*values, strict=True), strict=True)
    parts = [_part_texts(element, column, environment) for element, column in columns]
    return list(map(", ".join, zip(*parts, strict=True)))


def _part_texts(type_: types.Type, values: Sequence[Any], environment: Environment) -> list[str]:
    if isinstance(type_, types.Integer):
        return list(map(str, values))
    if isinstance(type_, types.String):
        return [environment.cut(value, type_.length) for value in values]
    return [_part_text(type_, value, environment) for value in values]


def _part_text(type_: types.Type, value: Any, environment: Environment) -> str:
    if isinstance(type_, types.Opaque):
        return str(type_.resolve_key(value, environment))
    return text(type_, value, environment)


def json(type_: types.Type, value: Any, environment: Environment) -> str:
    """A decoded value as JSON; enums and pointers are numbers, as they always were there."""
    match type_:
        case types.Boolean():
            return "true" if value else "false"
        case types.Integer() | types.Enum() | types.Pointer():
            return str(value)
        case types.Buffer():
            return f"[{','.join(map(str, value))}]"
        case types.Array() if not is_text_array(type_):
            return f"[{','.join([json(type_.element, v, environment) for v in value])}]"
        case types.Tuple() if type_.names is None:
            parts = members(type_, value)
            return f"[{','.join([json(t, v, environment) for _, t, v in parts])}]"
        case types.Struct() | types.Tuple():
            pairs = [
                f"{json_string(n)}: {json(t, v, environment)}" for n, t, v in members(type_, value)
            ]
            return f"{{{', '.join(pairs)}}}"
        case _:
            return "null" if value is None else json_string(text(type_, value, environment))


def json_key(type_: types.Type, value: Any, environment: Environment) -> str:
    """A map's key as a JSON string; the parts of a tuple are joined by commas."""
    if isinstance(type_, types.Tuple) and type_.names is None:
        parts = [_dense_text(t, v, environment) for _, t, v in members(type_, value)]
        return json_string(",".join(parts))
    return json_string(_dense_text(type_, value, environment))


def _dense_text(type_: types.Type, value: Any, environment: Environment) -> str:
    """A value as :func:`text` has it, with no spaces between the parts of tuples and structs."""
    if not isinstance(type_, types.Struct | types.Tuple):
        return text(type_, value, environment)
    parts = [(n, _dense_text(t, v, environment)) for n, t, v in members(type_, value)]
    if isinstance(type_, types.Tuple) and type_.names is None:
        return f"({','.join(part for _, part in parts)})"
    return f"{{{','.join(f'.{name}={part}' for name, part in parts)}}}"
