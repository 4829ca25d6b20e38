# SPDX-License-Identifier: Apache-2.0
"""Reading capture files back with tshark, tcpdump and scapy."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple


class Read(NamedTuple):
    time_ns: int
    data: bytes
    original_length: int


def tshark(path: Path, *fields: str) -> list[dict[str, str]]:
    """One dict a packet: field -> value ("" when absent, commas between several)."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=/t"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return [dict(zip(fields, line.split("\t"), strict=True)) for line in lines]


def tshark_json(path: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "json"], capture_output=True, check=True
    )
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]


def tcpdump(path: Path) -> tuple[str, list[Read]]:
    """Link type's name and the packets as tcpdump reads them."""
    done = subprocess.run(
        ["tcpdump", "-n", "-tt", "-xx", "--time-stamp-precision=nano", "-r", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    link = re.search(r"link-type (\S+)", done.stderr)
    assert link is not None, done.stderr
    packets: list[Read] = []
    for line in done.stdout.splitlines():
        head = re.match(r"(\d+)\.(\d{9}) ", line)
        if head:
            packets.append(Read(int(head[1]) * 10**9 + int(head[2]), b"", -1))
            continue
        dump = re.match(r"\s+0x[0-9a-f]+:\s+([0-9a-f ]+?)\s*$", line)
        if dump:
            last = packets[-1]
            packets[-1] = last._replace(data=last.data + bytes.fromhex(dump[1]))
    return link[1], packets


def scapy_pcap(path: Path) -> tuple[int, list[Read]]:
    """Link type and packets of a nanosecond pcap file."""
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(path)) as reader:
        assert reader.nano
        packets = [
            Read(meta.sec * 10**9 + meta.usec, bytes(data), meta.wirelen) for data, meta in reader
        ]
        return reader.linktype, packets


def scapy_pcapng(path: Path) -> list[tuple[Read, Any]]:
    """Packets and their metadata of a pcapng file."""
    from scapy.utils import RawPcapNgReader

    with RawPcapNgReader(str(path)) as reader:
        packets: Any = list(reader)
        return [
            (Read((meta.tshigh << 32) + meta.tslow, bytes(data), meta.wirelen), meta)
            for data, meta in packets
        ]
