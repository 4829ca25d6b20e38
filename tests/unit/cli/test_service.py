# SPDX-License-Identifier: Apache-2.0
"""What systemd is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kcap.cli.service import READY, notify


@pytest.mark.parametrize("abstract", [False, True], ids=["file", "abstract"])
def test_a_service_manager_is_told_on_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"{'@' if abstract else ''}{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify(READY)
        assert manager.recv(100).split(b"\n")[0] == b"READY=1"


def test_nobody_is_told_where_nobody_asks_or_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notify(READY)
