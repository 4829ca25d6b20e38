# SPDX-License-Identifier: Apache-2.0
"""Objects as bytes and back: all that a compiled script holds, nothing that runs code."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.codegen.environment import Environment
from kcap.codegen.module import LostCounter
from kcap.functions.aggregates import AvgType, CountType
from kcap.functions.clock import Timestamp
from kcap.functions.events import AttachedProbes
from kcap.functions.format import Format
from kcap.functions.packet_site import PacketSite
from kcap.functions.sites import ExitSite, JoinSite, PrintfSite, PrintMapSite
from kcap.functions.symbols import KernelSymbol
from kcap.kernel.spec import MapSpec
from kcap.lang.source import MacroSpan, Source
from kcap.plain import PlainError, dumps, loads
from kcap.sema import tree
from kcap.sema.config import Config
from kcap.sema.types import INT8, INT32, UINT64, Array, Enum, Field, Pointer, String, Struct, Tuple

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
)


@given(VALUES)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    found = loads(dumps(value))
    assert found == value
    assert type(found) is type(value)


def test_bytes_that_are_no_text_come_back() -> None:
    text = b"/tmp/\xff\xfe".decode("utf-8", "surrogateescape")
    assert loads(dumps([text, text])) == [text, text]


@pytest.mark.parametrize(
    "value",
    [
        MapSpec("AT_x", 1, 8, 8, 4096, contents=b"\0\1"),
        Tuple((INT32, String(16), Array(UINT64, 3)), ("a", "b", "c")),
        Enum("state", 4, False, {0: "RUNNING", 1: "STOPPED"}),
        CountType(),
        AvgType(True),
        Timestamp("%H:%M"),
        KernelSymbol(),
        frozenset({1, 2}),
    ],
    ids=str,
)
def test_records_and_types_come_back(value: Any) -> None:
    assert loads(dumps(value)) == value


def test_what_several_refer_to_stays_one() -> None:
    map_ = tree.Map("@x", UINT64, CountType())
    first, second, alone = loads(dumps([PrintMapSite(map_, 1, 0), PrintMapSite(map_, 2, 0), map_]))
    assert first.map is second.map is alone
    assert (first.top, second.top, alone.name) == (1, 2, "@x")


def test_a_place_that_sends_packets_is_the_one_that_a_counter_means() -> None:
    site = PacketSite("a.pcap", 0, "fentry:ip_rcv", reasons={2: "NOT_SPECIFIED"})
    found, counter = loads(dumps([site, LostCounter("packet", "fentry:ip_rcv", site)]))
    assert counter.site is found
    assert (found.path, found.reasons) == ("a.pcap", {2: "NOT_SPECIFIED"})


def test_a_place_in_a_macro_keeps_its_source_and_its_call() -> None:
    source = Source("x.bt", "macro f() { 1 }\nbegin { f() }")
    span = MacroSpan(source, 12, 13, source.span(24, 27))
    found = loads(dumps(span))
    assert (found.text, found.line, found.call.text) == ("1", 1, "f()")
    assert found.source is found.call.source
    assert found.source.name == "x.bt"


def test_a_struct_is_decoded_as_before_and_pointers_end_at_its_name() -> None:
    def node() -> Struct:
        return Struct("struct", "node", 16, 7, lambda _: None, fields)

    def fields() -> tuple[Field, ...]:
        bit = Field("bit", 8, INT8, bit_shift=1, bit_size=2)
        return Field("next", 0, Pointer(node())), bit, Field("name", 9, String(7))

    found = loads(dumps(node()))
    data = (0x1234).to_bytes(8, "little") + b"\x06abc\0\0\0\0"
    assert found.decode(data) == node().decode(data) == {"next": 0x1234, "bit": 3, "name": "abc"}
    assert (found.size, found.align, str(found)) == (16, 8, "struct node")
    assert str(found.all_fields()[0].type) == "struct node *"


def test_sites_print_as_before() -> None:
    format_ = Format("%d %s\n", [INT32, String(8)])
    span = Source("x", "printf").span(0, 6)
    found, exit_, join = loads(dumps([PrintfSite(format_, span), ExitSite(), JoinSite(", ")]))
    data = b"\x05\0\0\0text\0\0\0\0"
    environment = Environment(Config())
    assert found.format.format(found.payload.decode(data), environment) == "5 text\n"
    assert found.span.text == "printf"
    assert isinstance(exit_, ExitSite)
    assert join.separator == ", "


@pytest.mark.parametrize("value", [1.5, object(), os.getpid, lambda: 1, os, PlainError, {1: [2j]}])
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(PlainError):
        dumps(value)


def test_only_classes_of_this_package_are_called() -> None:
    made = dumps(MapSpec("AT_x", 1, 8, 8, 1))
    for module, name in ((b"os", b"system"), (b"kcap.cachedir", b"os"), (b"kcap.no", b"MapSpec")):
        changed = made.replace(b"s\x10kcap.kernel.spec", b"s" + bytes([len(module)]) + module)
        changed = changed.replace(b"s\x07MapSpec", b"s" + bytes([len(name)]) + name)
        assert changed != made
        with pytest.raises(PlainError):
            loads(changed)


def test_only_classes_that_are_written_are_made(tmp_path: Path) -> None:
    """Making a capture file would create it."""
    path = tmp_path / "a.pcap"
    forged = dumps(AttachedProbes(str(path)))  # type: ignore[arg-type]
    for old, new in (
        ("kcap.functions.events", "kcap.packet.files"),
        ("AttachedProbes", "OutputFile"),
    ):
        assert bytes([len(old)]) + old.encode() in forged
        forged = forged.replace(bytes([len(old)]) + old.encode(), bytes([len(new)]) + new.encode())
    with pytest.raises(PlainError, match=r"^kcap\.packet\.files has no class OutputFile"):
        loads(forged)
    assert not path.exists()


@given(st.data())
def test_damaged_bytes_are_an_error_or_a_value_and_nothing_else(data: st.DataObject) -> None:
    made = dumps([MapSpec("AT_x", 1, 8, 8, 1), {"a": (1, None)}, b"bytes"])
    at = data.draw(st.integers(0, len(made) - 1))
    damaged = made[:at] + bytes([data.draw(st.integers(0, 255))]) + made[at + 1 :]
    with suppress(PlainError):
        loads(damaged)


def test_bytes_that_are_cut_off_are_an_error() -> None:
    made = dumps([MapSpec("AT_x", 1, 8, 8, 1), 2])
    for short in (b"", made[:1], made[:-1], made[:-2]):
        with pytest.raises(PlainError):
            loads(short)
