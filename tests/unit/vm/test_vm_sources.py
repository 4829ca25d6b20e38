# SPDX-License-Identifier: Apache-2.0
"""Shares, and taking back files from a guest that is not trusted with this machine's."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kcap.vm import agent, guest, images, python, qemu, rootfs
from kcap.vm.errors import RequirementError, VmError
from kcap.vm.sources import Receiver, names_below, share


def entry(name: str, mode: int = stat.S_IFREG | 0o644, **more: object) -> bytes:
    """Return an entry as the agent sends it."""
    return json.dumps({"name": name, "mode": mode, "mtime": 1000, **more}).encode()


def test_a_share_is_where_it_is_here_unless_told(tmp_path: Path) -> None:
    assert share(tmp_path).point == str(tmp_path)
    assert share(tmp_path, "/mnt/x/").point == "/mnt/x"


@pytest.mark.parametrize("point", ["/", "/usr", "/usr/local", "/proc/x", "relative", "/a b"])
def test_a_share_may_not_hide_the_guests_system(tmp_path: Path, point: str) -> None:
    with pytest.raises(VmError, match="cannot share"):
        share(tmp_path, point)


def test_a_share_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="it is not a directory"):
        share(tmp_path / "none")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", ".", "a//b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VmError, match="the guest sent a file with the name"):
        Receiver(tmp_path).entry(entry(name))


def test_links_on_the_way_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "share").mkdir()
    (tmp_path / "share/link").symlink_to(tmp_path / "outside")
    receiver = Receiver(tmp_path / "share")
    with pytest.raises(VmError, match="cannot bring back link/x"):
        receiver.entry(entry("link/x"))
    assert os.listdir(tmp_path / "outside") == []


def test_a_link_in_the_place_of_a_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "share").mkdir()
    (tmp_path / "share/file").symlink_to(tmp_path / "outside")
    receiver = Receiver(tmp_path / "share")
    receiver.entry(entry("file"))
    receiver.data(b"new")
    receiver.finish_file()
    assert (tmp_path / "outside").read_text() == "precious"
    assert (tmp_path / "share/file").read_text() == "new"
    assert (tmp_path / "share/file").stat().st_mtime == 1000


def test_special_files_and_set_id_bits_are_left_out(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.entry(entry("pipe", stat.S_IFIFO | 0o644))
    receiver.entry(entry("program", stat.S_IFREG | 0o6755))
    receiver.finish_file()
    assert os.listdir(tmp_path) == ["program"]
    assert stat.S_IMODE((tmp_path / "program").stat().st_mode) == 0o755
    assert receiver.changed == ["program"]


def test_only_empty_directories_are_removed(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    receiver = Receiver(tmp_path)
    receiver.gone("empty")
    receiver.gone("full")
    assert os.listdir(tmp_path) == ["full"]
    assert receiver.changed == ["empty"]
    with pytest.raises(VmError, match="cannot replace the directory full"):
        receiver.entry(entry("full"))


def test_what_was_removed_on_both_sides_is_gone(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.gone("directory/file")
    assert receiver.changed == []


def test_names_below_are_relative(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    assert sorted(names_below(tmp_path)) == ["a", "a/b", "a/b/c"]


def test_an_image_holds_the_directorys_files(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/file").write_bytes(b"x" * 100_000)
    image = tmp_path / "out.ext4"
    images.make(tmp_path / "in", image, spare=1 << 20)
    data = image.read_bytes()
    assert data[0x438:0x43A] == b"\x53\xef"  # EXT4_SUPER_MAGIC
    assert b"x" * 4096 in data
    assert sorted(os.listdir(tmp_path)) == ["in", "out.ext4"]


def test_images_used_longest_ago_are_removed(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"root-{number}.ext4"
        path.touch()
        os.utime(path, (number, number))
    rootfs.prune(tmp_path, "root-*.ext4", keep=2)
    assert sorted(os.listdir(tmp_path)) == ["root-3.ext4", "root-4.ext4"]


def test_images_used_within_a_day_stay(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"root-{number}.ext4").touch()
    rootfs.prune(tmp_path, "root-*.ext4", keep=2)
    assert len(os.listdir(tmp_path)) == 5


def test_requirements_of_a_distribution_come_along() -> None:
    found = python.needed(["PyTest", "no-such-distribution"])
    assert {"pytest", "pluggy", "packaging", "iniconfig"} <= set(found)
    assert "no-such-distribution" not in found


def test_what_is_missing_is_named_with_package_and_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ("no-such-program", "some-package", "does something")
    monkeypatch.setattr(qemu, "REQUIREMENTS", (*qemu.REQUIREMENTS, row))
    monkeypatch.setattr("kcap.vm.qemu.shutil.which", lambda name, path=None: name != row[0] or None)
    with pytest.raises(RequirementError) as caught:
        qemu.check_requirements()
    assert str(caught.value).endswith("no-such-program (does something)")
    assert caught.value.hint == ("as root: apt-get install --no-install-recommends some-package")


def test_disks_have_serial_numbers_and_keep_their_files_as_they_are(tmp_path: Path) -> None:
    command = qemu.command_line(
        tmp_path / "vmlinuz",
        tmp_path / "initramfs",
        [qemu.Disk("root", Path("/a,b/root.ext4"), "")],
        accelerator="tcg",
        port="port",
        descriptor=7,
        memory=512,
        processors=2,
    )
    drive = "if=none,id=disk0,format=raw,snapshot=on,file.locking=off,file=/a,,b/root.ext4"
    assert drive in command
    assert "virtio-blk-pci,drive=disk0,serial=root" in command
    assert command[command.index("-accel") + 1] == "tcg,thread=single"
    assert command[command.index("-cpu") + 1] == "max"
    assert "-no-reboot" in command
    assert "norandmaps" in command[command.index("-append") + 1]


def test_the_clock_counts_instructions_only_where_that_was_asked_for() -> None:
    assert qemu.accelerator_options("tcg-counted")[-2:] == ["-icount", "shift=0,sleep=off"]
    assert "-icount" not in qemu.accelerator_options("tcg")
    assert "-icount" not in qemu.accelerator_options("kvm")


def test_the_kernel_does_not_copy_byte_by_byte_where_instructions_are_counted() -> None:
    assert "max,-erms,-fsrm" in qemu.accelerator_options("tcg-counted")
    assert "max" in qemu.accelerator_options("tcg")


def test_a_share_above_the_interpreter_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "directories", lambda: ["/opt/python", "/work/.venv"])
    disks = [
        qemu.Disk("root", Path("r"), ""),
        qemu.Disk("modules", Path("m"), "/lib/modules/6.12", "ro"),
        qemu.Disk("share0", Path("s"), "/work"),
        qemu.Disk("kcap", Path("k"), "/work/.venv/lib/kcap"),
    ]
    assert guest.mount_lines(disks) == [
        "root rw,noatime ",
        "modules ro /lib/modules/6.12",
        "keep 0 /work/.venv",
        "share0 rw,noatime /work",
        "restore 0 /work/.venv",
        "kcap rw,noatime /work/.venv/lib/kcap",
    ]


def test_what_is_mounted_over_is_hidden_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "file").touch()
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        status = list(real(path))
        status[2] += path.endswith("/venv")  # another device
        return os.stat_result(status)

    monkeypatch.setattr("kcap.vm.agent.os.lstat", lstat)
    hidden: list[str] = []
    assert agent.walk(str(tmp_path), hidden) == [(f"{tmp_path}/file", "file")]
    assert hidden == ["venv"]
