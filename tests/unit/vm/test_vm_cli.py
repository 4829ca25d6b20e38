# SPDX-License-Identifier: Apache-2.0
"""``kcap vm``: its arguments, and its list of kernels."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest

from kcap.cli import vm
from kcap.cli.parser import Parser
from kcap.errors import UsageError
from kcap.vm import accel
from kcap.vm import guest as guest_module
from kcap.vm.errors import VmError
from kcap.vm.sources import Share


def parse(*words: str) -> argparse.Namespace:
    parser = Parser(prog="kcap vm")
    vm.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_follows_two_dashes_with_its_own_options() -> None:
    arguments = parse("run", "--kernel", "6.1", "--share", "a", "--", "ls", "-l", "--share", "x")
    assert arguments.kernel == "6.1"
    assert arguments.share == ["a"]
    assert arguments.command == ["ls", "-l", "--share", "x"]


def test_the_default_kernel_is_6_12() -> None:
    assert parse("run", "--", "true").kernel == "6.12"


def test_a_kernel_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"invalid choice: '2\.4' \(choose from '?5\.10"):
        parse("run", "--kernel", "2.4", "--", "true")


def test_a_share_may_name_its_place_in_the_guest(tmp_path: Path) -> None:
    assert vm.parse_share(f"{tmp_path}:/mnt/x") == Share(tmp_path.resolve(), "/mnt/x")
    assert vm.parse_share(str(tmp_path)) == Share(tmp_path.resolve(), str(tmp_path.resolve()))


def test_a_command_runs_where_it_was_typed_if_the_guest_sees_that() -> None:
    shares = [Share(Path("/home/me/work"), "/mnt/work")]
    assert vm.working_directory(shares, "/home/me/work") == "/mnt/work"
    assert vm.working_directory(shares, "/home/me/work/sub") == "/mnt/work/sub"
    assert vm.working_directory(shares, "/home/me/workshop") is None


def test_kernels_that_were_not_fetched_are_listed_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    assert vm.main(["kernels"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "5.10   Debian bullseye   not fetched yet",
        "6.1    Debian bookworm   not fetched yet",
        "6.12   Debian trixie     not fetched yet",
        "7.2    Debian forky      not fetched yet",
    ]


def test_kcap_accel_decides_outright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCAP_ACCEL", "tcg")
    assert accel.accelerator(Path("/none"), print) == "tcg"
    monkeypatch.setenv("KCAP_ACCEL", "fast")
    with pytest.raises(VmError, match="KCAP_ACCEL is 'fast'"):
        accel.accelerator(Path("/none"), print)


def test_whether_kvm_works_is_tried_once_a_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KCAP_ACCEL", raising=False)
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    tried: list[Path] = []

    def problem(kernel: Path) -> str:
        tried.append(kernel)
        return "it hangs"

    monkeypatch.setattr(accel, "kvm_problem", problem)
    said: list[str] = []
    assert accel.accelerator(Path("/k"), said.append) == "tcg"
    assert accel.accelerator(Path("/k"), said.append) == "tcg"
    assert tried == [Path("/k")]
    assert said == ["no KVM (it hangs): the guest is emulated, which takes several times as long"]
    remembered = tmp_path / "cache/accelerator.json"
    remembered.write_text(json.dumps({**json.loads(remembered.read_text()), "boot": "earlier"}))
    assert accel.accelerator(Path("/k"), said.append) == "tcg"
    assert len(tried) == 2


def first_sign(script: str, patience: float) -> str:
    """Let a shell script stand for the emulator."""
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        return accel._first_sign(process, patience)
    finally:
        process.kill()
        process.communicate()


def test_only_a_kernels_words_are_a_sign_of_life() -> None:
    assert first_sign("echo '[    0.000000] Linux version 6.12'; exec sleep 60", 30) == ""
    assert first_sign("exec sleep 60", 0.1).endswith("a guest shows no life within 0 s")
    assert first_sign("echo failure >&2", 30).endswith("the emulator stops with it: failure")


def test_the_guests_first_program_is_a_valid_shell_script() -> None:
    script = Path(guest_module.__file__).parent / "init.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
