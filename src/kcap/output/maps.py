# SPDX-License-Identifier: Apache-2.0
"""Maps as text, as bpftrace prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.functions import display
from kcap.functions.aggregates import Stats, divide
from kcap.functions.histogram import Histogram
from kcap.functions.tseries import Series
from kcap.output.histogram import rows
from kcap.output.sorting import integers_only, ordered
from kcap.output.tseries import series_rows
from kcap.sema.types import Aggregate

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment
    from kcap.functions.events import MapPrinted


def map_text(event: MapPrinted, environment: Environment) -> str:
    """The lines of a map.

    :param environment: resolves symbols, times and the like.
    """
    name, value_type = event.map.name, event.map.value
    if event.map.key is None:
        value = event.entries[0][1] if event.entries else zero_value(value_type)
        if not event.entries and isinstance(value, Histogram | Series):
            return ""
        return _entry(name, value_type, value, event.div, environment)
    entries = ordered(event.map, event.entries, event.top)
    keys = display.key_texts(event.map.key, [key for key, _ in entries], environment)
    pairs = zip(keys, (value for _, value in entries), strict=True)
    if not event.div and integers_only(event.map, entries):
        lines = [f"{name}[{key}]: {value}\n" for key, value in pairs]
    else:
        lines = [
            _entry(f"{name}[{key}]", value_type, value, event.div, environment)
            for key, value in pairs
        ]
    return "".join(lines)


def _entry(name: str, type_: Any, value: Any, div: int, environment: Environment) -> str:
    """One entry with its line end; what takes several lines has an empty one behind it."""
    if isinstance(value, Histogram | Series):
        lines = (
            rows(value, div) if isinstance(value, Histogram) else series_rows(value, environment)
        )
        return "".join([f"{line}\n" for line in (f"{name}:", *lines, "")])
    return f"{name}: {_value(type_, value, div, environment)}\n"


def _value(type_: Any, value: Any, div: int, environment: Environment) -> str:
    """A map's value, divided by ``div`` if it is a number."""
    if isinstance(value, Stats):
        average, total = divide(value.average, div or 1), divide(value.total, div or 1)
        return f"{{ .count = {value.count}, .average = {average}, .total = {total} }}"
    if div and isinstance(value, int) and not isinstance(value, bool):
        value = divide(value, div)
    return display.text(type_, value, environment)


def zero_value(type_: Any) -> Any:
    """What an empty map without keys is printed as: its value type's zero."""
    if isinstance(type_, Aggregate):
        collected = type_.collect([], False)
        if collected:
            return collected[0][1]
        if hasattr(type_, "histogram"):
            return type_.histogram({})
        return type_.reduce([])
    return type_.decode(bytes(max(8, type_.size)))
