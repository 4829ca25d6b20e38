# SPDX-License-Identifier: Apache-2.0
"""From the records of the event ring to events, or straight to text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.site import HEADER_SIZE
from kcap.kernel import ringbuf
from kcap.kernel.barrier import barrier
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kcap.codegen.site import Site
    from kcap.kernel.ringbuf import RingReader
    from kcap.sema.types import Buffer_
    from kcap.session.runtime import Runtime

#: How many records of one kind are formatted together: at least (fewer are not worth it), at most.
FEWEST, MOST = 4, 512
#: Bytes of other records that are read between two looks for such a run.
PIECE = 4096


@dataclass(slots=True)
class _Run:
    """How records of one site that follow each other become text.

    :param length: what the ring's header says of each of them.
    :param stride: bytes from one to the next.
    :param texts: makes the texts.
    """

    length: int
    stride: int
    texts: Callable[[Buffer_], list[str]]


class EventReader:
    """Makes events of records.

    :param sites: what sends events, by number.
    :param runtime: the running script.
    :ivar on_text: takes the text of a ``printf()`` instead of an event for each of them: much
        quicker for those who only print it. Texts come in the order of the events: whatever stands
        before an event has been handed over before that event is yielded.
    :ivar wrap: what makes the text that is handed over of a ``printf()``'s; None: it is that.
    """

    def __init__(self, sites: Sequence[Site], runtime: Runtime) -> None:
        self._sites = sites
        self._runtime = runtime
        self._formatters: dict[int, Callable[[Buffer_, int], str] | None] = {}
        self._runs: dict[int, _Run | None] = {}
        self.on_text: Callable[[str], None] | None = None
        self.wrap: Callable[[str], str] | None = None

    def read_ring(self, ring: RingReader) -> Iterator[object]:
        """The events that are in a ring now; their space is given back. Nothing comes after
        ``exit()``, and what stands behind it is dropped."""
        start, end = ring.pending()
        while start < end:
            position = self._read_run(ring, start, end)
            if position == start:
                records, position = ring.walk(start, min(start + PIECE, end))
                yield from self.read(records)
            if self._runtime.exit_status is not None:
                position = ring.walk(position, end)[1]
                end = position
            elif position == start:
                return  # the next record is still being written
            ring.release(position)
            start = position

    def _read_run(self, ring: RingReader, start: int, end: int) -> int:
        """Format the records of one printf() that begin at ``start``, if there are some in a row;
        the position behind them, which is ``start`` when there are not."""
        if self.on_text is None:
            return start
        at = start % ring.size
        word = at >> 2
        number = ring.words[word + 2]
        run = self._runs[number] if number in self._runs else self._run(number)
        if run is None or ring.words[word] != run.length:
            return start
        count = min((end - start) // run.stride, MOST)
        step = run.stride >> 2
        behind = word + count * step
        lengths = ring.words[word:behind:step].tolist()
        numbers = ring.words[word + 2 : behind : step].tolist()
        if lengths.count(run.length) != count or numbers.count(number) != count:
            heads = zip(lengths, numbers, strict=True)
            wanted = (run.length, number)
            count = next(index for index, head in enumerate(heads) if head != wanted)
        if count < FEWEST:
            return start
        barrier()  # a header that says so comes before the data that it speaks of
        texts = run.texts(ring.data[at : at + count * run.stride])
        if self.wrap is not None:
            texts = [self.wrap(text) for text in texts]
        self.on_text("".join(texts))
        return start + count * run.stride

    def _run(self, number: int) -> _Run | None:
        """How runs of a site's records become text; None if they are to become events."""
        found = None
        if number < len(self._sites):  # else the record is still being written
            site = self._sites[number]
            length = HEADER_SIZE + site.payload.size
            before = ringbuf.HEADER_SIZE + HEADER_SIZE
            stride = ringbuf.HEADER_SIZE + length + 7 & ~7
            texts = site.run_formatter(self._runtime, before, stride)
            found = None if texts is None else _Run(length, stride, texts)
            self._runs[number] = found
        return found

    def read(self, records: Iterable[Buffer_]) -> Iterator[object]:
        """The events of some records; nothing that comes after ``exit()``.

        :param records: each ``u32 site, u32 0`` and its payload.
        """
        sites, runtime, formatters = self._sites, self._runtime, self._formatters
        texts: list[str] = []
        add = texts.append
        for record in records:
            number = record[0] | record[1] << 8 | record[2] << 16
            try:
                formatter = formatters[number]
            except KeyError:
                formatter = self._formatter(number)
            if formatter is not None:
                add(formatter(record, HEADER_SIZE))
                continue
            self._hand_over(texts)
            yield from sites[number].receive(record, HEADER_SIZE, runtime)
            if runtime.exit_status is not None:
                return
        self._hand_over(texts)

    def _formatter(self, number: int) -> Callable[[Buffer_, int], str] | None:
        """How a site's payload becomes text, or None if it is to become events."""
        found = self._sites[number].formatter(self._runtime) if self.on_text is not None else None
        if found is not None and self.wrap is not None:
            found = _wrapped(found, self.wrap)
        self._formatters[number] = found
        return found

    def _hand_over(self, texts: list[str]) -> None:
        if texts and self.on_text is not None:
            text = "".join(texts)
            texts.clear()
            self.on_text(text)


def _wrapped(
    formatter: Callable[[Buffer_, int], str], wrap: Callable[[str], str]
) -> Callable[[Buffer_, int], str]:
    return lambda data, offset: wrap(formatter(data, offset))
