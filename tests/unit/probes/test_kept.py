# SPDX-License-Identifier: Apache-2.0
"""The list of traceable functions is kept while neither the boot nor the modules change."""

from __future__ import annotations

from array import array
from functools import partial
from pathlib import Path

import pytest

from kcap.probes import kept
from kcap.probes.traceable import KERNEL, TraceableFunctions

MODULES = "nf_tables 100 3 nft_ct,nft_nat, Live 0xffffffffc0000000\n"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that root looks at, and an empty cache."""
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("b0075\n")
    (tmp_path / "proc/modules").write_text(MODULES)
    (tmp_path / "module/nf_tables").mkdir(parents=True)
    return tmp_path / "proc"


def state(proc: Path) -> str:
    return kept.state(str(proc), str(proc.parent / "module"))


def test_users_of_a_module_do_not_matter(proc: Path) -> None:
    before = state(proc)
    (proc / "modules").write_text("nf_tables 100 4 nft_ct, Live 0xffffffffc0000000\n")
    assert before != ""
    assert state(proc) == before


@pytest.mark.parametrize(
    "modules", ["", MODULES.replace("100", "200"), MODULES.replace("c0", "c1"), MODULES * 2]
)
def test_another_module_makes_another_list(proc: Path, modules: str) -> None:
    before = state(proc)
    (proc / "modules").write_text(modules)
    assert state(proc) != before


def test_another_boot_makes_another_list(proc: Path) -> None:
    before = state(proc)
    (proc / "sys/kernel/random/boot_id").write_text("another\n")
    assert state(proc) != before


def test_nothing_is_kept_for_those_who_see_no_addresses(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state(proc) == ""


def test_a_list_takes_the_place_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    kept.store("one", b"ip_rcv\n")
    assert kept.load("one") == b"ip_rcv\n"
    kept.store("two", b"ip_output\n")
    assert (kept.load("one"), kept.load("two")) == (b"", b"ip_output\n")


def test_a_damaged_list_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    kept.store("one", b"ip_rcv\n")
    path = tmp_path / "cache/functions/one"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert kept.load("one") == b""


def test_a_module_that_was_loaded_again_makes_another_list(proc: Path) -> None:
    before = state(proc)
    loaded = proc.parent / "module/nf_tables"
    loaded.rename(proc.parent / "old")  # so that its inode isn't free to be taken again
    loaded.mkdir()
    assert state(proc) not in ("", before)


LINES = b"""\
ffffffff81000014 vfs_read
ffffffff81000030 same_name
ffffffffc0000004 nf_tables_newtable [nf_tables]
ffffffff81000054 same_name
"""
NAMES = b"vfs_read\nsame_name\nnf_tables_newtable [nf_tables]\nsame_name\n"


def test_names_and_addresses_are_taken_apart() -> None:
    names, addresses = kept.taken_apart(LINES)
    assert names == NAMES
    assert array("Q", addresses).tolist() == [
        0xFFFFFFFF81000014, 0xFFFFFFFF81000030, 0xFFFFFFFFC0000004, 0xFFFFFFFF81000054,
    ]  # fmt: skip


@pytest.mark.parametrize("text", [b"", b"vfs_read\n", b"ffffffff8100 vfs_read\n", NAMES])
def test_lines_of_another_kind_are_not_taken_apart(text: bytes) -> None:
    assert kept.taken_apart(text) == (b"", b"")


def test_addresses_are_kept_beside_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    kept.store("one", b"ip_rcv\n")
    kept.store("one", bytes(8), kept.ADDRESSES)
    assert (kept.load("one"), kept.load("one", kept.ADDRESSES)) == (b"ip_rcv\n", bytes(8))
    kept.store("two", b"ip_output\n")
    assert kept.load("one", kept.ADDRESSES) == b""


@pytest.mark.parametrize("more", [0, 50], ids=["a few", "many"])
def test_functions_are_found_by_name_and_module(more: int) -> None:
    lines = LINES + b"".join(b"fffffffff%07x f%d\n" % (n, n) for n in range(more))
    names, addresses = kept.taken_apart(lines)
    functions = TraceableFunctions(names.decode(), lambda: addresses)
    wanted = [("nf_tables_newtable", "nf_tables"), ("same_name", KERNEL)]
    wanted += [(f"f{n}", KERNEL) for n in range(more)]
    found = functions.places_of(wanted)
    assert found is not None
    assert found[:2] == [0xFFFFFFFFC0000004, 0xFFFFFFFF81000030]  # the first of that name
    assert found[2:] == [0xFFFFFFFFF0000000 + n for n in range(more)]
    assert functions.places_of([("vfs_read", "nf_tables")]) is None


def test_without_an_address_for_each_line_there_are_none() -> None:
    for addresses in (b"", bytes(8)):
        functions = TraceableFunctions("vfs_read\nvfs_write\n", partial(bytes, addresses))
        assert functions.places_of([("vfs_read", KERNEL)]) is None


SYMBOLS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000010 T vfs_read
ffffffff81000020 d same_name
ffffffff81000030 t same_name
ffffffffc0000000 t nf_tables_newtable\t[nf_tables]
ffffffff81000050 t same_name
"""


def test_before_there_are_addresses_in_the_list_they_come_from_the_symbols() -> None:
    lines = ["vfs_read", "same_name", "nf_tables_newtable [nf_tables]", "gone"]
    found = array("Q", kept.addresses_of(lines, SYMBOLS)).tolist()
    assert found == [0xFFFFFFFF81000010, 0xFFFFFFFF81000030, 0xFFFFFFFFC0000000, 0]
    functions = TraceableFunctions("\n".join(lines), partial(kept.addresses_of, lines, SYMBOLS))
    assert functions.places_of([("vfs_read", KERNEL)]) == [0xFFFFFFFF81000010]
    assert functions.places_of([("vfs_read", KERNEL), ("gone", KERNEL)]) is None
