# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run in guests."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

import pytest

from support.introduced import missing
from support.net import Network
from support.on_host import FOR_TSHARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def kernel(live_kernel: str) -> str:
    """Return the series of the kernel that the test runs on (``6.12``)."""
    return live_kernel


@pytest.fixture(autouse=True)
def _skip_on_older_kernels(request: pytest.FixtureRequest, kernel: str) -> None:
    """Skip a test that is marked ``needs(feature, …)`` on kernels that came before a feature
    (:data:`support.introduced.FEATURES`). On all others it has to pass."""
    for mark in request.node.iter_markers("needs"):
        for feature in mark.args:
            reason = missing(feature, kernel)
            if reason:
                pytest.skip(reason)


@pytest.fixture(scope="session")
def network(kernel: str) -> Iterator[Network]:
    """Return two namespaces joined by a veth pair, made once for all tests of a guest."""
    network = Network()
    network.set_up()
    yield network
    network.tear_down()


@pytest.fixture
def for_tshark(record_property: Callable[[str, object], None]) -> Callable[[Path], None]:
    """Return what has a capture file read by tshark on the host, where the test then fails when
    tshark finds a malformed packet or an expert's error: the guest has no tshark."""

    def give(path: Path) -> None:
        packed = base64.b64encode(zlib.compress(path.read_bytes(), 1)).decode()
        record_property(f"{FOR_TSHARK}{path.name}", packed)

    return give
