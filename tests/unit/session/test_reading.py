# SPDX-License-Identifier: Apache-2.0
"""From records to events and text: the order of both, and where ``exit()`` ends them."""

from __future__ import annotations

from kcap.codegen.compile import generate
from kcap.codegen.environment import Environment
from kcap.codegen.module import Features
from kcap.functions.events import Printf
from kcap.output.jsonlines import JsonRenderer
from kcap.output.text import TextRenderer
from kcap.session import script
from kcap.session.reading import EventReader
from kcap.session.runtime import Runtime

SCRIPT = 'begin { printf("a%d ", 1); print(5); printf("b%s ", "x"); exit(); printf("late") }'


def reader_of(text: str) -> tuple[EventReader, Runtime, list[bytes]]:
    """A reader for a script, and one record of each of its sites, all payloads zero."""
    checked = script.compile(text)
    module = generate(checked.script, Features())
    runtime = Runtime({}, Environment(checked.script.config))
    records = [
        number.to_bytes(8, "little") + bytes(site.payload.size)
        for number, site in enumerate(module.sites)
    ]
    return EventReader(module.sites, runtime), runtime, records


def output(reader: EventReader, runtime: Runtime, records: list[bytes], *, text: bool) -> str:
    written: list[str] = []
    if text:
        reader.on_text = written.append
    renderer = TextRenderer(runtime.environment)
    for event in reader.read(records):
        written.append(renderer.output(event))
    return "".join(written)


def test_every_printf_is_an_event_unless_somebody_takes_texts() -> None:
    reader, _, records = reader_of(SCRIPT)
    assert [type(event) for event in reader.read(records[:1] * 2)] == [Printf, Printf]


def test_text_and_events_come_in_the_order_of_the_records() -> None:
    for text in (False, True):
        reader, runtime, (first, value, second, *_) = reader_of(SCRIPT)
        mixed = [first, first, value, second, first, value, second]
        assert output(reader, runtime, mixed, text=text) == "a0 a0 0\nb a0 0\nb "


def test_nothing_comes_after_exit() -> None:
    for text in (False, True):
        reader, runtime, records = reader_of(SCRIPT)
        assert output(reader, runtime, records, text=text) == "a0 0\nb "
        assert runtime.exit_status == 0


def test_texts_are_wrapped_as_json_has_them() -> None:
    reader, runtime, records = reader_of(SCRIPT)
    renderer = JsonRenderer(runtime.environment)
    expected = "".join(renderer.output(event) for event in reader.read(records[:3]))
    again, _, _ = reader_of(SCRIPT)
    written: list[str] = []
    again.on_text, again.wrap = written.append, renderer.printf
    for event in again.read(records[:3]):
        written.append(renderer.output(event))
    assert "".join(written) == expected
    assert expected.startswith('{"type": "printf", "data": "a0 "}\n{"type": "value"')


def test_several_texts_are_handed_over_at_once() -> None:
    reader, _, records = reader_of(SCRIPT)
    taken: list[str] = []
    reader.on_text = taken.append
    assert list(reader.read(records[:1] * 3)) == []
    assert taken == ["a0 a0 a0 "]
