# SPDX-License-Identifier: Apache-2.0
"""The order in which a map's entries are printed.

Integers and aggregates: by value, smallest first; histograms by how much they counted; everything
else by key. Entries of equal value stand in the order of their keys.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from kcap.functions.aggregates import Stats
from kcap.functions.histogram import Histogram
from kcap.sema.types import Aggregate, Boolean, Enum, Integer

if TYPE_CHECKING:
    from kcap.sema.tree import Map

Entry = tuple[Any, Any]


def comparable(key: Any) -> Any:
    """A decoded key as something that sorts: parts of a tuple in turn, None first."""
    if isinstance(key, dict):
        return tuple(comparable(value) for value in key.values())
    if isinstance(key, list | tuple):
        return tuple(comparable(value) for value in key)
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape")
    return 0 if key is None else key


def weight(value: Any) -> int:
    """What a value counts for in the order."""
    if isinstance(value, Histogram):
        return value.total
    return int(value.average if isinstance(value, Stats) else value)


def ordered(map_: Map, entries: list[Entry], top: int = 0) -> list[Entry]:
    """The entries in the order in which they are printed.

    :param top: keep only as many of the largest; 0 for all.
    """
    if isinstance(map_.key, Integer):
        by_key = sorted(entries, key=itemgetter(0))
    else:
        by_key = sorted(entries, key=lambda entry: comparable(entry[0]))
    if not isinstance(map_.value, Aggregate | Integer | Boolean | Enum):
        pass
    elif all(type(value) is int for _, value in entries):
        by_key.sort(key=itemgetter(1))
    elif all(_is_number(value) for _, value in entries):
        by_key.sort(key=lambda entry: weight(entry[1]))
    return by_key[-top:] if top > 0 else by_key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Stats | Histogram)


def integers_only(map_: Map, entries: list[Entry]) -> bool:
    """Whether every value is printed as the integer it is."""
    plain = isinstance(map_.value, Aggregate | Integer)
    return plain and all(type(value) is int for _, value in entries)
