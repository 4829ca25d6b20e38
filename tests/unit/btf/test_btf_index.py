# SPDX-License-Identifier: Apache-2.0
"""The index of records that is kept between starts."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest

from kcap import btf as b
from kcap import cachedir
from kcap.btf import index
from kcap.btf.build import functions_btf

BLOB = functions_btf(["probe", "callback"])[0]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_second_opening_takes_the_kept_index(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.Btf(BLOB, identity="abc")
    assert (cache / "btf/abc").exists()

    def walk(self: b.Btf) -> index.Index:
        raise AssertionError("walked again")

    monkeypatch.setattr(b.Btf, "_walk", walk)
    again = b.Btf(BLOB, identity="abc")
    assert [name for _, name in again.functions()] == ["probe", "callback"]
    assert again.end_id == 8


def test_without_an_identity_nothing_is_kept(cache: Path) -> None:
    b.Btf(BLOB)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"kcapbtf\1", b"x" * 40])
def test_a_damaged_index_is_not_taken(cache: Path, damage: bytes) -> None:
    b.Btf(BLOB, identity="abc")
    (cache / "btf/abc").write_bytes(damage)
    assert b.Btf(BLOB, identity="abc").end_id == 8


def test_an_index_of_other_btf_is_not_taken() -> None:
    index.store("abc", 99, index.Index(array("I", [0, 5]), False))
    assert index.load("abc", 99) is not None
    assert index.load("abc", 98) is None


def test_a_directory_that_others_may_write_to_is_no_cache(cache: Path) -> None:
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    assert cachedir.directory("btf") is None
    b.Btf(BLOB, identity="abc")
    assert not (cache / "btf/abc").exists()


def test_a_symbolic_link_is_not_followed(cache: Path, tmp_path: Path) -> None:
    assert cachedir.write("btf", "real", b"data") is True
    assert (cache / "btf/real").stat().st_mode & 0o777 == 0o600
    (cache / "btf/link").symlink_to(cache / "btf/real")
    assert cachedir.read("btf", "link") is None
    assert cachedir.read("btf", "real") == b"data"


def test_the_cache_is_private_whatever_is_allowed_by_default(cache: Path) -> None:
    """Distributions that give each user a group let it write by default (umask 002)."""
    before = os.umask(0o002)
    try:
        assert cachedir.write("btf", "x", b"data") is True
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / "btf")] == [0o700, 0o700]
    assert cachedir.read("btf", "x") == b"data"


def test_a_directory_that_takes_the_place_of_the_cache_is_not_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may rename it (it lies in their home) exchanges it after it was looked at."""
    assert cachedir.write("btf", "x", b"ours") is True
    look = os.fstat

    def exchange(fd: int) -> os.stat_result:
        status = look(fd)
        if (cache / "btf/x").exists() and os.readlink(f"/proc/self/fd/{fd}") == f"{cache}/btf":
            (cache / "btf").rename(cache / "old")
            (cache / "btf").mkdir()
            (cache / "btf/x").write_bytes(b"theirs")
        return status

    monkeypatch.setattr("kcap.cachedir.os.fstat", exchange)
    assert cachedir.read("btf", "x") == b"ours"


def test_the_oldest_files_go_first(cache: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        cachedir.write("btf", name, bytes(10))
        os.utime(cache / "btf" / name, (1000 - age, 1000 - age))
    cachedir.limit("btf", 20)
    assert sorted(os.listdir(cache / "btf")) == ["new", "old"]


def test_where_nothing_can_be_written_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCAP_CACHE", "/proc/nowhere")
    assert cachedir.write("btf", "x", b"") is False
    assert cachedir.read("btf", "x") is None


def test_the_build_id_is_read_from_notes(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    other = b"\x04\0\0\0\x04\0\0\0\x01\x01\0\0Xen\0abcd"
    notes.write_bytes(other + b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(20)) + other)
    assert index.build_id(str(notes)) == bytes(range(20)).hex()
    notes.write_bytes(other)
    assert index.build_id(str(notes)) == ""
    assert index.build_id(str(tmp_path / "absent")) == ""
