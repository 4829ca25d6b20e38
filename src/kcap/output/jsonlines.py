# SPDX-License-Identifier: Apache-2.0
"""Events as JSON, one object a line, as ``-f json`` of bpftrace has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.functions import display
from kcap.functions.aggregates import AvgType, Stats, StatsType, divide
from kcap.functions.display import json_string
from kcap.functions.events import (
    AttachedProbes,
    Benchmarks,
    CaseResult,
    HelperError,
    Lost,
    MapPrinted,
    Message,
    Missed,
    Printf,
    TextPrinted,
    ValuePrinted,
)
from kcap.functions.histogram import Histogram, HistogramType
from kcap.functions.tseries import Series, TseriesType
from kcap.output.maps import zero_value
from kcap.output.sorting import ordered
from kcap.output.text import TextRenderer
from kcap.output.tseries import json_series

try:  # what json.encoder uses; escapes what json_string() does, in C
    from _json import encode_basestring as _quoted
except ImportError:  # a Python without it
    _quoted = json_string

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment
    from kcap.functions.events import Benchmark


class JsonRenderer:
    """Turns events into JSON lines for standard output; messages stay text on standard error.

    :param environment: resolves symbols, times and the like.
    :param quiet: leave out messages about probes.
    :param warnings: print warnings.
    """

    def __init__(
        self, environment: Environment, *, quiet: bool = False, warnings: bool = True
    ) -> None:
        self.environment = environment
        self.quiet = quiet
        self._text = TextRenderer(environment, quiet=quiet, warnings=warnings)

    def output(self, event: object) -> str:
        """The line of an event, '' if it has none."""
        if isinstance(event, Printf):
            return self.printf(event.text)
        if isinstance(event, TextPrinted):
            text = event.text.removesuffix("\n") if event.kind == "join" else event.text
            return _line(event.kind, json_string(text))
        if isinstance(event, ValuePrinted):
            return _line("value", display.json(event.type, event.value, self.environment))
        if isinstance(event, MapPrinted):
            return self._map(event)
        if isinstance(event, Lost):
            if event.kind == "filter":
                return ""
            return _line("lost_events", f'{{"events": {event.count}}}')
        if isinstance(event, HelperError):
            return _helper_error(event)
        if isinstance(event, AttachedProbes) and not self.quiet:
            data = f'{{"probes": {event.count}}}'
            return f'{{"type": "attached_probes", "count": {event.count}, "data": {data}}}\n'
        if isinstance(event, CaseResult):
            return self._test_result(event)
        if isinstance(event, Benchmarks):
            return "".join(_benchmark(item) for item in event.results)
        return ""

    def _test_result(self, event: CaseResult) -> str:
        printed = "".join(self._text.output(each) for each in event.printed)
        data = (
            f'{{"duration": {event.nanoseconds}, "passed": {"false" if event.reason else "true"}, '
            f'"output": {json_string(printed)}}}'
        )
        return _line("test_result", f"{{{json_string(event.name)}: {data}}}")

    @staticmethod
    def printf(text: str) -> str:
        """The line of a ``printf()``."""
        return f'{{"type": "printf", "data": {_quoted(text)}}}\n'

    def message(self, event: object) -> str:
        """The text for standard error, '' if it has none."""
        unjudged = isinstance(event, Lost) and event.kind == "filter"
        return self._text.message(event) if unjudged or isinstance(event, Message | Missed) else ""

    def _map(self, event: MapPrinted) -> str:
        value_type = event.map.value
        if not event.entries and (event.map.key is not None or _has_rows(value_type)):
            return ""
        if event.map.key is None:
            value = event.entries[0][1] if event.entries else zero_value(value_type)
            data = self._value(value_type, value, event.div)
        else:
            pairs = []
            for key, value in ordered(event.map, event.entries, event.top):
                name = display.json_key(event.map.key, key, self.environment)
                pairs.append(f"{name}: {self._value(value_type, value, event.div)}")
            data = f"{{{', '.join(pairs)}}}"
        return _line(_map_kind(value_type), f"{{{json_string(event.map.name)}: {data}}}")

    def _value(self, type_: Any, value: Any, div: int) -> str:
        if isinstance(value, Histogram):
            return _histogram(value, div)
        if isinstance(value, Series):
            return json_series(value, self.environment)
        if isinstance(value, Stats):
            average, total = divide(value.average, div or 1), divide(value.total, div or 1)
            return f'{{"count": {value.count}, "average": {average}, "total": {total}}}'
        if isinstance(value, int) and not isinstance(value, bool):
            return str(divide(value, div) if div else value)
        return display.json(type_, value, self.environment)


def _has_rows(type_: Any) -> bool:
    """Whether nothing is printed for an empty map of such a value: a histogram, a time series."""
    return isinstance(type_, HistogramType | TseriesType)


def _map_kind(type_: Any) -> str:
    if isinstance(type_, HistogramType):
        return "hist"
    if isinstance(type_, TseriesType):
        return "tseries"
    return "stats" if isinstance(type_, AvgType | StatsType) else "map"


def _line(kind: str, data: str) -> str:
    return f'{{"type": "{kind}", "data": {data}}}\n'


def _benchmark(item: Benchmark) -> str:
    data = f'{{"average": {item.average}, "iters": {item.iterations}}}'
    return _line("benchmark_result", f"{{{json_string(item.name)}: {data}}}")


def _histogram(histogram: Histogram, div: int) -> str:
    buckets = []
    for bucket in histogram.buckets:
        low = "" if bucket.low is None else f'"min": {bucket.low}, '
        high = "" if bucket.high is None else f'"max": {bucket.high - 1}, '
        buckets.append(f'{{{low}{high}"count": {bucket.count // (div or 1)}}}')
    return f"[{','.join(buckets)}]"


def _helper_error(event: HelperError) -> str:
    place = ""
    if event.span is not None:
        source, start = event.span.source, event.span.start
        place = (
            f', "filename": {json_string(source.name)}, "line": {source.line_of(start)}'
            f', "col": {source.column_of(start)}'
        )
    return (
        f'{{"type": "helper_error", "msg": {json_string(event.text)}, '
        f'"helper": {json_string(event.helper)}, "retcode": {event.retcode}{place}}}\n'
    )
