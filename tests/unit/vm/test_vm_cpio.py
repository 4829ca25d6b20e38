# SPDX-License-Identifier: Apache-2.0
"""The initial RAM file system is a cpio archive in the newc format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kcap.vm.cpio import Archive


def entries(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read an archive: name, mode and content of each entry up to the trailer."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, archive[start : start + size]))
        at = (start + size + 3) & ~3


def test_directories_above_a_file_come_before_it_and_once() -> None:
    archive = Archive()
    archive.file("a/b/one", b"1")
    archive.file("a/b/two", b"22", 0o755)
    assert entries(archive.finish()) == [
        ("a", 0o40755, b""),
        ("a/b", 0o40755, b""),
        ("a/b/one", 0o100644, b"1"),
        ("a/b/two", 0o100755, b"22"),
    ]


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.binary(max_size=99)))
def test_what_goes_in_comes_out_and_archives_can_follow_one_another(
    files: dict[str, bytes],
) -> None:
    archive = Archive()
    for name, data in files.items():
        archive.file(name, data)
    written = archive.finish()
    assert len(written) % 512 == 0
    assert {name: data for name, _, data in entries(written)} == files
