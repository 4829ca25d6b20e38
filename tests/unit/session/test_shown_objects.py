# SPDX-License-Identifier: Apache-2.0
"""What a Python prompt or a notebook shows of the library's objects is one short line."""

from __future__ import annotations

import pytest

import kcap


def test_a_checked_script_shows_its_probes() -> None:
    checked = kcap.compile("interval:s:1 { @ = count(); } begin { exit(); }", name="a.bt")
    assert repr(checked) == "<Checked 'a.bt': interval:s:1, begin>"


def test_options_do_not_show_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "secret")
    shown = repr(kcap.Options(pid=7))
    assert "pid=7" in shown
    assert "secret" not in shown


def test_a_packet_does_not_show_its_data() -> None:
    packet = kcap.Packet(
        time_ns=0, mono_ns=0, site=0, path="", probe="fentry:ip_rcv", function="ip_rcv",
        link_type=1, data=bytes(60), original_length=1514, interface="eth0", ifindex=2, netns=1,
        direction="in", protocol=0x800, vlan=None, mark=0, queue=0, skb=0, pid=7, tid=7,
        comm="ping", cpu=0, made_header=False, linear_only=False,
    )  # fmt: skip
    assert repr(packet) == "<Packet ip_rcv eth0 in: 60 of 1514 bytes, ping[7]>"
