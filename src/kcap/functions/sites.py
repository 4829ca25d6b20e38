# SPDX-License-Identifier: Apache-2.0
"""What user space does with the events that functions send: one class a kind of call.

The functions themselves (what they take, what they are compiled to) are in the families' modules;
a script that was compiled before needs only these.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kcap.codegen.site import Site
from kcap.functions.events import (
    ExitRequested,
    MapPrinted,
    Message,
    Printf,
    TextPrinted,
    ValuePrinted,
)
from kcap.records import dataclass
from kcap.sema.types import INT32, UINT64, Tuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.site import Runtime
    from kcap.functions.format import Format
    from kcap.lang.source import Span
    from kcap.sema import tree
    from kcap.sema.types import Buffer_, Type


class ExitSite(Site):
    """An ``exit()``: when it was called, and the status."""

    payload = Tuple((UINT64, INT32))
    urgent = True
    ends_trace = True

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        mono_ns, status = values
        runtime.request_exit(status, mono_ns)
        return (ExitRequested(status),)


class ExitStatusSite(Site):
    """An ``exit()`` in an iterator, which goes on: only the status counts."""

    payload = Tuple((INT32,))

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        runtime.set_status(values[0])
        return ()


class UnwatchSite(Site):
    """An ``unwatch()``."""

    payload = Tuple((UINT64,))
    urgent = True

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        runtime.unwatch(values[0])
        return ()


def format_time(format_: str, nanoseconds: int) -> str:
    """Wall-clock time in local time by a strftime(3) format with ``%f`` for microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    pieces = format_.split("%%")
    pieces = [piece.replace("%f", f"{rest // 1000:06d}") for piece in pieces]
    return time.strftime("%%".join(pieces), time.localtime(seconds))


@dataclass(eq=False, slots=True)
class TimeSite(Site):
    """One ``time()``: the format is constant, user space reads the clock.

    :param format: the strftime(3) format.
    """

    payload = Tuple(())

    format: str

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        yield TextPrinted("time", format_time(self.format, time.time_ns()))


@dataclass(eq=False, slots=True)
class MapSite(Site):
    """A place that has user space do something with a whole map.

    :param map: the map.
    """

    payload = Tuple(())
    map: tree.Map


@dataclass(eq=False, slots=True)
class PrintMapSite(MapSite):
    """``print(@map, top, div)``."""

    top: int
    div: int

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        return (MapPrinted(self.map, runtime.read_map(self.map), self.top, self.div),)


@dataclass(eq=False, slots=True)
class PrintEntrySite(MapSite):
    """``print(@map[key])`` where the value can't be read in the kernel (a histogram).

    :param key: the type of the map's keys.
    """

    key: Type

    @property
    def payload(self) -> Tuple:  # type: ignore[override]
        """The key."""
        return Tuple((self.key,))

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        from kcap.functions.histogram import hashable

        wanted = hashable(values[0])
        entries = [e for e in runtime.read_map(self.map) if hashable(e[0]) == wanted]
        return (MapPrinted(self.map, entries),)


@dataclass(eq=False, slots=True)
class PrintValueSite(Site):
    """``print(value)``."""

    type: Type

    @property
    def payload(self) -> Tuple:  # type: ignore[override]
        """The value."""
        return Tuple((self.type,))

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        return (ValuePrinted(self.type, values[0]),)


class ClearSite(MapSite):
    """``clear(@map)``."""

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        runtime.clear_map(self.map)
        return ()


class ZeroSite(MapSite):
    """``zero(@map)``."""

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        runtime.zero_map(self.map)
        return ()


class FormatSite(Site):
    """A place that prints by a format.

    :param format: the format with the types of its arguments.
    :param span: the call.
    """

    def __init__(self, format_: Format, span: Span) -> None:
        self.format = format_
        self.span = span
        self._compiled: Any = None

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`."""
        return self.format, self.span

    @property
    def payload(self) -> Tuple:  # type: ignore[override]
        """The types of the arguments."""
        return self.format.payload

    def receive(self, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        if self._compiled is None:
            self._compiled = self.format.compile(runtime.environment)
        text = self._compiled(data, offset)
        return self.printed(text, data, offset, runtime)

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        return self.printed(self.format.format(values, runtime.environment), b"", 0, runtime)

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        """The events for a formatted text.

        :param data: where the payload stands, at ``offset``; empty if it isn't at hand.
        """
        raise NotImplementedError


class PrintfSite(FormatSite):
    """A ``printf()``."""

    def formatter(self, runtime: Runtime) -> Callable[[Buffer_, int], str] | None:
        return self.format.compile(runtime.environment)

    def run_formatter(
        self, runtime: Runtime, before: int, stride: int
    ) -> Callable[[Buffer_], list[str]] | None:
        return self.format.compile_many(runtime.environment, before, stride)

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        raw = bytes(data[offset : offset + self.format.payload.size])
        return (Printf(text, self.format, raw),)


class MessageSite(FormatSite):
    """An ``errorf()`` or ``warnf()``."""

    severity: ClassVar[Literal["error", "warning"]]

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        return (Message(self.severity, text, self.span),)


class ErrorfSite(MessageSite):
    """An ``errorf()``."""

    severity = "error"


class WarnfSite(MessageSite):
    """A ``warnf()``."""

    severity = "warning"


class CatSite(FormatSite):
    """A ``cat()``: user space reads the file."""

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        limit = runtime.environment.config.max_cat_bytes
        try:
            with open(text.encode("utf-8", "surrogateescape"), "rb") as file:
                content = file.read(limit)
        except OSError as error:
            reason = f"failed to open file '{text}' ({error.strerror})"
            return (Message("error", reason, None),)
        return (TextPrinted("cat", content.decode("utf-8", "surrogateescape")),)


class SystemSite(FormatSite):
    """A ``system()``: user space runs the command and waits for it."""

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        import subprocess

        if not runtime.may_run():
            return ()
        done = subprocess.run(
            ["/bin/sh", "-c", text.encode("utf-8", "surrogateescape")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        return (TextPrinted("syscall", done.stdout.decode("utf-8", "surrogateescape")),)


@dataclass(eq=False, slots=True)
class JoinSite(Site):
    """A ``join()``: the strings, NUL-terminated, one behind the other; as long as they are.

    :param separator: what user space puts between them.
    """

    payload = Tuple(())

    separator: str

    def receive(self, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        return self.handle((bytes(data[offset:]),), runtime)

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        strings = values[0].decode("utf-8", "surrogateescape").split("\0")[:-1]
        return (TextPrinted("join", self.separator.join(strings) + "\n"),)
