# SPDX-License-Identifier: Apache-2.0
"""Finding the machine's mirror, and unpacking packages without installing them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kcap.vm import apt
from kcap.vm.errors import FetchError, RequirementError


def test_the_release_is_read_from_os_release(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text('NAME="Debian GNU/Linux"\nVERSION_CODENAME=bookworm\nID=debian\n')
    assert apt.this_release(path) == "bookworm"


def test_another_distribution_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("ID=fedora\n")
    with pytest.raises(RequirementError, match="need a Debian machine") as caught:
        apt.this_release(path)
    assert caught.value.hint == "run it on Debian 12 or later, or in a container of one"


def test_the_mirror_is_the_one_of_the_release() -> None:
    text = (
        "bookworm|main|http://mirror.example/debian/\n"
        "bookworm-updates|main|http://mirror.example/debian/\n"
        "bookworm-security|main|http://security.example/debian-security/\n"
    )
    expected = apt.Mirror(
        "http://mirror.example/debian/", "http://security.example/debian-security/"
    )
    assert apt.parse_index_targets(text, "bookworm") == expected


def test_other_vendors_repositories_are_not_taken_for_debians() -> None:
    text = (
        "bookworm|main|https://vendor.example/apt/\n"
        "bookworm|stable|https://containers.example/linux/debian/\n"
        "bookworm|main|http://mirror.example/debian\n"
    )
    assert apt.parse_index_targets(text, "bookworm") == apt.Mirror(
        "http://mirror.example/debian", None
    )


def test_no_source_for_the_release_is_no_mirror() -> None:
    assert apt.parse_index_targets("trixie|main|http://m.example/debian\n", "bookworm") is None
    assert apt.parse_index_targets("", "bookworm") is None


def test_sources_are_signed_by_debians_keyring() -> None:
    text = apt.sources_text(apt.Mirror("http://m/debian", "http://s/debian-security"), "trixie")
    option = "[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert text.splitlines() == [
        f"deb {option} http://m/debian trixie main",
        f"deb {option} http://s/debian-security trixie-security main",
    ]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("6.12.117-1", "6.12.94-1", True),
        ("6.1.192-2", "6.1.192-10", False),
        ("6.12.117-1~deb12u1", "6.12.117-1", False),
        ("1", "1", False),
    ],
)
def test_versions_are_ordered_as_debian_orders_them(one: str, other: str, expected: bool) -> None:
    assert apt.newer(one, other) is expected


def build_package(directory: Path) -> Path:
    """Return a package that holds /lib/file and a script that must not run."""
    (directory / "p/DEBIAN").mkdir(parents=True)
    (directory / "p/lib").mkdir()
    (directory / "p/lib/file").write_text("content")
    (directory / "p/DEBIAN/control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n"
    )
    script = directory / "p/DEBIAN/preinst"
    script.write_text(f"#!/bin/sh\ntouch {directory}/ran\n")
    script.chmod(0o755)
    subprocess.run(["dpkg-deb", "-b", "p"], cwd=directory, check=True, capture_output=True)
    return directory / "p.deb"


def test_unpacking_follows_the_links_of_a_merged_usr_and_runs_nothing(tmp_path: Path) -> None:
    package = build_package(tmp_path)
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    apt.unpack(package, root)
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/file").read_text() == "content"
    assert not (tmp_path / "ran").exists()


def test_a_damaged_package_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_bytes(b"!<arch>\nnothing")
    with pytest.raises(FetchError, match=r"cannot unpack bad\.deb"):
        apt.unpack(tmp_path / "bad.deb", tmp_path)
