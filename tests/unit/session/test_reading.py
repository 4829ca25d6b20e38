# SPDX-License-Identifier: Apache-2.0
"""From records to events and text: the order of both, and where ``exit()`` ends them."""

from __future__ import annotations

import struct

import pytest

from kcap.codegen.compile import generate
from kcap.codegen.environment import Environment
from kcap.codegen.module import Features
from kcap.functions.events import Printf
from kcap.kernel import ringbuf
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


class Ring:
    """A ring in memory, with what RingReader has of one.

    :param records: what is in it.
    :param at: where the first begins, so that records may lie across the end.
    """

    size = 1 << 16

    def __init__(self, records: list[bytes], at: int = 0, *, busy: int | None = None) -> None:
        once = bytearray(self.size)
        self.released = position = at
        for number, record in enumerate(records):
            header = len(record) | (ringbuf.BUSY if number == busy else 0)
            whole = struct.pack("<II", header, 0) + record
            for index, byte in enumerate(whole):
                once[(position + index) % self.size] = byte
            position += len(whole) + 7 & ~7
        self.end = position
        self.data = memoryview(bytes(once) * 2)
        self.words = self.data.cast("I")

    def pending(self) -> tuple[int, int]:
        return self.released, self.end

    def walk(self, start: int, end: int) -> tuple[list[memoryview], int]:
        return ringbuf.walk(self.words, self.data, start, end)

    def release(self, position: int) -> None:
        self.released = position


VALUES = """begin {
  printf("%d %-5s|%x\\n", pid, comm, nsecs); printf("none\\n"); printf("%s %c\\n", comm, pid);
  print(7); exit();
}"""


def numbered(records: list[bytes]) -> list[bytes]:
    """Records of five sites, many of a kind in a row, each with bytes of its own."""
    filler = [bytes([65 + n % 26, 66, 0, n % 7]) * 20 for n in range(300)]
    kinds = [0] * 100 + [1] * 40 + [2] * 3 + [3, 0, 2] * 5 + [2] * 60 + [0] * 77
    return [(records[kind][:8] + filler[n])[: len(records[kind])] for n, kind in enumerate(kinds)]


def read_all(ring: Ring, *, runs: bool, wrap: bool = False) -> str:
    reader, runtime, _ = reader_of(VALUES)
    renderer = TextRenderer(runtime.environment)
    written: list[str] = []
    reader.on_text = written.append
    reader.wrap = (lambda text: f"<{text}>") if wrap else None
    read = reader.read_ring(ring) if runs else reader.read(ring.walk(*ring.pending())[0])  # type: ignore[arg-type]
    for event in read:
        written.append(renderer.output(event))
    return "".join(written)


@pytest.mark.parametrize("at", [0, 8, Ring.size - 64, 5 * Ring.size - 4096])
@pytest.mark.parametrize("wrap", [False, True])
def test_runs_of_records_give_what_each_of_them_gives(at: int, wrap: bool) -> None:
    records = numbered(reader_of(VALUES)[2])
    ring = Ring(records, at)
    expected = read_all(Ring(records, at), runs=False, wrap=wrap)
    assert read_all(ring, runs=True, wrap=wrap) == expected
    assert ring.released == ring.end
    assert expected.count("\n") == len(records)


@pytest.mark.parametrize("busy", [0, 1, 50, 120, 150, 294])
def test_reading_stops_before_a_record_that_is_being_written(busy: int) -> None:
    records = numbered(reader_of(VALUES)[2])
    ring = Ring(records, 24, busy=busy)
    assert read_all(ring, runs=True).count("\n") == busy
    assert ring.released == 24 + sum(len(r) + 15 & ~7 for r in records[:busy])


def test_what_stands_behind_exit_is_dropped() -> None:
    template = reader_of(VALUES)[2]
    records = [*numbered(template)[:30], template[4], *numbered(template)[:30]]
    ring = Ring(records)
    assert read_all(ring, runs=True).count("\n") == 30
    assert ring.released == ring.end
