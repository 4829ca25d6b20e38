# SPDX-License-Identifier: Apache-2.0
"""What was read from a file is kept until it is another file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.functions.dwstack import unwind_table
from kcap.probes import binaries
from kcap.probes.binaries import Binary
from kcap.symbols.perfile import kept_per_file


class Reader:
    """A function that reads files, and how often it did."""

    def __init__(self) -> None:
        self.calls = 0
        self.one = kept_per_file(self._one)
        self.all = kept_per_file(self._all)

    def _one(self, path: str, size: int = -1) -> str:
        self.calls += 1
        with open(path) as file:
            return file.read(size)

    def _all(self, paths: tuple[str, ...]) -> list[str]:
        self.calls += 1
        return [Path(path).read_text() for path in paths if os.path.exists(path)]


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_file_is_read_once_for_the_same_arguments(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "file"
    path.write_text("some text")
    assert [reader.one(str(path)) for _ in range(3)] == ["some text"] * 3
    assert reader.calls == 1
    assert [reader.one(str(path), 4), reader.one(str(path), size=4)] == ["some", "some"]
    assert reader.calls == 3


def test_a_file_that_another_is_renamed_over_is_read_again(tmp_path: Path, reader: Reader) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    for each, text in ((path, "old"), (other, "new")):
        each.write_text(text)
        os.utime(each, ns=(1, 1))
    assert reader.one(str(path)) == "old"
    other.replace(path)
    assert reader.one(str(path)) == "new"


def test_a_file_that_is_written_in_its_place_is_read_again(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "file"
    for number, text in enumerate(("old", "new", "longer")):
        path.write_text(text)
        os.utime(path, ns=(number, number))
        assert reader.one(str(path)) == text


def test_any_of_several_files_may_change_or_come_later(tmp_path: Path, reader: Reader) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    paths = (str(first), str(second))
    first.write_text("1")
    assert [reader.all(paths), reader.all(paths)] == [["1"], ["1"]]
    assert reader.calls == 1
    second.write_text("2")
    assert reader.all(paths) == ["1", "2"]
    first.unlink()
    assert reader.all(paths) == ["2"]


def test_what_was_raised_is_raised_again_until_it_is_mended(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            reader.one(str(path))
    path.write_text("here")
    assert reader.one(str(path)) == "here"


def copy(source: str, target: Path) -> None:
    """As a package manager replaces a program."""
    made = target.with_suffix(".new")
    made.write_bytes(Path(source).read_bytes())
    made.replace(target)


def test_an_upgraded_program_is_probed_at_its_new_places(tmp_path: Path) -> None:
    program = tmp_path / "program"
    copy("/bin/sh", program)
    old = Binary("program", str(program)).elf()
    assert Binary("program", str(program)).elf() is old
    copy("/proc/self/exe", program)
    new = Binary("program", str(program)).elf()
    assert [each.offset for each in new.segments] != [each.offset for each in old.segments]
    program.write_text("no ELF file")
    with pytest.raises(FileError):
        Binary("program", str(program)).elf()


def test_an_upgraded_program_is_unwound_by_its_new_table(tmp_path: Path) -> None:
    program = tmp_path / "program"
    copy("/bin/sh", program)
    old = unwind_table((str(program),))
    assert unwind_table((str(program),)) is old
    copy("/bin/ls", program)
    assert unwind_table((str(program),)) != old


def test_a_library_that_is_installed_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "ld.so.cache"
    monkeypatch.setattr(binaries, "LD_CACHE", str(cache))
    without = binaries.libraries("x86_64")
    cache.write_bytes(Path("/etc/ld.so.cache").read_bytes())
    assert binaries.libraries("x86_64") == binaries.parse_ld_cache(cache.read_bytes(), "x86_64")
    cache.unlink()
    assert binaries.libraries("x86_64") == without
