# SPDX-License-Identifier: Apache-2.0
"""Signals that end a trace."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from kcap.cli.parser import Parser
from kcap.cli.signals import ended_by_signals


@pytest.fixture(autouse=True)
def with_terminal() -> Iterator[None]:
    """Let SIGHUP mean what it does in a terminal: tests may run with nohup, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_trace_ends_in_order(number: int) -> None:
    stopped: list[bool] = []
    with ended_by_signals(lambda: stopped.append(True)):
        signal.raise_signal(number)
    assert stopped == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_it_at_once(number: int) -> None:
    with ended_by_signals(lambda: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_terminal_that_goes_away_may_say_so_more_than_once() -> None:
    stopped: list[bool] = []
    with ended_by_signals(lambda: stopped.append(True)):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert stopped == [True, True]


def test_trace_outlives_its_terminal_with_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals(lambda: pytest.fail("it was ended")):
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_scripts_own_signals_are_passed_on() -> None:
    taken: list[int] = []
    with ended_by_signals(
        lambda: pytest.fail("it was ended"), [signal.SIGHUP, signal.SIGUSR1], taken.append
    ):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
    assert taken == [signal.SIGHUP, signal.SIGUSR1]


def test_interrupt_while_the_command_line_is_read_stays_one() -> None:
    class Interrupted(Parser):
        def format_usage(self) -> str:
            raise KeyboardInterrupt

    parser = Interrupted(prog="kcap")
    parser.add_argument("place")
    with pytest.raises(KeyboardInterrupt):
        parser.read(["ip_rcv"])
