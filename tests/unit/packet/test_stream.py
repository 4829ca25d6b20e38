# SPDX-License-Identifier: Apache-2.0
"""A stream says when its reader has gone, also if there is nothing to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcap.packet.stream import Discarded, StreamClosedError, StreamFile


def test_reader_that_has_gone_is_noticed_without_writing() -> None:
    reader, writer = os.pipe()
    stream = StreamFile(writer, "stdout.pcapng")
    stream.check()
    stream.write([b"a block"])
    stream.check()
    os.close(reader)
    with pytest.raises(StreamClosedError):
        stream.check()
    os.close(writer)


def test_file_and_nothing_have_no_reader_that_could_go(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        StreamFile(file.fileno(), "stdout.pcap").check()
    Discarded("nowhere.pcap").check()
