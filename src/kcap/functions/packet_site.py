# SPDX-License-Identifier: Apache-2.0
"""What user space knows of the ``skboutput()`` calls of a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.records import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The perf event array that samples go through, and the clock offset that user space keeps.
PACKETS_MAP = "kcap_packets"
REALTIME_MAP = "kcap_realtime"
#: What is lost, by interface (``skb_record.LOST_KEY``), for the statistics of pcapng files.
LOST_MAP = "kcap_lost_packets"

#: Where code generation collects the sites of a script (``Compiled.collected``).
PACKET_SITES = "packet sites"


@dataclass(eq=False, slots=True)
class PacketSite:
    """One skboutput() call of a script.

    :param path: the file, as the script spells it.
    :param offset: the offset argument if it is constant; None otherwise.
    :param probe: the name of the probe that it stands in.
    :param linear: send what is not in fragments, as every program type can.
    :param reasons: names of the numbers that the probe's argument ``reason`` can have.
    """

    path: str
    offset: int | None
    probe: str
    linear: bool = False
    reasons: Mapping[int, str] = field(default_factory=dict)
