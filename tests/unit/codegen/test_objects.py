# SPDX-License-Identifier: Apache-2.0
"""The cache of compiled objects: what is kept, what is checked, when LLVM is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from kcap import cachedir
from kcap.cli import cache as cache_command
from kcap.codegen import objects
from kcap.codegen.objects import DIRECTORY, ObjectSource

SCRIPT = "begin { exit() }"
IR = "; a module"


class FakeCompiler:
    """Stands for the child process with LLVM."""

    started: ClassVar[list[FakeCompiler]] = []

    def __init__(self) -> None:
        self.closed = False
        self.started.append(self)

    def compile(self, ir: str, *, text: bool = False) -> tuple[bytes, str]:
        self.closed = True
        return b"\x7fELF of " + ir.encode(), ""

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that says when it is started."""
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "Compiler", FakeCompiler)
    FakeCompiler.started.clear()
    return tmp_path / "cache" / DIRECTORY


def compiled(hint: str = SCRIPT, ir: str = IR) -> tuple[bytes, bool | None, int]:
    """(object, whether it was compiled, how many compilers were started before it was asked)."""
    FakeCompiler.started.clear()
    source = ObjectSource(hint)
    early = len(FakeCompiler.started)
    data = source.compile(ir)
    source.close()
    assert all(each.closed for each in FakeCompiler.started)
    return data, source.compiled, early


def test_a_first_start_begins_to_load_llvm_at_once() -> None:
    assert compiled() == (b"\x7fELF of ; a module", True, 1)


def test_a_second_start_takes_the_object_and_starts_no_compiler() -> None:
    compiled()
    assert compiled() == (b"\x7fELF of ; a module", False, 0)
    assert FakeCompiler.started == []


def test_a_mark_that_lies_costs_a_late_start_of_the_compiler() -> None:
    compiled()
    assert compiled(ir="; another") == (b"\x7fELF of ; another", True, 0)
    assert compiled(ir="; another") == (b"\x7fELF of ; another", False, 0)


def test_scripts_that_come_to_the_same_module_share_its_object() -> None:
    compiled()
    assert compiled(hint="begin { exit( ) }") == (b"\x7fELF of ; a module", False, 1)


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"kcapobj\1" + bytes(40)])
def test_a_damaged_object_is_compiled_anew(directory: Path, damage: bytes) -> None:
    compiled()
    (path,) = directory.glob("*.o")
    path.write_bytes(damage)
    assert compiled()[:2] == (b"\x7fELF of ; a module", True)
    assert compiled()[:2] == (b"\x7fELF of ; a module", False)


def test_one_changed_byte_is_noticed(directory: Path) -> None:
    compiled()
    (path,) = directory.glob("*.o")
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert compiled()[1] is True


def test_an_object_that_is_gone_is_noticed_before_parsing(directory: Path) -> None:
    compiled()
    (path,) = directory.glob("*.o")
    path.unlink()
    assert compiled() == (b"\x7fELF of ; a module", True, 1)


def test_a_mark_that_leads_elsewhere_is_not_followed(directory: Path) -> None:
    compiled()
    (mark,) = directory.glob("*.mark")
    mark.write_bytes(b"../../x.o")
    assert compiled()[2] == 1


def test_without_a_cache_nothing_is_written(directory: Path) -> None:
    source = ObjectSource(SCRIPT, cached=False)
    assert source.compile(IR) == b"\x7fELF of ; a module"
    assert not directory.exists()


def test_a_directory_that_others_may_write_to_is_no_cache(directory: Path) -> None:
    compiled()
    directory.chmod(0o777)
    assert compiled() == (b"\x7fELF of ; a module", True, 1)


def test_another_llvm_takes_another_object(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    monkeypatch.setattr(objects, "_identity", lambda: "another version")
    assert compiled()[1] is True


def test_the_oldest_files_go_when_there_is_too_much(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    directory.chmod(0o700)
    for age, name in enumerate(("new", "middle", "old")):
        (directory / name).write_bytes(bytes(100))
        os.utime(directory / name, ns=(0, 1_000_000 - age))
    cachedir.limit(objects.DIRECTORY, 250)
    assert sorted(path.name for path in directory.iterdir()) == ["middle", "new"]


def test_cache_clear_removes_what_info_counts(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled()
    assert cache_command.main(["info"]) == 0
    assert f"{directory}: 2 files, " in capsys.readouterr().out
    assert cache_command.main(["clear"]) == 0
    assert f"{directory}: 2 files removed" in capsys.readouterr().out
    assert list(directory.iterdir()) == []
