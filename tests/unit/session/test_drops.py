# SPDX-License-Identifier: Apache-2.0
"""``kcap drops``: names of reasons, the table, the command line."""

from __future__ import annotations

import pytest

from kcap.btf import Btf, Enum
from kcap.btf.build import BtfBuilder
from kcap.cli.drops import main, table_lines
from kcap.session.capture import Request, generate
from kcap.session.drops import Drop, reason_names
from kcap.session.skb_functions import SkbPoint

KFREE = SkbPoint("rawtracepoint", "kfree_skb", "skb", 0)


def test_reasons_have_the_kernels_names() -> None:
    w = BtfBuilder()
    w.enum(
        "skb_drop_reason",
        [
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
            ("SKB_DROP_REASON_NO_SOCKET", 3),
            ("SKB_DROP_REASON_MAX", 4),
            ("SKB_DROP_REASON_SUBSYS_MASK", -65536),
        ],
    )
    found = Btf.from_bytes(w.to_bytes(), name="small").get("skb_drop_reason", Enum)
    assert reason_names(found) == {
        0: "SKB_NOT_DROPPED_YET", 2: "NOT_SPECIFIED", 3: "NO_SOCKET",
    }  # fmt: skip


def test_packets_are_counted_and_only_written_when_asked() -> None:
    counted = generate([KFREE], Request((), "tcp"), extra="@d = count(); ", output=False)
    assert "skboutput" not in counted
    written = generate([KFREE], Request((), "tcp", "a.pcap"), extra="@d = count(); ")
    assert '@d = count(); skboutput("a.pcap", args.skb' in written


def test_table_has_the_columns_under_each_other() -> None:
    assert table_lines([Drop("NO_SOCKET", "__udp4_lib_rcv+1", 10), Drop("", "f+2", 2)]) == [
        "count  reason     place",
        "   10  NO_SOCKET  __udp4_lib_rcv+1",
        "    2  -          f+2",
    ]


def test_drops_go_to_no_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["-w", "-"])
    assert caught.value.code == 2
    assert "-w needs a file" in capsys.readouterr().err
