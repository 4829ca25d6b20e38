# SPDX-License-Identifier: Apache-2.0
"""From the records of the event ring to events, or straight to text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.events import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kcap.codegen.function import Site
    from kcap.sema.types import Buffer_
    from kcap.session.runtime import Runtime


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
        self.on_text: Callable[[str], None] | None = None
        self.wrap: Callable[[str], str] | None = None

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
