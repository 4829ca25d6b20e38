# SPDX-License-Identifier: Apache-2.0
"""``-d STAGE``, ``--mode``: what a script becomes on its way to the kernel; nothing is loaded."""

from __future__ import annotations

import pytest

from kcap.cli.main import main

SCRIPT = "begin { @x = pid; } end { @x = 7; }"


def printed(stage: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["-d", stage, "--mode", "codegen", "--no-cache", "-e", SCRIPT]) == 0
    return capsys.readouterr().out


def test_the_syntax_is_printed_in_standard_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("ast", capsys) == "begin { @x = pid; }\n\nend { @x = 7; }\n"


def test_the_code_is_printed_before_and_after_llvms_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, after = printed("codegen", capsys), printed("codegen-opt", capsys)
    assert 'define i64 @prog_1(ptr %ctx) #0 section "kcap/prog_1"' in before
    # What only LLVM's passes write.
    assert ("local_unnamed_addr" in before, "local_unnamed_addr" in after) == (False, True)


def test_instructions_are_printed_with_the_program_and_probe_they_belong_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed("dis", capsys).splitlines()
    assert "prog_0:" in lines
    assert "\tcall 14" in lines  # bpf_get_current_pid_tgid
    names = [line.partition(": ")[0] for line in lines if line.startswith("prog_") and " " in line]
    assert names == ["prog_0 is begin", "prog_1 is end"]


def test_the_mode_format_is_fmt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mode", "format", "-e", "BEGIN{@x=1}"]) == 0
    assert capsys.readouterr().out == "BEGIN { @x = 1; }\n"
