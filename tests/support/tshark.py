# SPDX-License-Identifier: Apache-2.0
"""What tshark on this machine says of a capture file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Severity of Wireshark's expert items from which on something is wrong: PI_ERROR, epan/proto.h.
EXPERT_ERROR = 0x00800000


def complaints(path: str | Path) -> list[str]:
    """Malformed packets, experts' errors, a damaged file: one text each."""
    wrong = f"_ws.malformed || _ws.expert.severity >= {EXPERT_ERROR}"
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-Y", wrong], capture_output=True, text=True, check=False
    )
    # It says on standard error as well whom it runs as.
    errors = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    return [*done.stdout.splitlines(), *errors, *([] if done.returncode == 0 else ["it failed"])]


def ports_of_protocols() -> set[int]:
    """The TCP and UDP ports whose packets tshark reads as a certain protocol's."""
    done = subprocess.run(["tshark", "-G", "decodes"], capture_output=True, text=True, check=True)
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {int(port) for table, port, *_ in rows if table in ("tcp.port", "udp.port")}
