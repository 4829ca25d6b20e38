# SPDX-License-Identifier: Apache-2.0
"""Network namespaces by number and by name."""

from __future__ import annotations

import os
from pathlib import Path

from kcap.session.namespaces import OWN, NetnsNames, netns_number


def test_namespace_is_known_by_its_path() -> None:
    assert netns_number(OWN) == os.stat(OWN).st_ino


def test_interfaces_of_other_namespaces_have_the_namespace_before_their_name(
    tmp_path: Path,
) -> None:
    names = NetnsNames(str(tmp_path))
    assert names.interface("eth0", os.stat(OWN).st_ino) == "eth0"
    assert names.interface("eth0", 4026532201) == "4026532201/eth0"
    for name in ("web", "also-web"):
        (tmp_path / name).touch()
    (tmp_path / "web").unlink()
    os.link(tmp_path / "also-web", tmp_path / "web")
    (tmp_path / "gone").symlink_to("nowhere")
    assert names.interface("eth0", os.stat(tmp_path / "web").st_ino) == "also-web/eth0"
    assert names.interface("", 4026532201) == ""


def test_nobody_has_named_a_namespace(tmp_path: Path) -> None:
    names = NetnsNames(str(tmp_path / "netns"))
    assert names.interface("lo", 4026532201) == "4026532201/lo"
