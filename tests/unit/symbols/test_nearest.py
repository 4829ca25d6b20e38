# SPDX-License-Identifier: Apache-2.0
"""Suggestions for mistyped names."""

from __future__ import annotations

import pytest

from kcap.symbols.nearest import nearest

NAMES = ["ip_rcv", "ip_output", "ipv6_rcv", "tcp_sendmsg", "napi_gro_receive", "Upper_Case"]


@pytest.mark.parametrize(
    ("written", "best"),
    [
        ("ip_recv", "ip_rcv"),
        ("tcp_sendmesg", "tcp_sendmsg"),
        ("napi_gro_recieve", "napi_gro_receive"),
        ("upper_case", "Upper_Case"),
        ("ipoutput", "ip_output"),
    ],
)
def test_the_best_is_first(written: str, best: str) -> None:
    assert nearest(written, NAMES)[0] == best


@pytest.mark.parametrize(
    ("written", "names"),
    [("prinft", ["printf", "print"]), ("ip_recv", ["ip_rcv", "io_recv"])],
)
def test_of_equally_near_names_that_with_the_same_letters_comes_first(
    written: str, names: list[str]
) -> None:
    assert nearest(written, [*reversed(names), "join"]) == names


def test_what_was_written_is_not_proposed() -> None:
    assert "ip_rcv" not in nearest("ip_rcv", NAMES)


def test_nothing_alike_gives_nothing() -> None:
    assert nearest("zzzzzz", NAMES) == []
    assert nearest("ip_rcv", []) == []


def test_the_right_one_is_found_among_very_many() -> None:
    many = [f"function_{i:x}_do" for i in range(20000)]
    assert nearest("ip_recv", [*many, "ip_rcv"])[0] == "ip_rcv"
