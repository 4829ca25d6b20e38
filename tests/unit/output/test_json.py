# SPDX-License-Identifier: Apache-2.0
"""What events print as JSON, to the byte; every line is JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.codegen.environment import Environment
from kcap.functions.aggregates import AvgType, Stats, StatsType
from kcap.functions.display import json_string
from kcap.functions.events import (
    AttachedProbes,
    HelperError,
    Lost,
    MapPrinted,
    Printf,
    TextPrinted,
    TraceEnded,
    ValuePrinted,
)
from kcap.functions.format import Format
from kcap.functions.histogram import HistType, LinearHistType
from kcap.functions.tseries import TseriesType
from kcap.lang.source import Source
from kcap.output.jsonlines import JsonRenderer
from kcap.sema.config import Config
from kcap.sema.tree import Map
from kcap.sema.types import (
    BOOL,
    INT16,
    INT32,
    INT64,
    UINT8,
    Array,
    Buffer,
    Enum,
    Field,
    Pointer,
    String,
    Struct,
    Tuple,
    Type,
)

ENVIRONMENT = Environment(Config())
RENDERER = JsonRenderer(ENVIRONMENT)
FOO = Struct(
    "struct", "Foo", 8, "test", lambda _: None,
    lambda: (Field("m", 0, INT32), Field("n", 4, INT32)),
)  # fmt: skip


def line(event: object) -> Any:
    """The line of an event without its end; it has to be JSON."""
    text = RENDERER.output(event)
    json.loads(text)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text[:-1]


def map_line(key: Any, value_type: Type, entries: Any, name: str = "@", **options: Any) -> Any:
    """The line of a map."""
    return line(MapPrinted(Map(name, key, value_type), entries, **options))


@given(st.text())
def test_strings_survive(text: str) -> None:
    assert json.loads(json_string(text)) == text


def test_printf_escapes_what_has_to_be() -> None:
    event = Printf('test \r \n \t \\ " bar', Format("", []), b"")
    assert line(event) == '{"type": "printf", "data": "test \\r \\n \\t \\\\ \\" bar"}'


def test_other_texts_have_their_own_type() -> None:
    assert line(TextPrinted("syscall", "a b c\n")) == '{"type": "syscall", "data": "a b c\\n"}'
    assert line(TextPrinted("join", "/bin/echo,'A'\n")) == (
        '{"type": "join", "data": "/bin/echo,\'A\'"}'
    )


@pytest.mark.parametrize(
    ("type_", "value", "data"),
    [
        (INT64, 5, "5"),
        (String(16), "bpftrace", '"bpftrace"'),
        (Tuple((INT64, INT64, String(8))), (1, 2, "string"), '[1,2,"string"]'),
        (Tuple((BOOL, BOOL)), (True, False), "[true,false]"),
        (FOO, {"m": 2, "n": 3}, '{"m": 2, "n": 3}'),
        (Enum("", 4, False, {333: "FOO"}), 333, "333"),
        (Pointer(INT16), 0x32, "50"),
        (Array(UINT8, 2), [1, 2], "[1,2]"),
        (
            Tuple((INT64, Tuple((INT64, INT64))), ("a", "d")), {"a": 0, "d": (5, 6)},
            '{"a": 0, "d": [5,6]}',
        ),
    ],
)  # fmt: skip
def test_values(type_: Type, value: Any, data: Any) -> None:
    assert line(ValuePrinted(type_, value)) == f'{{"type": "value", "data": {data}}}'


def test_maps() -> None:
    assert map_line(None, INT64, [(None, 5)], "@scalar") == (
        '{"type": "map", "data": {"@scalar": 5}}'
    )
    assert map_line(String(8), INT64, [("key2", 3), ("key1", 2)]) == (
        '{"type": "map", "data": {"@": {"key1": 2, "key2": 3}}}'
    )
    assert map_line(Tuple((String(16), INT64)), INT64, [(("bpftrace", 2), 5)], "@complex") == (
        '{"type": "map", "data": {"@complex": {"bpftrace,2": 5}}}'
    )
    nested = Tuple((INT64, INT64, String(8), Tuple((INT64, INT64))))
    assert map_line(None, nested, [(None, (1, 2, "string", (4, 5)))]) == (
        '{"type": "map", "data": {"@": [1,2,"string",[4,5]]}}'
    )


def test_averages_and_stats_are_of_type_stats() -> None:
    entries = [("a", 10), ("b", 20), ("c", 30), ("d", 40)]
    assert map_line(String(2), AvgType(), entries, top=2, div=10) == (
        '{"type": "stats", "data": {"@": {"c": 3, "d": 4}}}'
    )
    assert map_line(None, StatsType(), [(None, Stats(2, 6, 12))], "@stats") == (
        '{"type": "stats", "data": {"@stats": {"count": 2, "average": 6, "total": 12}}}'
    )


def test_histograms() -> None:
    type_ = HistType()
    entries = [(n, type_.histogram({type_.index(10 * n): 1})) for n in (1, 2, 3)]
    assert map_line(INT64, type_, entries, top=2) == (
        '{"type": "hist", "data": {"@": {"2": [{"min": 16, "max": 31, "count": 1}], '
        '"3": [{"min": 16, "max": 31, "count": 1}]}}}'
    )
    negative = type_.histogram({0: 1, 1: 1})
    assert map_line(None, type_, [(None, negative)]) == (
        '{"type": "hist", "data": {"@": [{"max": -1, "count": 1},'
        '{"min": 0, "max": 0, "count": 1}]}}'
    )
    assert map_line(None, type_, [(None, type_.histogram({}))], "@hist") == (
        '{"type": "hist", "data": {"@hist": []}}'
    )
    assert RENDERER.output(MapPrinted(Map("@", None, type_), [])) == ""
    assert RENDERER.output(MapPrinted(Map("@", INT64, type_), [])) == ""
    assert RENDERER.output(MapPrinted(Map("@", INT64, INT64), [])) == ""


def test_linear_histograms() -> None:
    type_ = LinearHistType(0, 100, 10)
    value = type_.histogram({type_.index(95): 1, type_.index(1000): 1})
    assert map_line(None, type_, [(None, value)], "@h") == (
        '{"type": "hist", "data": {"@h": [{"min": 90, "max": 99, "count": 1},'
        '{"min": 100, "count": 1}]}}'
    )


def test_time_series_leave_out_empty_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENVIRONMENT, "boot_to_wall", lambda: 0, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    type_ = TseriesType(100_000_000, 5)
    collected = type_.collect([(0, [(5, 9, 1)]), (2, [(7, 8, 1)])], False)
    assert map_line(None, type_, collected, "@a") == (
        '{"type": "tseries", "data": {"@a": ['
        '{"interval_start":"1970-01-01 00:00:00.500000000","value":9},'
        '{"interval_start":"1970-01-01 00:00:00.700000000","value":8}]}}'
    )


def test_what_the_trace_says_of_itself() -> None:
    assert line(AttachedProbes(1)) == (
        '{"type": "attached_probes", "count": 1, "data": {"probes": 1}}'
    )
    assert line(Lost(3)) == '{"type": "lost_events", "data": {"events": 3}}'
    assert RENDERER.output(TraceEnded()) == ""


def test_errors_of_helpers_have_their_place() -> None:
    source = Source("stdin", f"{' ' * 86}x")
    event = HelperError("probe_read_user", -14, "Bad address", source.span(86, 87))
    assert line(event) == (
        '{"type": "helper_error", "msg": "Bad address", "helper": "probe_read_user", '
        '"retcode": -14, "filename": "stdin", "line": 1, "col": 87}'
    )


def test_every_character_of_a_printf_is_quoted_as_other_strings_are() -> None:
    text = "".join(map(chr, range(0x180))) + "\udc80\u2028\U0001f600"
    expected = f'{{"type": "printf", "data": {json_string(text)}}}\n'
    assert JsonRenderer.printf(text) == expected


def test_keys_of_tuples_and_records_have_no_spaces() -> None:
    nested = Tuple((INT64, Tuple((INT64, String(8)))))
    assert map_line(nested, INT64, [((1, (2, "x")), 5)]) == (
        '{"type": "map", "data": {"@": {"1,(2,x)": 5}}}'
    )
    record = Tuple((INT64, String(8)), ("x", "y"))
    assert map_line(record, INT64, [({"x": 1, "y": "z"}, 5)]) == (
        '{"type": "map", "data": {"@": {"{.x=1,.y=z}": 5}}}'
    )


def test_buffers_are_arrays_of_numbers() -> None:
    assert line(ValuePrinted(Buffer(2), b"a\x01")) == '{"type": "value", "data": [97,1]}'
