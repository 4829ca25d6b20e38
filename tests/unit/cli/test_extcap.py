# SPDX-License-Identifier: Apache-2.0
"""``kcap extcap``: tshark of Debian finds what was installed, and the protocol is spoken."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from kcap.cli.extcap import main
from kcap.errors import FileError, UsageError
from kcap.session.extcap import ARGUMENTS, FILE, both, directory, install


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def tshark(*words: str) -> str:
    done = subprocess.run(["tshark", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_installed_program_is_listed_by_tshark_and_removed_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "kcap" not in tshark("-D")
    assert main(["install"]) == 0
    path = Path(capsys.readouterr().out.split()[1])
    assert path.parent == Path(directory())
    assert path.is_relative_to(home)
    assert os.access(path, os.X_OK)
    assert re.search(r"^\d+\. kcap \(Linux kernel function \(kcap\)\)$", tshark("-D"), re.MULTILINE)
    assert re.search(r"^  EN10MB \(Ethernet\)$", tshark("-i", "kcap", "-L"), re.MULTILINE)
    assert main(["uninstall"]) == 0
    assert "kcap" not in tshark("-D")
    with pytest.raises(FileError, match="cannot remove"):
        main(["uninstall"])


def test_directory_of_all_users_is_wiresharks_own() -> None:
    assert directory(everybody=True).endswith("/wireshark/extcap")


def test_dialogue_has_a_field_for_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--extcap-interface", "kcap", "--extcap-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    field = r"arg (\{number=\d+\})\{call=(--[a-z]+)\}\{display=[^{}]+\}\{tooltip=[^{}]+\}" \
            r"\{type=(string|unsigned)\}(\{default=[^{}]+\})?(\{required=true\})?"  # fmt: skip
    found = [re.fullmatch(field, line) for line in lines]
    assert [match[2] for match in found if match] == [each.option for each in ARGUMENTS]
    assert lines[0].endswith("{required=true}")


def test_newer_versions_may_say_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--extcap-interfaces", "--extcap-version=4.6", "--something-new"]) == 0
    assert "interface {value=kcap}{display=Linux kernel function (kcap)}" in capsys.readouterr().out


@pytest.mark.parametrize(("expression", "right"), [("tcp port 80", True), ("tcp prot 80", False)])
def test_filter_is_judged_while_it_is_typed(
    capsys: pytest.CaptureFixture[str], expression: str, right: bool
) -> None:
    assert main(["--extcap-interface", "kcap", "--extcap-capture-filter", expression]) == 0
    assert (capsys.readouterr().out == "") == right


def test_filters_of_dialogue_and_interface_both_count() -> None:
    assert both("tcp or udp", "") == "tcp or udp"
    assert both("tcp or udp", "host ::1") == "(tcp or udp) and (host ::1)"
    assert both(" ", "") == ""


def test_other_interfaces_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no interface 'eth0'"):
        main(["--extcap-interface", "eth0", "--extcap-dlts"])


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        install(str(tmp_path / "file" / "extcap"))


def test_a_link_in_the_place_of_the_program_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / FILE).symlink_to(tmp_path / "precious")
    path = Path(install(str(tmp_path)))
    assert (tmp_path / "precious").read_text() == "as it was"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o755
    assert sorted(each.name for each in tmp_path.iterdir()) == [FILE, "precious"]
