# SPDX-License-Identifier: Apache-2.0
"""A network in which nobody answers, for scripts about packets that get lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: Addresses that nobody has: packets to the first are dropped here, those to the other get lost.
UNREACHABLE, SILENT = "10.99.0.2", "10.99.0.3"


def make(name: str) -> None:
    """Make the network: a pair of veth devices, and a neighbour behind them.

    :param name: what the devices are called, ``0`` or ``1`` behind it; the first is what goes.
    """
    for words in (
        f"link add {name}0 type veth peer name {name}1",
        f"address add 10.99.0.1/24 dev {name}0",
        f"link set {name}0 up",
        f"link set {name}1 up",
        f"neighbour add {SILENT} lladdr 02:00:00:00:00:99 dev {name}0",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    # A neighbour that never answers is given up soon, and the packet to it dropped.
    neighbour = Path(f"/proc/sys/net/ipv4/neigh/{name}0")
    (neighbour / "retrans_time_ms").write_text("50")
    (neighbour / "mcast_solicit").write_text("1")
