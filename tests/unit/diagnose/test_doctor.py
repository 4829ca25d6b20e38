# SPDX-License-Identifier: Apache-2.0
"""``kcap doctor``, on a machine that is only pretended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kcap.btf import Btf
from kcap.cli import doctor as command
from kcap.diagnose.doctor import Doctor, Point, capture_works
from kcap.kernel import permissions, uapi
from kcap.kernel.permissions import Check
from kcap.probes.system import System


class Asked:
    """A kernel that answers the same to everything, except for what is listed."""

    def __init__(self, answer: bool | None, *, without: frozenset[str] = frozenset()) -> None:
        self._answer = answer
        self._without = without

    def _say(self, name: str) -> bool | None:
        return False if name in self._without else self._answer

    def program_type(self, kind: int, attach_type: int = 0, btf: Btf | None = None) -> bool | None:
        return self._say("fentry" if attach_type == uapi.BPF_TRACE_FENTRY else "program")

    def helper(
        self, number: int, program_type: int, attach_type: int = 0, btf: Btf | None = None
    ) -> bool | None:
        return self._say("helper")

    def map_type(self, kind: int) -> bool | None:
        return self._say("ringbuf" if kind == uapi.BPF_MAP_TYPE_RINGBUF else "map")

    def loop(self) -> bool | None:
        return self._say("loop")

    def for_each_map_elem(self) -> bool | None:
        return self._say("for_each")

    def perf_link(self) -> bool | None:
        return self._say("perf_link")

    def kprobe_multi(self) -> bool | None:
        return self._say("kprobe_multi")

    def uprobe_multi(self) -> bool | None:
        return self._say("uprobe_multi")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    files = {
        "proc/sys/net/core/bpf_jit_enable": "1",
        "proc/sys/kernel/ftrace_enabled": "1",
        "proc/sys/kernel/kptr_restrict": "2",
        "sys/bus/event_source/devices/kprobe/type": "8",
    }
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    check = Check("capabilities", True, "loading", "run as root")
    monkeypatch.setattr(permissions, "checks", lambda: (check,))
    return str(tmp_path / "root")


def looked_at(machine: System, root: str, features: Asked, release: str = "6.12.0") -> list[Point]:
    return Doctor(machine, features, release, root).points()


def named(points: list[Point], name: str) -> Point:
    (found,) = [point for point in points if point.name == name]
    return found


def test_a_good_machine_can_capture(machine: System, root: str) -> None:
    points = looked_at(machine, root, Asked(True))
    assert capture_works(points) is True
    assert named(points, "ftrace").found == "19 functions"
    assert named(points, "BTF").found == "vmlinux and 0 modules"


@pytest.mark.parametrize("missing", ["fentry", "helper", "map"])
def test_without_what_capture_needs_it_can_not(machine: System, root: str, missing: str) -> None:
    points = looked_at(machine, root, Asked(True, without=frozenset({missing})))
    assert capture_works(points) is False


@pytest.mark.parametrize("missing", ["kprobe_multi", "loop", "ringbuf", "perf_link"])
def test_what_is_only_nice_to_have_does_not_matter(
    machine: System, root: str, missing: str
) -> None:
    assert capture_works(looked_at(machine, root, Asked(True, without=frozenset({missing}))))


def test_without_rights_it_can_not_tell(machine: System, root: str) -> None:
    assert capture_works(looked_at(machine, root, Asked(None))) is None


def test_an_old_kernel_is_too_old(machine: System, root: str) -> None:
    points = looked_at(machine, root, Asked(True), "4.19.0")
    assert named(points, "version").ok is False


def test_settings_are_read(machine: System, root: str) -> None:
    points = looked_at(machine, root, Asked(True))
    assert (named(points, "kptr_restrict").ok, named(points, "kptr_restrict").found) == (False, "2")
    assert named(points, "perf_event_paranoid").found == "can't tell"
    assert (named(points, "kprobes").ok, named(points, "uprobes").ok) == (True, False)


def test_the_table_says_what_is_missing_what_for_and_how_to_get_it() -> None:
    points = [
        Point("kernel", "version", True, "6.12", "why", "how"),
        Point("kernel", "JIT", False, "0", "speed", "turn it on"),
        Point("rights", "lockdown", None, "can't tell", "reading", "boot without"),
    ]
    assert command.table(points, None) == [
        "kernel",
        "  ok  version   6.12",
        "  NO  JIT       0",
        "                for: speed",
        "                get: turn it on",
        "",
        "rights",
        "  ?   lockdown  can't tell",
        "                for: reading",
        "                get: boot without",
        "",
        "Whether packets can be captured can't be told: see the lines marked ?.",
    ]


@pytest.mark.parametrize(
    ("answer", "status", "capture"), [(True, 0, True), (False, 1, False), (None, 2, None)]
)
def test_json_and_exit_status(
    machine: System,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: bool | None,
    status: int,
    capture: bool | None,
) -> None:
    found = looked_at(machine, root, Asked(answer))
    monkeypatch.setattr(Doctor, "points", lambda self: found)
    assert command.main(["--json"]) == status
    data = json.loads(capsys.readouterr().out)
    assert data["capture"] is capture
    assert {"group", "name", "ok", "found", "why", "how", "needed"} == set(data["points"][0])
