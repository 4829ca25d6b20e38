# SPDX-License-Identifier: Apache-2.0
"""The list of traceable functions is kept while neither the boot nor the modules change."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.probes import kept

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
    return tmp_path / "proc"


def test_users_of_a_module_do_not_matter(proc: Path) -> None:
    before = kept.state(str(proc))
    (proc / "modules").write_text("nf_tables 100 4 nft_ct, Live 0xffffffffc0000000\n")
    assert before != ""
    assert kept.state(str(proc)) == before


@pytest.mark.parametrize(
    "modules", ["", MODULES.replace("100", "200"), MODULES.replace("c0", "c1"), MODULES * 2]
)
def test_another_module_makes_another_list(proc: Path, modules: str) -> None:
    before = kept.state(str(proc))
    (proc / "modules").write_text(modules)
    assert kept.state(str(proc)) != before


def test_another_boot_makes_another_list(proc: Path) -> None:
    before = kept.state(str(proc))
    (proc / "sys/kernel/random/boot_id").write_text("another\n")
    assert kept.state(str(proc)) != before


def test_nothing_is_kept_for_those_who_see_no_addresses(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert kept.state(str(proc)) == ""


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
