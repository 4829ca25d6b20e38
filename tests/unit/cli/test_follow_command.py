# SPDX-License-Identifier: Apache-2.0
"""``kcap follow``: what the command line asks for, and what it does with the ways it gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcap.cli.follow import main
from kcap.errors import FileError, UsageError
from kcap.session.capture import Progress
from kcap.session.follow import FollowRequest
from kcap.session.journey import End, Function, Journey, Step


class Followed:
    """In the place of what follows packets in the kernel: two ways."""

    request: FollowRequest

    trace = None

    def __init__(self, request: FollowRequest, progress: Progress) -> None:
        Followed.request = request
        progress("attaching", 0, 7)
        self.functions, self.losses, self.script = 7, 3, "the script"

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def attach(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def journeys(self) -> Iterator[Journey]:
        for number in (1, 2):
            step = Step(0, 0, Function("ip_rcv", ""), 0, "eth0", 40, 0, 98, 0, 7, "ping")
            end = End("dropped", "NO_SOCKET", "udp_rcv+31", 5000)
            yield Journey(number, 16, 0, 0, 0, f"UDP {number}", [step], end)


@pytest.fixture(autouse=True)
def _without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcap.session.follow.Follow", Followed)


def test_ways_are_text_with_losses_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", "udp", "-c", "2", "-F", "ip_*", "-F", "udp_*", "--no-copies"]) == 0
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if "dropped" in line] == [
        "      5.0 us              = dropped: NO_SOCKET at udp_rcv+31"
    ] * 2
    assert said.err == (
        "attaching to the functions that take packets ...\n"
        "following packets through 7 functions; Ctrl-C ends\n"
        "3 sights of packets were lost: the rings were full\n"
    )
    request = Followed.request
    assert (request.functions, request.copies) == (("ip_*", "udp_*"), False)
    assert (request.capture.expression, request.capture.count) == ("udp", 2)


def test_on_a_terminal_the_start_is_told_by_a_line_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["-f", "udp", "-q"]) == 0
    said, _, rest = capsys.readouterr().err.partition("\r" + " " * 29 + "\r")
    announced = "kcap: attaching to the functions that take packets ..."
    assert said == f"\r{announced}\r" + "kcap: attaching 0 of 7 probes".ljust(len(announced))
    assert rest.startswith("following packets through 7 functions; Ctrl-C ends\n")


def test_json_is_a_line_a_packet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", "udp", "--json"]) == 0
    ways = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(way["packet"], way["end"]["reason"]) for way in ways] == [
        (1, "NO_SOCKET"), (2, "NO_SOCKET"),
    ]  # fmt: skip


def test_page_is_written_for_its_owner_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "way.html"
    assert main(["-f", "udp", "-q", "--html", str(page)]) == 0
    assert capsys.readouterr().out == ""
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "UDP 1" in text
    assert "UDP 2" in text


def test_page_that_cannot_be_written_is_said_before_anything_is_attached(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        main(["-f", "udp", "--html", str(tmp_path / "missing" / "way.html")])


def test_failing_start_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: FollowRequest, progress: Progress) -> None:
        raise UsageError("no function")

    monkeypatch.setattr("kcap.session.follow.Follow", refuse)
    with pytest.raises(UsageError):
        main(["-f", "udp", "--html", str(tmp_path / "way.html")])
    assert list(tmp_path.iterdir()) == []


def test_packets_of_all_kinds_are_followed_only_with_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["-q"]) == 0
    assert "all packets are followed" in capsys.readouterr().err
