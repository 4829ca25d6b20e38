# SPDX-License-Identifier: Apache-2.0
"""skbfilter() passes the verifier, and its packets are those that libpcap takes from the capture.

Two functions are traced, one with data behind the MAC header and one with data at it; every packet
goes to a file, and every filter counts its own. libpcap's interpreter then reads the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kcap.functions import events
from kcap.functions.pcap_filter import compile_filter
from support.net import VLAN, Network
from support.taps import Capture, read_capture
from support.tracing import Running
from unit.packet.filtered import Interpreter

PROBES = {
    "in": "rawtracepoint:netif_receive_skb",
    "out": "fentry:__dev_queue_xmit",
    "ip": "fentry:ip_output",
}
FILTERS = (
    "icmp",
    "tcp port 7777",
    "udp and host 10.77.0.2",
    f"vlan {VLAN} and udp port 7779",
    "ip6 and udp",
    "greater 1000",
    "tcp[tcpflags] & tcp-syn != 0",
    "udp[8:4] = 0x6b636170",
    # Behind what is copied beforehand; TCP has its bytes in fragments, where no filter reads.
    "not tcp and ether[1200:2] = 0x7878",
    "portrange 7000-8000 and not (tcp or vlan)",
)


def script(directory: Path) -> str:
    """Return the script: a file for each function, a count for each function and filter."""
    parts = []
    for name, probe in PROBES.items():
        lines = [f'skboutput("{directory}/{name}.pcap", args.skb, 65535, 0);']
        for number, text in enumerate(FILTERS):
            lines.append(
                f'if (skbfilter(args.skb, "{text}")) {{ @hits["{name}", {number}] = count(); }}'
            )
        parts.append(f"{probe} {{ {' '.join(lines)} }}")
    return "\n".join(parts)


@dataclass
class Result:
    """What was counted and captured."""

    captures: dict[str, Capture]
    hits: dict[tuple[str, int], int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def result(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Result:
    directory = tmp_path_factory.mktemp("filters")
    with Running(script(directory)) as running:
        network.ping(b"x" * 1400)
        network.ping6()
        network.udp(b"kcap")
        network.udp(b"x" * 1300, version=6)
        network.udp(b"tagged", port=7779, vlan=True)
        network.tcp(b"x" * 3000)
        running.stop()
    made = Result({name: read_capture(directory / f"{name}.pcap") for name in PROBES})
    made.lost = running.lost
    for event in running.events:
        if isinstance(event, events.MapPrinted):
            made.hits = {(key[0], key[1]): count for key, count in event.entries}
    return made


def test_nothing_was_lost(result: Result) -> None:
    assert result.lost == {}
    assert all(capture.packets for capture in result.captures.values())


@pytest.mark.parametrize("number", range(len(FILTERS)), ids=FILTERS)
@pytest.mark.parametrize("place", PROBES)
def test_filter_in_the_kernel_takes_what_libpcap_takes(
    result: Result, place: str, number: int
) -> None:
    interpreter = Interpreter(compile_filter(FILTERS[number]))
    wanted = sum(
        interpreter(packet.data, packet.length) for packet in result.captures[place].packets
    )
    assert result.hits.get((place, number), 0) == wanted


@pytest.mark.parametrize("number", range(len(FILTERS)), ids=FILTERS)
def test_traffic_has_something_for_every_filter(result: Result, number: int) -> None:
    assert sum(result.hits.get((place, number), 0) for place in PROBES) > 0


def test_packets_that_cannot_be_judged_are_told(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "queue.pcap"
    text = "tcp and ether[1200] = 0x78"
    script = f"""fentry:__dev_queue_xmit {{
      skboutput("{path}", args.skb, 65535, 0);
      if (skbfilter(args.skb, "{text}")) {{ @hits = count(); }}
    }}"""
    with Running(script) as running:
        network.udp(b"x" * 1300)
        network.tcp(b"x" * 3000)
        running.stop()
    interpreter = Interpreter(compile_filter(text))
    matching = [one for one in read_capture(path).packets if interpreter(one.data, one.length)]
    # TCP's payload is in fragments.
    (probe,) = running.lost
    assert running.lost[probe] == len(matching) > 0
    assert "@hits" not in running.text
    assert "bytes in fragments, which it cannot see" in running.messages
