# SPDX-License-Identifier: Apache-2.0
"""Runs the live tests in guests and shows them in this machine's pytest as if they ran here.

One guest is booted per kernel and one pytest process runs in it, since starting programs is what
an emulated guest is slow at. Each test's reports come back whole: traceback, captured output,
reason of a skip, duration. A test that did not run because the guest went away fails with the
console's last lines.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
import threading
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from kcap.errors import KcapError
from kcap.vm.errors import GuestDied
from kcap.vm.guest import Guest
from kcap.vm.sources import Share
from support import traced_program, tshark

MARK = "KCAP_IN_GUEST"
#: A property of a test with a capture file for tshark begins so; its name follows.
FOR_TSHARK = "kcap-tshark:"

#: How often a guest that died of the emulator's own fault (``GuestDied.stale_breakpoint``) is
#: followed by another one that goes on with the tests. Any other death is the test's.
RESTARTS = 3


class GuestRun(threading.Thread):
    """The tests of one kernel: boots the guest, runs them and keeps their reports.

    :param series: the kernel.
    :param tests: node ids of the tests to run.
    :param slots: held while the guest runs, to bound how many do at once.
    :param root: the project's directory.
    """

    def __init__(
        self, series: str, tests: list[str], slots: threading.Semaphore, root: Path
    ) -> None:
        super().__init__(daemon=True)
        self.series = series
        self.tests = tests
        self.slots = slots
        self.root = root
        self.reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.finished: set[str] = set()
        self.running = ""
        self.problem = ""
        self.console = ""
        self.ended = False
        self.changed = threading.Condition()
        self.output = bytearray()
        self._line = bytearray()
        self._halt = False

    def run(self) -> None:
        """Boot, run, and note why it ended."""
        with self.slots:
            try:
                if not self._halt:
                    self._run()
            except (KcapError, OSError) as error:
                self.problem = f"{type(error).__name__}: {error}"
                hint = getattr(error, "hint", None)
                self.problem += f"\n{hint}" if hint else ""
                self.console = getattr(error, "log", "")
            finally:
                with self.changed:
                    self.ended = True
                    self.changed.notify_all()

    def _run(self) -> None:
        staging = Path(tempfile.mkdtemp(prefix="kcap-live-"))
        try:
            # Tests run meanwhile: compiled modules have such names until they are written.
            passing = shutil.ignore_patterns(".*", "*.pyc.*")
            shutil.copytree(self.root / "tests", staging / "tests", ignore=passing)
            shutil.copy2(self.root / "pyproject.toml", staging)
            shutil.copytree(self.root / "docs", staging / "docs")
            traced_program.build(staging)
            shares = [Share(staging, str(self.root), bring_back=False)]
            for attempts_left in range(RESTARTS, -1, -1):
                try:
                    with Guest(self.series, shares=shares, progress=self.say) as guest:
                        self._pytest(guest)
                    return
                except GuestDied as error:
                    if not (error.stale_breakpoint and attempts_left):
                        raise
                    self._forget_running()
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _forget_running(self) -> None:
        """Get ready to go on in another guest with the test that this one died in."""
        self.say(f"the emulator ran code that the kernel had replaced; again: {self.running}")
        with self.changed:
            self.reports.pop(self.running, None)
            self.running = ""
            self._line.clear()

    def _pytest(self, guest: Guest) -> None:
        left = [test for test in self.tests if test not in self.finished]
        request = {"tests": left, "options": ["-q", f"--kernels={self.series}"]}
        command = guest.start(
            ["python3", "-m", "support.in_guest"],
            cwd=str(self.root),
            env={
                MARK: self.series,
                "PYTHONPATH": f"{self.root / 'src'}:{self.root / 'tests'}",
            },
            stdin=True,
            on_stdout=self.take,
            on_stderr=self.output.extend,
        )
        command.write(json.dumps(request).encode())
        command.close_stdin()
        while command.running and not self._halt:
            with self.changed:
                self.changed.wait(0.5)
        if not self._halt:
            status = command.wait().status
            self.problem = f"pytest in the guest ended with exit status {status}"

    def say(self, text: str) -> None:
        """Show progress beside pytest's own output."""
        print(f"\n[{self.series}] {text}", file=sys.__stderr__, flush=True)

    def take(self, data: bytes) -> None:
        """Take what the guest's pytest reports."""
        self._line += data
        while b"\n" in self._line:
            line, _, rest = self._line.partition(b"\n")
            self._line = bytearray(rest)
            with self.changed:
                self._message(json.loads(line))
                self.changed.notify_all()

    def _message(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self.running = message["start"]
        elif "report" in message:
            self.reports[message["report"]["nodeid"]].append(message["report"])
        elif "finish" in message:
            self.finished.add(message["finish"])
            self.running = ""

    def wait_for(self, test: str) -> bool:
        """Wait until a test has ended; say whether it has, or else the guest."""
        with self.changed:
            self.changed.wait_for(lambda: test in self.finished or self.ended)
            return test in self.finished

    def why_not(self, test: str) -> str:
        """Say why a test has no result."""
        where = "while this test ran" if self.running == test else "before this test ran"
        lines = [f"the guest with kernel {self.series} ended {where}: {self.problem}"]
        if self.console:
            # The whole of it once, for the test that it happened to.
            tail = self.console.splitlines()[-5 if self.running not in ("", test) else -60 :]
            lines += ["", "the console's last lines:", *tail]
        if self.output and self.running in ("", test):
            lines += ["", "pytest in the guest:", self.output.decode(errors="replace")[-8000:]]
        return "\n".join(lines)

    def stop(self) -> None:
        """Let the guest end."""
        self._halt = True
        with self.changed:
            self.changed.notify_all()
        self.join(30)


class LivePlugin:
    """Puts results from guests in the place of running the live tests here."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, GuestRun] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put the live tests last: what needs no guest runs while guests boot."""
        items.sort(key=lambda item: series_of(item) is not None)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start the guests for what is to be run."""
        if session.config.option.collectonly or session.testsfailed:
            return
        tests: dict[str, list[str]] = defaultdict(list)
        for item in session.items:
            series = series_of(item)
            if series is not None:
                tests[series].append(item.nodeid)
        slots = threading.Semaphore(how_many_guests(session.config))
        for series, names in tests.items():
            self.runs[series] = GuestRun(series, names, slots, session.config.rootpath)
            self.runs[series].start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Report a live test as its guest did."""
        series = series_of(item)
        if series is None:
            return None
        run = self.runs[series]
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if run.wait_for(item.nodeid):
            reports = [self._report(data) for data in run.reports[item.nodeid]]
        else:
            reports = [self._failure(item, run.why_not(item.nodeid))]
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        """Turn JSON back into a report; where a skip comes from is a tuple, which JSON lacks."""
        if isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])
        complaints = tshark_complaints(data)
        if complaints and data["outcome"] == "passed":
            data["outcome"], data["longrepr"] = "failed", complaints
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
        assert isinstance(report, pytest.TestReport)
        return report

    def _failure(self, item: pytest.Item, text: str) -> pytest.TestReport:
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=text,
            when="call",
        )

    def pytest_sessionfinish(self) -> None:
        """End the guests."""
        for run in self.runs.values():
            run.stop()


def tshark_complaints(report: dict[str, Any]) -> str:
    """Let tshark read the capture files that came with the report of a test's call.

    They are taken out of it. The result says what is wrong with them; '' for nothing.
    """
    files = {
        name.removeprefix(FOR_TSHARK): value
        for name, value in report["user_properties"]
        if name.startswith(FOR_TSHARK)
    }
    report["user_properties"] = [
        one for one in report["user_properties"] if not one[0].startswith(FOR_TSHARK)
    ]
    if report["when"] != "call":
        return ""
    said = []
    for name, packed in files.items():
        with tempfile.NamedTemporaryFile(suffix=name) as file:
            file.write(zlib.decompress(base64.b64decode(packed)))
            file.flush()
            said += [f"{name}: {line}" for line in tshark.complaints(file.name)]
    return "\n".join(said)


def series_of(item: pytest.Item) -> str | None:
    """Return the kernel that a test runs on, or None when it runs on this machine."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or "live_kernel" not in callspec.params:
        return None
    return str(callspec.params["live_kernel"])


def how_many_guests(config: pytest.Config) -> int:
    """Return how many guests may run at once."""
    wanted = config.getoption("--guests")
    return wanted or min(4, os.cpu_count() or 2)
