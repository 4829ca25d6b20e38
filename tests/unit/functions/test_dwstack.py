# SPDX-License-Identifier: Apache-2.0
"""dw_ustack(): what it asks for, and the table that its programs read."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from kcap.functions.dwstack import FILES, unwind_table
from kcap.lang.diagnostic import ScriptError
from kcap.session.script import Options, compile
from kcap.session.unwinding import mapped_files, unwound_files, with_libraries
from kcap.symbols.callframes import rows

ENABLED = "config = { unstable_dw_ustack=enable }"


def test_it_wants_a_process() -> None:
    with pytest.raises(ScriptError) as caught:
        compile(f"{ENABLED} begin {{ print(dw_ustack()); }}")
    assert caught.value.diagnostics[0].title == "dw_ustack requires a target process"
    assert caught.value.diagnostics[0].help == (
        "name processes with -p or --dwarf-pid, or a command with -c",
    )


def test_it_is_unstable() -> None:
    options = Options(dwarf_pids=[os.getpid()])
    with pytest.raises(ScriptError) as caught:
        compile(
            "config = { unstable_dw_ustack=error } begin { print(dw_ustack()); }", options=options
        )
    assert caught.value.diagnostics[0].code == "unstable-feature"
    assert caught.value.diagnostics[0].title.endswith("to enable. unstable_dw_ustack=enable")


def test_its_length_is_not_known() -> None:
    options = Options(dwarf_pids=[os.getpid()])
    with pytest.raises(ScriptError) as caught:
        compile(f"{ENABLED} begin {{ print(len(dw_ustack())); }}", options=options)
    assert "len() can't tell the depth of a dw_ustack" in str(caught.value)


def test_the_table_has_the_files_first_and_their_rows_behind(tmp_path: Path) -> None:
    (tmp_path / "no program").write_text("text")
    path = os.path.realpath(sys.executable)
    table = unwind_table((str(tmp_path / "no program"), path))
    inode, first, count = struct.unpack_from("<QII", table)
    assert (inode, first) == (os.stat(path).st_ino, 0)
    assert count == len(rows(path)) > 0
    assert len(table) == 16 * FILES + 16 * count
    assert table[16 : 16 * FILES] == bytes(16 * (FILES - 1))


def test_a_process_runs_what_it_has_mapped() -> None:
    assert unwound_files(None, (), "") is None
    find = unwound_files(None, (os.getpid(),), "")
    assert find is not None
    program = os.path.realpath(sys.executable)
    assert any(os.path.samefile(path, program) for path in find())
    assert mapped_files(1 << 22) == []


def test_a_command_runs_its_libraries_and_its_interpreter() -> None:
    find = unwound_files(None, (), "sh -c true")
    assert find is not None
    names = [os.path.basename(path) for path in find()]
    assert names[0] == "sh"
    assert any(name.startswith("libc.so") for name in names)
    assert any(name.startswith("ld-linux") for name in names)
    assert with_libraries("/etc/passwd") == ["/etc/passwd"]
