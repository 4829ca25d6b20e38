# SPDX-License-Identifier: Apache-2.0
"""Telling systemd when the probes are attached (``Type=notify``, sd_notify(3))."""

from __future__ import annotations

import os
from contextlib import suppress

READY = "READY=1\nSTATUS=Processing events..."
STOPPING = "STOPPING=1\nSTATUS=Shutting down..."


def notify(state: str) -> None:
    """Tell the service manager that started kcap, if it wants to know, how the trace stands.

    :param state: assignments, one a line.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    import socket

    if address[0] == "@":  # an abstract socket
        address = f"\0{address[1:]}"
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
        manager.sendto(state.encode(), address)
