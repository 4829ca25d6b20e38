# SPDX-License-Identifier: Apache-2.0
"""What a process may do, read from copies of /proc and /sys files."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from kcap.kernel import permissions


@pytest.mark.parametrize(
    ("mask", "missing"),
    [
        (0, ("CAP_BPF", "CAP_PERFMON")),
        (1 << 39, ("CAP_PERFMON",)),
        (1 << 39 | 1 << 38, ()),
        (1 << 21, ()),
    ],
)
def test_missing_capabilities(mask: int, missing: tuple[str, ...]) -> None:
    assert permissions.missing_capabilities(mask) == missing


def test_capabilities_are_read_from_status(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n")
    assert permissions.effective_capabilities(str(status)) == 0x1FFFFFFFFFF
    assert permissions.effective_capabilities(str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("[none] integrity confidentiality\n", "none"),
        ("none integrity [confidentiality]\n", "confidentiality"),
        ("", ""),
    ],
)
def test_lockdown_is_the_word_in_brackets(tmp_path: Path, text: str, mode: str) -> None:
    path = tmp_path / "lockdown"
    path.write_text(text)
    assert permissions.lockdown(str(path)) == mode


@pytest.mark.parametrize(
    ("text", "initial"), [("         0          0 4294967295\n", True), ("0 1000 1\n", False)]
)
def test_the_initial_user_namespace_maps_everything(
    tmp_path: Path, text: str, initial: bool
) -> None:
    path = tmp_path / "uid_map"
    path.write_text(text)
    assert permissions.in_initial_user_namespace(str(path)) is initial
    assert permissions.in_initial_user_namespace(str(tmp_path / "absent")) is None


def test_lockdown_explains_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "effective_capabilities", lambda: 1 << 21)
    monkeypatch.setattr(permissions, "in_initial_user_namespace", lambda: True)
    monkeypatch.setattr(permissions, "lockdown", lambda: "confidentiality")
    assert permissions.explain() == "boot with lockdown=integrity, or without lockdown"
    monkeypatch.setattr(permissions, "lockdown", lambda: "integrity")
    assert permissions.explain() is None


@pytest.mark.parametrize(("setting", "said"), [("0", False), ("1", True), ("2", True)])
def test_who_may_call_bpf_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, said: bool
) -> None:
    (tmp_path / "setting").write_text(setting + "\n")
    monkeypatch.setattr(permissions, "UNPRIVILEGED", str(tmp_path / "setting"))
    monkeypatch.setattr(permissions, "effective_capabilities", lambda: 0)
    hint = permissions.explain()
    assert hint is not None
    assert hint.startswith("run as root (sudo), or give the process CAP_BPF and CAP_PERFMON")
    assert (f"kernel.unprivileged_bpf_disabled is {setting}" in hint) is said


@pytest.mark.parametrize(
    ("release", "limit", "said"),
    [
        ("5.10.0-30-amd64", 8 << 20, True),
        ("5.10.0-30-amd64", resource.RLIM_INFINITY, False),
        ("6.1.0", 8 << 20, False),
    ],
)
def test_the_limit_of_locked_memory_counts_before_5_11(
    monkeypatch: pytest.MonkeyPatch, release: str, limit: int, said: bool
) -> None:
    monkeypatch.setattr(permissions, "checks", tuple)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    hint = permissions.explain()
    assert (hint is not None) is said
    assert not said or "8192 KiB (ulimit -l unlimited)" in str(hint)
