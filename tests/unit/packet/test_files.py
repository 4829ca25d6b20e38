# SPDX-License-Identifier: Apache-2.0
"""Creating capture files safely, and never leaving half a record in one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.errors import FileError
from kcap.packet.files import Buffer, OutputFile
from unit.packet.limits import size_limit

as_root = os.geteuid() == 0


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that everybody can write to."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def refusal(path: Path | str) -> FileError:
    with pytest.raises(FileError) as caught:
        OutputFile(str(path))
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with OutputFile(str(tmp_path / "a.pcap")) as file:
            file.begin()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.pcap").stat().st_mode) == 0o600


def test_relative_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.pcap", "./b.pcap", "sub/../c.pcap", "sub//d.pcap"):
        with OutputFile(name) as file:
            file.begin()
            file.write([b"x"])
        assert (tmp_path / name).read_bytes() == b"x"


def test_new_file_has_what_it_begins_with_as_soon_as_it_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with OutputFile(str(path), [b"head", b"er"]) as file:
        assert path.read_bytes() == b"header"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        file.begin()
        assert (file.size, file.records) == (6, 2)
        file.write([b"record"])
    assert path.read_bytes() == b"headerrecord"
    with OutputFile(str(tmp_path / "b.pcap"), [b"header"]):
        pass  # never begun
    assert not (tmp_path / "b.pcap").exists()


def test_where_files_have_names_from_the_start_they_begin_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcap.packet.files._create_filled", lambda *_: None)
    path = tmp_path / "a.pcap"
    with OutputFile(str(path), [b"header"]) as file:
        file.begin()
        assert (file.size, file.records) == (6, 1)
    assert path.read_bytes() == b"header"


def test_existing_file_begins_anew_only_when_the_trace_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(b"what was captured before")
    with OutputFile(str(path), [b"header"]) as file:
        assert path.read_bytes() == b"what was captured before"
        file.begin()
        assert (file.size, file.records) == (6, 1)
    assert path.read_bytes() == b"header"


def test_existing_file_is_emptied_only_when_the_trace_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(b"the capture of yesterday")
    path.chmod(0o640)
    with OutputFile(str(path)):
        assert path.read_bytes() == b"the capture of yesterday"
    assert path.read_bytes() == b"the capture of yesterday"
    with OutputFile(str(path)) as file:
        file.begin()
        file.write([b"new"])
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_file_is_removed_when_the_trace_never_begins(tmp_path: Path) -> None:
    with OutputFile(str(tmp_path / "a.pcap")):
        assert (tmp_path / "a.pcap").exists()
    assert list(tmp_path.iterdir()) == []


def test_file_that_replaced_the_new_one_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with OutputFile(str(path)):
        path.unlink()
        path.write_bytes(b"someone else's")
    assert path.read_bytes() == b"someone else's"


def test_symbolic_link_is_never_written_through(tmp_path: Path, shared: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    for directory in (tmp_path, shared):
        link = directory / "a.pcap"
        link.symlink_to(target)
        error = refusal(link)
        assert "it is a symbolic link" in str(error)
        assert error.hint == "name the file that it points to, or remove the link"
        assert link.is_symlink()
    assert target.read_bytes() == b"precious"


def test_dangling_symbolic_link_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").symlink_to(tmp_path / "elsewhere")
    assert "it is a symbolic link" in str(refusal(tmp_path / "a.pcap"))
    assert not (tmp_path / "elsewhere").exists()


def test_directories_are_followed_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute")
    with OutputFile(str(tmp_path / "relative" / "a.pcap")) as file:
        file.begin()
    assert (tmp_path / "real" / "a.pcap").is_file()


def test_loop_of_links_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "Too many levels of symbolic links" in str(refusal(tmp_path / "a" / "x.pcap"))


@pytest.mark.skipif(not as_root, reason="only root can give files to other users")
class TestOtherUsers:
    def test_their_link_on_the_way_is_not_followed(self, tmp_path: Path, shared: Path) -> None:
        (shared / "way").symlink_to(tmp_path)
        os.lchown(shared / "way", 1234, 1234)
        error = refusal(shared / "way" / "a.pcap")
        assert "symbolic link that user 1234 made" in str(error)
        assert not (tmp_path / "a.pcap").exists()

    def test_our_own_link_there_is(self, tmp_path: Path, shared: Path) -> None:
        (shared / "way").symlink_to(tmp_path)
        with OutputFile(str(shared / "way" / "a.pcap")) as file:
            file.begin()
        assert (tmp_path / "a.pcap").is_file()

    def test_their_file_in_a_shared_directory_is_not_filled(self, shared: Path) -> None:
        planted = shared / "a.pcap"
        planted.write_bytes(b"")
        os.chown(planted, 1234, 1234)
        assert "belongs to someone else" in str(refusal(planted))
        assert planted.read_bytes() == b""

    def test_their_file_in_our_directory_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pcap"
        path.write_bytes(b"old")
        os.chown(path, 1234, 1234)
        with OutputFile(str(path)) as file:
            file.begin()
        assert path.read_bytes() == b""


def test_hard_link_planted_in_a_shared_directory_is_not_overwritten(
    tmp_path: Path, shared: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    os.link(precious, shared / "a.pcap")
    assert "has several names" in str(refusal(shared / "a.pcap"))
    assert precious.read_bytes() == b"precious"


def test_a_working_directory_out_of_reach_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError, match=r"cannot create 'a.pcap': Permission denied"):
        OutputFile("a.pcap")


def test_missing_directory_is_reported_with_what_to_do(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere" / "a.pcap")
    assert "No such file or directory" in str(error)
    assert error.hint == "create the directory first"


def test_file_as_a_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = refusal(tmp_path / "file" / "a.pcap")
    assert "Not a directory: 'file'" in str(error)
    assert error.hint == "a part of the path is a file: choose another name"


@pytest.mark.parametrize("name", ["", "dir/", ".", "..", "/", "a\0b"])
def test_path_that_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(FileError, match=r"it names a directory|is no file name"):
        OutputFile(name)


def test_directory_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert "no regular file" in str(error)
    assert error.hint == "add a file name, for example 'packets.pcap'"


def test_fifo_and_device_are_refused_without_opening_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pcap")
    assert "no regular file" in str(refusal(tmp_path / "a.pcap"))
    error = refusal("/dev/null")
    assert "no regular file" in str(error)
    assert (error.hint or "").endswith("kcap capture … -w - > /dev/null")
    assert refusal("/dev/stdout").hint == "standard output is -w -"


def test_unwritable_directory_is_reported_with_what_to_do() -> None:
    error = refusal("/proc/kcap.pcap")
    assert "cannot create '/proc/kcap.pcap'" in str(error)
    assert error.__cause__ is not None


def test_file_that_another_program_is_writing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with OutputFile(str(path)) as first:
        first.begin()
        first.write([b"x"])
        assert "another program is writing to it" in str(refusal(path))
    assert path.read_bytes() == b"x"
    OutputFile(str(path)).close()


def test_closed_file_can_be_opened_again_though_a_forked_process_still_has_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "a.pcap")
    file = OutputFile(path)
    file.begin()
    waiting, word = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(word)
        os.read(waiting, 1)
        os._exit(0)
    file.close()
    OutputFile(path).close()
    os.close(word)
    os.waitpid(pid, 0)
    os.close(waiting)


def whole_records(records: list[bytes], limit: int) -> bytes:
    """The longest run of whole records that ``limit`` bytes can hold."""
    kept = b""
    for record in records:
        if len(kept) + len(record) > limit:
            break
        kept += record
    return kept


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=30), st.integers(0, 600))
def test_file_that_is_full_ends_with_a_whole_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], limit: int
) -> None:
    path = tmp_path_factory.mktemp("full") / "a.pcap"
    with OutputFile(str(path)) as file:
        file.begin()
        if sum(map(len, records)) > limit:
            with size_limit(limit), pytest.raises(FileError, match="File too large"):
                file.write(records)
        else:
            with size_limit(limit):
                file.write(records)
        assert path.read_bytes() == whole_records(records, limit)
        assert file.size == path.stat().st_size
        file.write([b"more"])
        assert path.read_bytes() == whole_records(records, limit) + b"more"


def test_more_records_than_one_writev_takes_are_all_written(tmp_path: Path) -> None:
    records = [b"%05d" % number for number in range(2500)]
    with OutputFile(str(tmp_path / "a")) as file:
        file.begin()
        file.write(records)
        assert (file.records, file.size) == (2500, 12500)
    assert (tmp_path / "a").read_bytes() == b"".join(records)


@pytest.mark.parametrize("size", [1, 5000], ids=["joined", "vectored"])
def test_short_writes_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    real_write, real_writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:1234]))
    monkeypatch.setattr(os, "writev", lambda fd, buffers: real_writev(fd, [buffers[0][:3]]))
    records: list[Buffer] = [b"hello " * size, memoryview(b"world" * size), b"!"]
    with OutputFile(str(tmp_path / "a")) as file:
        file.begin()
        file.write(records)
    assert (tmp_path / "a").read_bytes() == b"".join(records)


@pytest.mark.parametrize("size", [1, 5000], ids=["joined", "vectored"])
def test_interrupt_between_short_writes_leaves_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    one, two = b"1" * size, b"22" * size
    real = os.write

    def short(fd: int, data: object) -> int:
        return real(fd, one + two[:size])

    def interrupted(fd: int, data: bytes) -> int:
        raise KeyboardInterrupt

    calls = [interrupted, short] if size == 1 else [interrupted]
    monkeypatch.setattr(os, "writev", short)
    monkeypatch.setattr(os, "write", lambda fd, data: calls.pop()(fd, data))
    with OutputFile(str(tmp_path / "a")) as file:
        file.begin()
        with pytest.raises(KeyboardInterrupt):
            file.write([one, two])
        assert (file.records, file.size) == (1, size)
    assert (tmp_path / "a").read_bytes() == one
