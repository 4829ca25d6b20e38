# SPDX-License-Identifier: Apache-2.0
"""Files that are named as scripts, and are none or unusual ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.cli.main import main
from kcap.cli.reading import read_script
from kcap.errors import FileError


def test_a_program_is_no_script(tmp_path: Path) -> None:
    program = tmp_path / "true"
    program.write_bytes(b"\x7fELF\2\1\1" + bytes(9))
    with pytest.raises(FileError) as caught:
        read_script(str(program))
    assert caught.value.message == f"'{program}' is a program or a library, not a script"
    assert caught.value.hint is not None
    assert f"uprobe:{program}:FUNCTION" in caught.value.hint


def test_what_is_no_text_is_refused_with_the_place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"begin {\n\0}")
    with pytest.raises(FileError, match=r"is no text: there is a NUL byte in line 2$"):
        read_script(str(data))


def test_scripts_of_other_systems_are_read(tmp_path: Path) -> None:
    script = tmp_path / "windows.bt"
    script.write_bytes(b"\xef\xbb\xbfbegin {\r\n  exit();\r\n}\r\n")
    assert read_script(str(script)) == (str(script), "begin {\n  exit();\n}\n")


def test_bytes_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    script = tmp_path / "latin.bt"
    script.write_bytes(b'begin { printf("caf\xe9"); }')
    assert read_script(str(script))[1].encode("utf-8", "surrogateescape") == script.read_bytes()


@pytest.mark.parametrize("words", [[], ["check"], ["fix"], ["--fmt"], ["--vm"]], ids=" ".join)
def test_every_command_says_the_same_of_a_file_that_is_not_there(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.bt")
    assert main([*words, missing]) == 1
    message = f"ERROR: failed to open file '{missing}': No such file or directory\n"
    assert capsys.readouterr().err == message


def test_a_misspelt_command_is_shown_beside_the_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["caputre", "ip_rcv"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "ERROR: failed to open file 'caputre': No such file or directory",
        "HINT: it is no script here; was the command kcap capture meant?",
    ]
