# SPDX-License-Identifier: Apache-2.0
"""Packets' ways as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kcap.packet.headers import Change
from kcap.packet.summary import clock, printable
from kcap.session.namespaces import NetnsNames

if TYPE_CHECKING:
    from kcap.session.journey import Journey, Step

#: Colours by what is coloured (SGR parameters).
_COLOURS = {
    "head": "1", "module": "36", "time": "2", "place": "2", "change": "33", "copy": "35",
    "dropped": "1;31", "consumed": "32", "socket": "1;32", "joined": "36", "freed": "2", "": "2",
    "stack": "2",
}  # fmt: skip


def duration(nanoseconds: int) -> str:
    """A time span in a unit that suits it."""
    if nanoseconds < 10_000_000:
        return f"{nanoseconds / 1000:.1f} us"
    if nanoseconds < 10_000_000_000:
        return f"{nanoseconds / 1_000_000:.1f} ms"
    return f"{nanoseconds / 1_000_000_000:.1f} s"


class TextWays:
    """Writes ways as text, a block of lines for each.

    :param colours: with colours, for a terminal.
    :param brief: only steps that say something new, and how many are between them.
    :param netns: names of network namespaces; those of ip-netns(8) by default.
    """

    def __init__(
        self, *, colours: bool = False, brief: bool = False, netns: NetnsNames | None = None
    ) -> None:
        self._colours, self._brief = colours, brief
        self._netns = netns or NetnsNames()

    def _paint(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self._colours and text else text

    def lines(self, journey: Journey) -> Iterator[str]:
        """One packet's way."""
        head = f"packet {journey.id}"
        if journey.copy_of:
            head += f" (a copy of packet {journey.copy_of})"
        what = self._paint("head", f"{head}: {journey.what or 'never seen'}")
        yield f"{what}  {self._paint('time', clock(journey.time_ns))}"
        steps = _telling(journey.steps) if self._brief else journey.steps
        width = min(max((len(_name(step)) for step in steps if not step.copy), default=0), 48)
        last: Step | None = None
        before, shown = 0, 0
        for step in steps:
            index = journey.steps.index(step, shown)
            if index > shown:
                yield f"  {'':26}{self._paint('place', f'... {index - shown} more')}"
            yield from self._step(step, last, step.delta_ns - before, width)
            last = last if step.copy else step
            before, shown = step.delta_ns, index + 1
        when = f"{duration(journey.end.delta_ns):>10}" if journey.end.kind else f"{'':10}"
        yield f"  {self._paint('time', when)}{'':14}" + self._paint(
            journey.end.kind, f"= {journey.end}"
        )

    def _step(self, step: Step, last: Step | None, gap_ns: int, width: int) -> Iterator[str]:
        """A function, and what is new there.

        :param last: the function shown before.
        :param gap_ns: the time between them.
        :param width: of the functions' names.
        """
        when = self._paint("time", f"{duration(step.delta_ns):>10}  +{duration(gap_ns):<9}")
        if step.copy:
            copied = self._paint("copy", f"copied: the copy is packet {step.copy}")
            yield f"  {when}  {copied}"
            return
        line = f"  {when}  {self._painted_name(step, width)}"
        if last is None or _place(step) != _place(last):
            line += f"  {self._paint('place', self._where(step))}"
        yield line.rstrip()
        for change in step.changes:
            yield f"  {'':26}{self._paint('change', f'~ {self._named(change)}')}"
        for frame in step.stack:
            yield f"  {'':28}{self._paint('stack', frame)}"

    def _where(self, step: Step) -> str:
        netns = f" netns {self._netns.name(step.netns)}" if step.netns else ""
        process = f"{printable(step.comm)}[{step.pid}]"
        return f"{printable(step.interface) or '-'}{netns} cpu {step.cpu} {process}"

    def _named(self, change: Change) -> Change:
        """A change with namespaces' names for their numbers."""
        if change.field != "netns":
            return change
        before, after = (self._netns.name(int(each)) for each in (change.before, change.after))
        return Change(change.field, before, after)

    def _painted_name(self, step: Step, width: int) -> str:
        padding = " " * max(width - len(_name(step)), 0)
        module = f" [{step.function.module}]" if step.function.module else ""
        return step.function.name + self._paint("module", module) + padding


def _name(step: Step) -> str:
    module = f" [{step.function.module}]" if step.function.module else ""
    return step.function.name + module


def _place(step: Step) -> tuple[str, int, int, str, int]:
    return step.interface, step.netns, step.cpu, step.comm, step.pid


def _telling(steps: Sequence[Step]) -> list[Step]:
    """The steps at which a packet changes, is copied or gets elsewhere; and its first and last."""
    told: list[Step] = []
    place = None
    for step in steps:
        elsewhere = not step.copy and _place(step) != place
        if elsewhere:
            place = _place(step)
        if elsewhere or step.copy or step.changes or step is steps[-1]:
            told.append(step)
    return told


def as_json(journey: Journey) -> dict[str, Any]:
    """A packet's way as what json.dumps() takes. Times are nanoseconds."""
    end = journey.end
    return {
        "packet": journey.id,
        "copy_of": journey.copy_of or None,
        "skb": f"{journey.skb:#x}",
        "time": journey.time_ns,
        "what": journey.what,
        "steps": [_step(step) for step in journey.steps],
        "end": {
            "kind": end.kind or "on its way",
            "reason": end.reason or None,
            "place": end.place or None,
            "delta": end.delta_ns,
            "text": str(end),
        },
    }


def _step(step: Step) -> dict[str, Any]:
    if step.copy:
        return {"delta": step.delta_ns, "copy": step.copy}
    return {
        "delta": step.delta_ns,
        "function": step.function.name,
        "module": step.function.module or None,
        "interface": step.interface or None,
        "netns": step.netns or None,
        "mark": step.mark,
        "length": step.length,
        "cpu": step.cpu,
        "pid": step.pid,
        "comm": step.comm,
        "changes": [
            {"field": change.field, "before": change.before or None, "after": change.after or None}
            for change in step.changes
        ],
        "stack": list(step.stack) or None,
    }
