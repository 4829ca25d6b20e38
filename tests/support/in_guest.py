# SPDX-License-Identifier: Apache-2.0
"""Runs pytest in a guest and reports every test to the host as a line of JSON.

Started as ``python -m support.in_guest``, with what to run as JSON on standard input. Reports go
to standard output and nothing else does: what pytest itself prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class Reporter:
    """Sends reports, and leaves out the tests that the host did not select.

    :param descriptor: where the lines go.
    :param selected: the node ids to run.
    """

    def __init__(self, descriptor: int, selected: set[str]) -> None:
        self.descriptor = descriptor
        self.selected = selected
        self.config: pytest.Config | None = None

    def send(self, **message: Any) -> None:
        """Write one message as a line."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.descriptor, data) :]

    def pytest_configure(self, config: pytest.Config) -> None:
        """Remember the configuration: reports are turned into JSON with its hooks."""
        self.config = config

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep what the host selected."""
        items[:] = [item for item in items if item.nodeid in self.selected]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which test starts, so that the host knows where a guest died."""
        self.send(start=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a test's report."""
        assert self.config is not None
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.send(report=data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say that all reports of a test have been sent."""
        self.send(finish=nodeid)


def main() -> int:
    """Run the tests that standard input names."""
    request = json.load(sys.stdin)
    reports = os.dup(1)
    os.dup2(2, 1)
    import pytest

    reporter = Reporter(reports, set(request["tests"]))
    files = sorted({test.partition("::")[0] for test in request["tests"]})
    return int(pytest.main(["-p", "no:cacheprovider", *request["options"], *files], [reporter]))


if __name__ == "__main__":
    sys.exit(main())
