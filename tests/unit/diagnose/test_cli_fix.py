# SPDX-License-Identifier: Apache-2.0
"""``kcap fix`` as a command."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from kcap.cli import fix
from kcap.diagnose.repair import repair as mended
from kcap.diagnose.spellings import old_spellings
from kcap.errors import FileError, UsageError
from kcap.lang.diagnostic import ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import System
from kcap.session.options import Options
from unit.diagnose import repair_machine as frozen

CASE = b'kprobe:icmp_rcv {  // caf\xe9\n  skboutput("a", (struct sk_buff *)arg0, 1, 0);\n}\n'
FIXED = b'fentry:icmp_rcv {  // caf\xe9\n  skboutput("a", args.skb, 1, 0);\n}\n'


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = frozen.files(tmp_path / "machine")
    monkeypatch.setattr(
        "kcap.probes.system.System", lambda **given: System(**given | {"files": files})
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "capture.bt"
    path.write_bytes(CASE)
    path.chmod(0o640)
    return path


def test_it_prints_the_repaired_script(
    script: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert fix.main([str(script)]) == 0
    out, err = capfdbinary.readouterr()
    assert out == FIXED
    assert err == f"kcap fix: {script}:2:3: fixed: skboutput() can't be used in a kprobe\n".encode()
    assert script.read_bytes() == CASE


def test_it_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CASE)))
    assert fix.main(["-"]) == 0
    assert capfdbinary.readouterr().out == FIXED


def test_what_only_compiling_finds_is_left_and_said(
    script: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = 'fentry:icmp_rcv {{ {}(skbfilter(args.skb, "tcp prot 1")); }}'
    script.write_text(text.format("prnt"))
    assert fix.main([str(script)]) == 1
    out, err = capfd.readouterr()
    assert out == text.format("print")
    assert "fixed: " in err
    assert "error[packet-filter]" in err


def test_in_place_keeps_the_mode_and_leaves_nothing_behind(script: Path) -> None:
    assert fix.main(["-i", str(script)]) == 0
    assert script.read_bytes() == FIXED
    assert stat.S_IMODE(script.stat().st_mode) == 0o640
    assert [p.name for p in script.parent.iterdir() if p.is_file()] == ["capture.bt"]


def test_in_place_leaves_an_own_link_a_link(script: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.bt"
    link.symlink_to(script)
    assert fix.main(["-i", str(link)]) == 0
    assert link.is_symlink()
    assert script.read_bytes() == FIXED


@pytest.mark.skipif(os.geteuid() != 0, reason="making another user's link takes root")
def test_in_place_refuses_another_users_link_in_a_shared_directory(
    script: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link.bt"
    link.symlink_to(script)
    os.lchown(link, 12345, 12345)
    with pytest.raises(FileError, match="another user's symbolic link"):
        fix.main(["-i", str(link)])
    assert script.read_bytes() == CASE


def test_diff(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.write_text('kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }\n')
    assert fix.main(["--diff", str(script)]) == 0
    assert capsys.readouterr().out == (
        f"--- {script}\n+++ {script} (fixed)\n@@ -1 +1 @@\n"
        '-kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }\n'
        '+fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }\n'
    )


def test_nothing_to_fix_is_said_and_the_text_printed(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text("begin { exit(); }\n")
    assert fix.main([str(script)]) == 0
    assert capsys.readouterr() == ("begin { exit(); }\n", f"kcap fix: {script}: nothing to fix\n")


def test_a_refusal_prints_the_reason_only_and_fails(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'kprobe:icmp_rcv+4 { skboutput("a", (struct sk_buff *)arg0, 1, 0); }\n'
    script.write_text(text)
    assert fix.main(["-i", str(script)]) == 1
    assert fix.main([str(script)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no safe rewrite: kprobe:icmp_rcv+4 can't be rewritten as fentry" in err
    assert script.read_text() == text


def test_a_script_that_can_not_be_parsed_is_left_alone(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text("begin { @ = ; }")
    assert fix.main(["-i", str(script)]) == 1
    assert script.read_text() == "begin { @ = ; }"
    assert "error[syntax]" in capsys.readouterr().err


def test_errors_are_repaired_one_behind_the_other(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text("kprobe:icmp_rcw { if (args.skp.len) { $n = 1 } print($n); prnt(2); }\n")
    assert fix.main([str(script)]) == 0
    out = capsys.readouterr().out
    assert out == (
        "fentry:icmp_rcv { let $n; if (args.skb.len) { $n = 1 } print($n); print(2); }\n"
    )


def test_what_is_certain_is_repaired_and_the_rest_reported(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text("begin { print(pdi); print($nowhere); }\n")
    assert fix.main([str(script)]) == 1
    out, err = capsys.readouterr()
    assert out == "begin { print(pid); print($nowhere); }\n"
    assert f"kcap fix: {script}:1:15: fixed: Unknown identifier: 'pdi'\n" in err
    assert "error[undefined-variable]" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "kcap fix needs a file"),
        (["-x", "f"], "kcap fix has no option -x"),
        (["-i", "-"], "-i needs a file: standard input can't be written"),
        (["-i", "--diff", "f"], "-i and --diff exclude each other"),
    ],
)
def test_a_wrong_command_line_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        fix.main(argv)
    assert caught.value.message == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        fix.main([str(tmp_path / "none.bt")])
    missing = f"{tmp_path}/none.bt"
    assert caught.value.message == f"failed to open file '{missing}': No such file or directory"


def test_fixed_text_says_what_it_changed(capsys: pytest.CaptureFixture[str]) -> None:
    text = 'kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }'
    assert (
        fix.fixed_text("-e", text, Options())
        == 'fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }'
    )
    assert capsys.readouterr().err == (
        "kcap: running -e with these changes:\n--- -e\n+++ -e (fixed)\n@@ -1 +1 @@\n"
        f"-{text}\n"
        '+fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }\n'
    )


def test_fixed_text_raises_what_can_not_be_repaired() -> None:
    text = 'kprobe:icmp_rcv+4 { skboutput("a", (struct sk_buff *)arg0, 1, 0); }'
    with pytest.raises(ScriptError) as caught:
        fix.fixed_text("-e", text, Options())
    assert [d.code for d in caught.value.diagnostics] == ["helper-not-allowed"]


def test_a_misspelt_function_of_a_kprobe_is_mended(tmp_path: Path) -> None:
    script = tmp_path / "kprobe.bt"
    script.write_text("kprobe:vfs_raed { print(1); }")
    assert fix.main(["-i", str(script)]) == 0
    assert script.read_text() == "kprobe:vfs_read { print(1); }"


def test_unsafe_functions_are_no_errors_of_a_script_that_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "unsafe.bt"
    script.write_text('kprobe:vfs_read { system("%d", pidd); }')
    assert fix.main([str(script)]) == 0
    assert capsys.readouterr().out == 'kprobe:vfs_read { system("%d", pid); }'


def test_the_script_is_mended_for_what_it_is_run_with(tmp_path: Path) -> None:
    (tmp_path / "mine.h").write_text("#define LIMIT 3\n")
    text = '#include "mine.h"\nkprobe:vfs_read /pid > LIMIT/ { print(%s); }'
    options = Options(include_directories=(str(tmp_path),))
    assert fix.fixed_text("-e", text % "comn", options) == text % "comm"


def test_old_spellings_are_only_replaced_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.bt"
    old = "BEGIN { print(1); } // BEGIN args->x\nEND { print(2); }\n"
    path.write_text(old)
    fix.main([str(path)])
    assert capsys.readouterr().out == old
    assert fix.main(["--modern", "--diff", str(path)]) == 0
    captured = capsys.readouterr()
    assert "-BEGIN { print(1); } // BEGIN args->x\n" in captured.out
    assert "+begin { print(1); } // BEGIN args->x\n" in captured.out
    assert "fixed: BEGIN is written begin today" in captured.err


def test_an_arrow_behind_args_is_written_as_a_dot() -> None:
    text = "kfunc:f, k:g /args->a > 1/ { @ = args -> b; print(args->c->d); print($x->y); }"
    fixed = mended("x.bt", text, lambda _: [], lambda t: old_spellings(parse(Source("x.bt", t))))
    assert fixed.text == (
        "fentry:f, k:g /args.a > 1/ { @ = args -> b; print(args.c->d); print($x->y); }"
    )
