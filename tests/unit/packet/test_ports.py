# SPDX-License-Identifier: Apache-2.0
"""The ports of the live tests' packets."""

from __future__ import annotations

from support import tshark
from support.net import PORTS


def test_tshark_takes_no_port_that_a_test_may_get_for_a_protocol_s() -> None:
    # Packets of tests from port 34980 (EtherCAT) were malformed, in one run of many.
    known = tshark.ports_of_protocols()
    assert 34980 in known
    assert known.isdisjoint(range(PORTS[0], PORTS[1] + 1))
