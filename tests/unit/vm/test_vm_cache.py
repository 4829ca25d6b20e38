# SPDX-License-Identifier: Apache-2.0
"""The private cache: where it is, who may write there, what killed processes left."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kcap import cachedir
from kcap.vm import cache
from kcap.vm.errors import VmError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))


def test_kcap_cache_names_the_cache_outright() -> None:
    assert cachedir.root({"KCAP_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}) == "/a/b"


def test_a_relative_kcap_cache_is_below_the_working_directory() -> None:
    assert cachedir.root({"KCAP_CACHE": "a"}) == f"{os.getcwd()}/a"


def test_the_cache_is_below_xdg_cache_home() -> None:
    assert cachedir.root({"XDG_CACHE_HOME": "/c"}) == "/c/kcap"


def test_a_relative_xdg_cache_home_is_ignored() -> None:
    assert cachedir.root({"XDG_CACHE_HOME": "c"}) == f"{Path.home()}/.cache/kcap"


def test_directories_of_the_cache_are_private() -> None:
    path = cache.subdirectory("one", "two")
    for directory in (path, path.parent, path.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_symbolic_link_is_not_taken_for_the_cache(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VmError, match="is not a directory"):
        cache.private_directory(tmp_path / "cache")


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(VmError, match="others may write to it"):
        cache.private_directory(path)


def test_writing_replaces_the_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cache.write_atomically(path, b"a long first content")
    cache.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]


def test_a_temporary_directory_is_gone_after_the_block() -> None:
    with cache.temporary_directory() as path:
        (path / "file").write_text("x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not path.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays() -> None:
    left = cache.subdirectory("runs") / "left"
    left.mkdir()
    (left / ".lock").touch()
    with cache.temporary_directory() as first:
        assert not left.exists()
        with cache.temporary_directory():
            assert first.exists()


def test_keys_differ_when_parts_are_split_differently() -> None:
    assert cache.key_of(["ab", "c"]) != cache.key_of(["a", "bc"])
    assert cache.key_of(["ab", "c"]) == cache.key_of(iter(["ab", "c"]))
