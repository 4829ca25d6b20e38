# SPDX-License-Identifier: Apache-2.0
"""What ``kcap capture`` says while it runs and at its end, whatever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from kcap.cli.main import main
from kcap.closing import Closing
from kcap.errors import FileError
from kcap.functions.events import Lost, Missed
from kcap.session.capture import CaptureRequest, PlaceStats
from kcap.session.skb_functions import SkbPoint

SUMMARY = ["function  seen  matched  captured  lost", "ip_rcv       9        8         3     5"]


class Played(Closing):
    """A capture that plays what it is given: what it says, and what ends it."""

    messages: tuple[object, ...] = ()
    failure: Exception | None = None
    on_message: Callable[[object], None] | None = None
    points = (SkbPoint("fentry", "ip_rcv", "skb", 0),)
    stats = (PlaceStats("ip_rcv", 9, 8, 3, 5),)
    unjudged = 0
    requests: list[CaptureRequest]

    def __init__(self, request: CaptureRequest, _progress: object) -> None:
        self.requests.append(request)
        self.trace = SimpleNamespace(runtime=SimpleNamespace(environment=None), on_tick=None)

    def attach(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[object]:
        for message in self.messages:
            assert self.on_message is not None
            self.on_message(message)
        if self.failure is not None:
            raise self.failure
        yield from ()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    found = type("AnyPlayed", (Played,), {"requests": []})
    monkeypatch.setattr("kcap.session.capture.Capture", found)
    return found


def test_losses_are_told_as_they_happen(
    played: type[Played], capsys: pytest.CaptureFixture[str]
) -> None:
    played.messages = (
        Lost(5, "packet", "fentry:ip_rcv"),
        Missed(2, "fentry:ip_rcv", "recursion"),
        Lost(7, "filter", "fentry:ip_rcv"),
    )
    assert main(["capture", "ip_rcv", "-q"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "Lost 5 packets at fentry:ip_rcv",
        "WARNING: fentry:ip_rcv missed 2 events: the program was running on the same CPU already",
    ]


def test_summary_comes_also_where_a_file_takes_no_more(
    played: type[Played], capsys: pytest.CaptureFixture[str]
) -> None:
    played.failure = FileError("cannot write to 'x': No space left on device", "x")
    assert main(["capture", "ip_rcv", "-w", "x"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "capturing at fentry:ip_rcv",
        *SUMMARY,
        "ERROR: cannot write to 'x': No space left on device",
    ]


def test_interface_that_is_not_there_is_told_of(
    played: type[Played], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capture", "ip_rcv", "-q", "-i", "lp"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: this network namespace has no interface lp (did you mean lo?): waiting for "
        "packets of one that is called so",
    ]
    assert main(["capture", "ip_rcv", "-q", "-i", "lo"]) == 0
    assert main(["capture", "ip_rcv", "-q", "-i", "any"]) == 0
    assert [each.interface for each in played.requests] == ["lp", "lo", ""]
    assert capsys.readouterr().err == ""


def test_what_a_filter_could_not_judge_is_summed_up(
    played: type[Played], capsys: pytest.CaptureFixture[str]
) -> None:
    played.unjudged = 7
    assert main(["capture", "ip_rcv"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "capturing at fentry:ip_rcv",
        *SUMMARY,
        "warning: 7 packets taken for no match: the filter asks for bytes in fragments, which it "
        "cannot see",
    ]
