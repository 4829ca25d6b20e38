# SPDX-License-Identifier: Apache-2.0
"""Every Python block of docs/library.md runs, and prints what a reader would expect."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import frames

PAGE = Path(__file__).parents[4] / "docs" / "library.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
LOOPBACK = "127.0.0.1"
#: Not in the socket module: include/linux/socket.h, include/uapi/linux/icmp.h. The bits of the
#: filter are the types that are not delivered.
SOL_RAW, ICMP_FILTER = 255, 1
#: What a block prints, as a regular expression, by a text that only this block has.
PRINTS = {
    "@calls[comm, pid]": r"attached 2\n(called by python3\n)+@calls python3 \d+\n",
    "def look()": r"enough\nTrue\n",
    "trace.name": r"(icmp_rcv\+\d+\n)+",
    "asyncio": r"@calls True\n",
    "getopt": r"\[42\]\n",
    "kcap.Capture(": r"(lo ip_rcv 42 1\n){2}ip_rcv 2 0\n",
    "kcap.Drops(": r"(NO_SOCKET)? \w*udp\w*\n[1-9]\d* \('lo',\)\n",
    "kcap.Follow(": (rf"IP {LOOPBACK} > {LOOPBACK}: ICMP echo request\nTrue\n(consumed|freed)\n"),
    "WRONG": (
        r"helper-not-allowed stdin:1:17 skboutput\(\) can't be used in a kprobe\n"
        r'fentry:ip_rcv \{ skboutput\("a\.pcap", args\.skb, 64, 0\); \}\n'
    ),
    "Btf.kernel()": r"0 4\n",
    "MapSpec(": r"True\n",
}


@contextlib.contextmanager
def traffic() -> Iterator[None]:
    """Make what the page's examples wait for, many times a second: calls of getppid(), echo
    requests and datagrams that nobody waits for, on the loopback interface."""
    ended = threading.Event()

    def work() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pings,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        ):
            # No copy is for this socket: one that finds its queue full has a way that ends dropped.
            pings.setsockopt(SOL_RAW, ICMP_FILTER, b"\xff\xff\xff\xff")
            while not ended.wait(0.05):
                os.getppid()
                pings.sendto(frames.icmp_echo(b""), (LOOPBACK, 0))
                with contextlib.suppress(ConnectionRefusedError):
                    datagrams.sendto(b"x", (LOOPBACK, 4999))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_page_has_a_block_for_each_expectation() -> None:
    assert [sum(mark in block for block in BLOCKS) for mark in PRINTS] == [1] * len(BLOCKS)


@pytest.mark.parametrize("mark", PRINTS)
def test_block_prints_what_it_says(mark: str, tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if mark in block]
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), traffic(), contextlib.redirect_stdout(printed):
        exec(compile(block, str(PAGE), "exec"), {})
    assert re.fullmatch(PRINTS[mark], printed.getvalue()), printed.getvalue()
