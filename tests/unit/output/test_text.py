# SPDX-License-Identifier: Apache-2.0
"""What events print as text, to the byte."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest

from kcap.codegen.environment import Environment
from kcap.functions.aggregates import AvgType, CountType, Stats, StatsType
from kcap.functions.events import (
    AttachedProbes,
    CaseResult,
    CaseStarted,
    HelperError,
    Lost,
    MapPrinted,
    Message,
    Printf,
    SuiteEnded,
    SuiteStarted,
    TextPrinted,
    TraceEnded,
    ValuePrinted,
)
from kcap.functions.format import Format
from kcap.functions.histogram import HistType, LinearHistType
from kcap.functions.stacks import StackType
from kcap.functions.symbols import KernelSymbol
from kcap.functions.tseries import TseriesType
from kcap.lang.source import MacroSpan, Source
from kcap.output.text import TextRenderer, excerpt, place
from kcap.sema.config import Config
from kcap.sema.tree import Map
from kcap.sema.types import (
    BOOL,
    INT8,
    INT32,
    INT64,
    UINT8,
    UINT64,
    VOID,
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


class Symbols:
    """Kernel symbols as a test wants them."""

    def symbolize(self, address: int) -> Any:
        return ("vfs_read", address - 0x1000) if 0x1000 <= address < 0x2000 else None


class Stacks:
    """One stack."""

    def read(self, map_name: str, stack_id: int) -> Any:
        known = (map_name, stack_id) == ("stack_kernel_3", 7)
        return struct.pack("<3Q", 0x1004, 0x9999, 0) if known else b""


ENVIRONMENT = Environment(Config(), kernel=Symbols(), stacks=Stacks())
RENDERER = TextRenderer(ENVIRONMENT)
FOO = Struct(
    "struct", "Foo", 8, "test", lambda _: None,
    lambda: (Field("m", 0, INT32), Field("n", 4, INT32)),
)  # fmt: skip


def shown(type_: Type, value: Any) -> Any:
    """What print() shows of a value."""
    return RENDERER.output(ValuePrinted(type_, value))


def map_text(key: Any, value_type: Type, entries: Any, name: str = "@x", **options: Any) -> Any:
    """What print() shows of a map."""
    return RENDERER.output(MapPrinted(Map(name, key, value_type), entries, **options))


def histogram(type_: HistType | LinearHistType, *values: Any) -> Any:
    """The histogram of values."""
    counts: dict[int, int] = {}
    for value in values:
        index = type_.index(value)
        counts[index] = counts.get(index, 0) + 1
    return type_.histogram(counts)


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (INT64, -5, "-5"),
        (UINT64, 2**64 - 1, "18446744073709551615"),
        (BOOL, True, "true"),
        (String(16), "a b", "a b"),
        (Pointer(VOID), 0xFFFF, "0xffff"),
        (Enum("E", 4, False, {1: "ONE"}), 1, "ONE"),
        (Enum("E", 4, False, {1: "ONE"}), 2, "2"),
        (Buffer(8), b"ok\0\xff", "ok\\x00\\xff"),
        (Array(INT32, 4), [1, 2, 3, 4], "[1,2,3,4]"),
        (Array(Array(INT32, 2), 2), [[5, 6], [7, 8]], "[[5,6],[7,8]]"),
        (Array(INT8, 6), [104, 105, 0, 1, 2, 3], "hi"),
        (FOO, {"m": 2, "n": 3}, "{ .m = 2, .n = 3 }"),
        (Tuple((INT64, String(8), Tuple((INT64, INT64)))), (1, "s", (4, 5)), "(1, s, (4, 5))"),
        (
            Tuple((INT64, FOO), ("x", "y")), {"x": 1, "y": {"m": 0, "n": -1}},
            "{ .x = 1, .y = { .m = 0, .n = -1 } }",
        ),
        (KernelSymbol(), 0x1008, "vfs_read"),
        (KernelSymbol(), 0x8, "0x8"),
        (StackType(False, "bpftrace", 3), (7, 0), "\n        vfs_read+4\n        0x9999\n"),
        (StackType(False, "raw", 3), (7, 0), "\n1004\n9999\n"),
    ],
)  # fmt: skip
def test_values(type_: Type, value: Any, text: str) -> None:
    assert shown(type_, value) == f"{text}\n"


def test_a_map_without_keys_is_one_line() -> None:
    assert map_text(None, INT64, [(None, 5)]) == "@x: 5\n"
    assert map_text(None, CountType(), [(None, 3)], name="@") == "@: 3\n"


def test_an_empty_map_without_keys_prints_zero() -> None:
    assert map_text(None, INT64, [], name="@") == "@: 0\n"
    assert map_text(None, CountType(), [], name="@") == "@: 0\n"
    assert map_text(None, StatsType(), []) == "@x: { .count = 0, .average = 0, .total = 0 }\n"
    record = Tuple((INT64, Tuple((INT64, String(4)))), ("a", "b"))
    assert map_text(None, record, [], name="@") == "@: { .a = 0, .b = (0, ) }\n"


def test_integer_maps_are_sorted_by_value_with_no_empty_line_behind_them() -> None:
    entries = [("b", 3), ("a", 10), ("c", 3), ("d", -1)]
    assert map_text(String(16), INT64, entries) == ("@x[d]: -1\n@x[b]: 3\n@x[c]: 3\n@x[a]: 10\n")


def test_other_maps_are_sorted_by_key() -> None:
    entries = [((2, "b"), "x"), ((1, "z"), "y"), ((2, "a"), "z")]
    assert map_text(Tuple((INT64, String(16))), String(16), entries) == (
        "@x[1, z]: y\n@x[2, a]: z\n@x[2, b]: x\n"
    )


def test_top_and_div_of_averages() -> None:
    entries = [("a", 10), ("b", 20), ("c", 30), ("d", 40)]
    assert map_text(String(2), AvgType(), entries, name="@", top=2, div=10) == (
        "@[c]: 3\n@[d]: 4\n"
    )
    assert map_text(String(2), AvgType(), entries, name="@", top=10, div=10) == (
        "@[a]: 1\n@[b]: 2\n@[c]: 3\n@[d]: 4\n"
    )


def test_stats_of_keys() -> None:
    entries = [("zsh", Stats(1, 10, 10)), ("curl", Stats(2, 2, 4))]
    assert map_text(String(16), StatsType(), entries, name="@s") == (
        "@s[curl]: { .count = 2, .average = 2, .total = 4 }\n"
        "@s[zsh]: { .count = 1, .average = 10, .total = 10 }\n"
    )


def test_a_histogram_with_negative_values() -> None:
    value = histogram(HistType(), -1, 2, 3, 7, 20)
    assert map_text(None, HistType(), [(None, value)], name="@") == (
        "@:\n"
        "(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[0]                    0 |                                                    |\n"
        "[1]                    0 |                                                    |\n"
        "[2, 4)                 2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n"
        "[4, 8)                 1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[8, 16)                0 |                                                    |\n"
        "[16, 32)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "\n"
    )


def labels(type_: HistType | LinearHistType, *values: Any) -> Any:
    """The labels of a histogram's rows."""
    text = map_text(None, type_, [(None, histogram(type_, *values))])
    return [line[:16].rstrip() for line in text.splitlines()[1:] if line]


def test_large_limits_have_units() -> None:
    assert labels(HistType(), 512) == ["[512, 1K)"]
    assert labels(HistType(), 10 << 30) == ["[8G, 16G)"]
    assert labels(HistType(), 2**62) == ["[4E, 8E)"]


def test_fine_buckets_keep_whole_numbers() -> None:
    assert labels(HistType(3), 15, 16) == ["[15]", "[16, 18)"]
    assert labels(HistType(3), 1024) == ["[1024, 1152)"]
    assert labels(HistType(3), 8192) == ["[8K, 9K)"]


def test_a_linear_histogram() -> None:
    type_ = LinearHistType(0, 10, 2)
    value = histogram(type_, 2, 3, 7, -1, 11)
    assert map_text(None, type_, [(None, value)], name="@") == (
        "@:\n"
        "(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[0, 2)                 0 |                                                    |\n"
        "[2, 4)                 2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n"
        "[4, 6)                 0 |                                                    |\n"
        "[6, 8)                 1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[8, 10)                0 |                                                    |\n"
        "[10, ...)              1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "\n"
    )


def test_histograms_of_keys_are_apart_by_one_empty_line() -> None:
    entries = [(3, histogram(HistType(), 1, 1)), (1, histogram(HistType(), 1))]
    bar = "@" * 52
    assert map_text(INT64, HistType(), entries, name="@p") == (
        f"@p[1]:\n[1]                    1 |{bar}|\n\n@p[3]:\n[1]                    2 |{bar}|\n\n"
    )


def test_top_of_histograms_keeps_the_last() -> None:
    entries = [(n, histogram(HistType(), n * 10)) for n in (1, 2, 3)]
    text = map_text(INT64, HistType(), entries, name="@", top=2)
    assert [line for line in text.splitlines() if line.startswith("@[")] == ["@[2]:", "@[3]:"]


def test_stack_keys_stand_on_lines_of_their_own() -> None:
    type_ = StackType(False, "bpftrace", 3)
    assert map_text(type_, CountType(), [((7, 0), 2)], name="@") == (
        "@[\n    vfs_read+4\n    0x9999\n]: 2\n"
    )


def test_a_time_series_is_a_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENVIRONMENT, "boot_to_wall", lambda: 0, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    type_ = TseriesType(100_000_000, 5)
    entries = [(n % 5, [(n, value, 1)]) for n, value in ((5, -5), (6, 0), (7, 5), (9, 1))]
    collected = type_.collect(entries, False)
    rule = "_" * 51
    assert map_text(None, type_, collected, name="@") == (
        "@:\n"
        "             -5                                                  5\n"
        f"hh:mm:ss.ms  |{rule}|\n"
        f"00:00:00.500 *{' ' * 25}.{' ' * 25}| -5\n"
        f"00:00:00.600 |{' ' * 25}*{' ' * 25}| 0\n"
        f"00:00:00.700 |{' ' * 25}.{' ' * 25}* 5\n"
        f"00:00:00.800 |{' ' * 25}.{' ' * 25}| -\n"
        f"00:00:00.900 |{' ' * 25}.{' ' * 4}*{' ' * 20}| 1\n"
        f"             v{rule}v\n"
        "             -5                                                  5\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("interval", "heading", "first"),
    [
        (100, "hh:mm:ss.ns        |", "00:00:05.000000300 "),
        (100_000, "hh:mm:ss.us     |", "00:00:05.000300 "),
        (100_000_000, "hh:mm:ss.ms  |", "00:00:05.300 "),
        (1_000_000_000, "hh:mm:ss.ns        |", "00:00:08.000000000 "),
    ],
)
def test_times_of_a_series_tell_its_intervals_apart_and_are_whole_ones(
    monkeypatch: pytest.MonkeyPatch, interval: int, heading: str, first: str
) -> None:
    monkeypatch.setattr(ENVIRONMENT, "boot_to_wall", lambda: 5_000_000_007, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    type_ = TseriesType(interval, 5)
    lines = map_text(None, type_, type_.collect([(3, [(3, 9, 1)])], False)).splitlines()
    assert lines[2].startswith(heading)
    assert lines[3].startswith(first)


def test_printf_and_other_text_is_printed_as_it_is() -> None:
    assert RENDERER.output(Printf("a\n", Format("a\n", []), b"")) == "a\n"
    assert RENDERER.output(TextPrinted("time", "10:00:00\n")) == "10:00:00\n"


def test_values_of_a_printf_are_decoded_on_demand() -> None:
    event = Printf("1 x", Format("%d %s", [INT32, String(4)]), b"\x01\0\0\0x\0\0\0")
    assert event.values == (1, "x")


def test_the_start_and_the_end_of_a_trace() -> None:
    assert RENDERER.message(AttachedProbes(1)) == "Attached 1 probe\n"
    assert RENDERER.message(AttachedProbes(2)) == "Attached 2 probes\n"
    assert RENDERER.output(TraceEnded()) == "\n\n"
    assert TextRenderer(ENVIRONMENT, quiet=True).message(AttachedProbes(2)) == ""


SCRIPT = Source("stdin", 'begin { errorf("Something bad with args: %d, %s", 10, "arg2"); }')
CALL = SCRIPT.span(8, 61)


def test_messages_have_their_place_and_the_line() -> None:
    assert place(CALL) == "stdin:1:9-62"
    assert excerpt(CALL) == f"{SCRIPT.text}\n{' ' * 8}{'~' * 53}\n"
    text = RENDERER.message(Message("error", "Something bad with args: 10, arg2", CALL))
    assert text.splitlines()[0] == "stdin:1:9-62: ERROR: Something bad with args: 10, arg2"
    assert RENDERER.output(Message("error", "x", CALL)) == ""


def test_warnings_can_be_turned_off() -> None:
    quiet = TextRenderer(ENVIRONMENT, warnings=False)
    assert quiet.message(Message("warning", "w", CALL)) == ""
    assert quiet.message(Message("error", "e", CALL)) != ""


def test_errors_of_helpers_name_the_helper() -> None:
    source = Source("stdin", 'i:ms:100 { @[1] = 1; printf("%d\\n", @[2]); exit(); }')
    event = HelperError(
        "map_lookup_elem", 0, "Can't lookup map element because it does not exist.",
        source.span(36, 40),
    )  # fmt: skip
    assert RENDERER.message(event) == (
        "stdin:1:37-41: WARNING: Can't lookup map element because it does not exist.\n"
        "Additional Info - helper: map_lookup_elem, retcode: 0\n"
        f"{source.text}\n"
        f"{' ' * 36}~~~~\n"
    )


def test_losses_are_counted() -> None:
    assert RENDERER.message(Lost(3)) == "Lost 3 events\n"
    assert (
        RENDERER.message(Lost(1, "packet", "fentry:ip_rcv")) == "Lost 1 packets at fentry:ip_rcv\n"
    )
    assert "WARNING: Map full; can't update element." in RENDERER.message(Lost(1, "map", "@a"))


def test_small_integers_are_numbers() -> None:
    assert shown(UINT8, 1) == "1\n"


def test_a_message_from_a_macro_shows_every_call_on_the_way_to_it() -> None:
    source = Source("stdin", 'macro bad() { errorf("no"); } begin { bad(); }')
    inside = MacroSpan(source, 14, 26, source.span(38, 43))
    assert RENDERER.message(Message("error", "no", inside)) == (
        "stdin:1:15-27: ERROR: no\n"
        "stdin:1:39-44: ERROR: expanded from\n"
        f"{source.text}\n"
        f"{' ' * 38}~~~~~\n"
    )


@pytest.mark.parametrize("key_type", [INT64, UINT64, INT8, INT32])
def test_maps_of_integers_are_sorted_by_value_then_by_key(key_type: Type) -> None:
    entries = [(3, 7), (1, 9), (2, 7), (-4, 7), (5, -1)]
    values = [value for _, value in entries]
    data = [key.to_bytes(key_type.size, "little", signed=True) for key, _ in entries]
    keys = key_type.decode_all(data)
    assert keys == [key_type.decode(each) for each in data]
    map_ = Map("@x", key_type, INT64)
    shown = TextRenderer(Environment(Config())).output(
        MapPrinted(map_, list(zip(keys, values, strict=True)))
    )
    wanted = sorted(zip(values, keys, strict=True))
    assert shown == "".join(f"@x[{key}]: {value}\n" for value, key in wanted)


def test_dividing_a_map_of_integers_divides_each() -> None:
    map_ = Map("@x", UINT64, CountType())
    shown = TextRenderer(Environment(Config())).output(MapPrinted(map_, [(1, 7), (2, 30)], div=3))
    assert shown == "@x[1]: 2\n@x[2]: 10\n"


def test_nothing_is_printed_for_an_empty_map_with_keys_or_an_empty_histogram() -> None:
    assert RENDERER.output(MapPrinted(Map("@x", INT64, INT64), [])) == ""
    assert RENDERER.output(MapPrinted(Map("@x", None, HistType(0)), [])) == ""
    assert RENDERER.output(MapPrinted(Map("@x", None, INT64), [])) == "@x: 0\n"


def test_tests_are_told_as_googletest_does() -> None:
    failed = CaseResult("bad", "returned 1", 12_345_678, [Printf("shown\n", Format("x", []), b"")])
    passed = CaseResult("fine", "", 1_500, [Printf("hidden\n", Format("x", []), b"")])
    events = [SuiteStarted(2), CaseStarted("fine"), passed, failed, SuiteEnded(2, ["bad"])]
    assert "".join(map(RENDERER.output, events)) == (
        "\x1b[32m[==========]\x1b[0m Running 2 tests.\n"
        "\x1b[32m[ RUN      ]\x1b[0m fine\n"
        "\x1b[32m[       OK ]\x1b[0m fine (1 μs)\n"
        "shown\n"
        "\x1b[31m[  FAILED  ]\x1b[0m bad (12 ms)\n"
        "\x1b[32m[==========]\x1b[0m 2 tests ran.\n"
        "\x1b[32m[  PASSED  ]\x1b[0m 1 test.\n"
        "\x1b[31m[  FAILED  ]\x1b[0m 1 test, listed below:\n"
        "\x1b[31m[  FAILED  ]\x1b[0m bad\n"
    )
    assert [RENDERER.message(event) for event in (passed, failed)] == ["", "bad: returned 1\n"]
    assert [RENDERER.output(event) for event in (SuiteStarted(0), SuiteEnded(0, []))] == ["", ""]
