# SPDX-License-Identifier: Apache-2.0
"""Choosing the newest image of a series, and the order modules are loaded in."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from kcap.vm import kernels, modules
from kcap.vm.apt import PrivateApt
from kcap.vm.errors import FetchError, VmError

NAMES = {
    "linux-image-cloud-amd64": "9.9",
    "linux-image-6.1.0-50-cloud-amd64": "6.1.176-1",
    "linux-image-6.1.0-56-cloud-amd64": "6.1.192-2",
    "linux-image-6.1.0-56-cloud-amd64-dbg": "6.1.192-2",
    "linux-image-6.1.0-56-cloud-amd64-unsigned": "6.1.192-2",
    "linux-image-6.12.117+deb12-cloud-amd64": "6.12.117-1~deb12u1",
    "linux-image-6.12.94+deb13-cloud-amd64": "6.12.94-1",
    "linux-image-6.12.117-amd64": "6.12.117-1",
}


class FakeApt(PrivateApt):
    """Knows the packages above."""

    def __init__(self) -> None:
        self.suite = "bookworm"

    def newest(self, pattern: str) -> tuple[str, str] | None:
        """Choose as apt would; the test's versions sort like numbers."""
        found = [name for name in NAMES if re.fullmatch(pattern, name)]
        numbers = {name: [int(n) for n in re.findall(r"\d+", NAMES[name])] for name in found}
        best = max(found, key=lambda name: numbers[name], default=None)
        return (best, NAMES[best]) if best else None


@pytest.mark.parametrize(
    ("series", "package"),
    [
        ("6.1", "linux-image-6.1.0-56-cloud-amd64"),
        ("6.12", "linux-image-6.12.117+deb12-cloud-amd64"),
    ],
)
def test_the_newest_signed_cloud_image_of_exactly_that_series(series: str, package: str) -> None:
    assert kernels.newest_image(FakeApt(), series) == (package, NAMES[package])


def test_a_series_that_the_release_left_behind_is_an_error() -> None:
    with pytest.raises(FetchError, match=r"bookworm has no cloud kernel 7\.2 any more"):
        kernels.newest_image(FakeApt(), "7.2")


def test_packages_that_an_image_is_split_into_are_found() -> None:
    depends = (
        "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, "
        "linux-base-7.2.12-cloud-amd64 (= 7.2.12-1), linux-binary-7.2.12-cloud-amd64 (= 7.2.12-1), "
        "linux-modules-7.2.12-cloud-amd64 (= 7.2.12-1)"
    )
    assert kernels.parts_of(depends) == [
        "linux-base-7.2.12-cloud-amd64",
        "linux-binary-7.2.12-cloud-amd64",
        "linux-modules-7.2.12-cloud-amd64",
    ]


def test_the_package_linux_base_is_no_part() -> None:
    assert kernels.parts_of("kmod, linux-base (>= 4.3~), initramfs-tools") == []


def test_an_unknown_series_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(VmError) as caught:
        kernels.check_series("4.19")
    assert caught.value.hint == "choose one of 5.10, 6.1, 6.12, 7.2"


def test_a_kernel_is_known_once_it_has_been_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    assert kernels.known("6.1") is None
    directory = tmp_path / "cache/kernels/6.1"
    (directory / "files").mkdir()
    (directory / "kernel.json").write_text(
        '{"release": "6.1.0-56-cloud-amd64", "version": "6.1.192-2",'
        ' "package": "linux-image-6.1.0-56-cloud-amd64", "directory": "files"}'
    )
    assert kernels.known("6.1") is None
    (directory / "files/vmlinuz").touch()
    known = kernels.known("6.1")
    assert known is not None
    assert known.release == "6.1.0-56-cloud-amd64"
    assert known.modules == directory / "files/modules"


def modules_directory(directory: Path, *, builtin: str = "") -> Path:
    """Return a directory of modules in which top needs middle and low, and middle low."""
    (directory / "kernel").mkdir(parents=True)
    (directory / "modules.builtin").write_text(builtin)
    elf = {
        "top": b"\x7fELF..\0name=top\0depends=mid-dle,low\0",
        "mid-dle": b"\x7fELF..\0license=GPL\0depends=low\0",
    }
    for name, data in elf.items():
        (directory / "kernel" / f"{name}.ko").write_bytes(data)
    low = lzma.compress(b"\x7fELF..\0depends=\0")
    (directory / "kernel/low.ko.xz").write_bytes(low)
    return directory


def test_modules_come_after_those_they_need(tmp_path: Path) -> None:
    order = modules.in_order(modules_directory(tmp_path / "m"), ("top",))
    assert [name for name, _ in order] == ["low", "mid_dle", "top"]
    assert order[0][1] == b"\x7fELF..\0depends=\0"


def test_what_is_built_in_is_left_out(tmp_path: Path) -> None:
    directory = modules_directory(tmp_path / "m", builtin="kernel/lib/low.ko\n")
    assert [name for name, _ in modules.in_order(directory, ("top", "low"))] == ["mid_dle", "top"]


def test_a_module_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="has no module virtio_blk"):
        modules.in_order(modules_directory(tmp_path / "m"), ("virtio-blk",))
