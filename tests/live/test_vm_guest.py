# SPDX-License-Identifier: Apache-2.0
"""``kcap vm run`` and the library below it, with a guest that is really booted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kcap
from kcap.vm.errors import GuestDied
from kcap.vm.guest import Guest
from kcap.vm.sources import share

KCAP = (sys.executable, "-c", "import sys; from kcap.cli.main import main; sys.exit(main())")


def test_a_command_in_a_guest_is_like_one_here(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from here\n")
    script = (
        "cat given; cat; uname -r >&2; echo from there > made; rm given; kcap --version; exit 9"
    )
    done = subprocess.run(
        [*KCAP, "vm", "run", "--quiet", "--share", str(tmp_path), "--", "sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(kcap.__file__).parents[1])},
        input="from standard input\n",
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("from here\nfrom standard input\nkcap "), done.stderr
    assert done.stderr.startswith("6.12.")
    assert done.returncode == 9
    assert (tmp_path / "made").read_text() == "from there\n"
    assert not (tmp_path / "given").exists()


def test_a_kernel_panic_ends_the_command_with_the_consoles_last_words() -> None:
    with Guest("6.12") as guest:
        assert guest.run(["id", "-u"]).stdout == b"0\n"
        with pytest.raises(GuestDied) as caught:
            guest.run(["sh", "-c", "echo c > /proc/sysrq-trigger"])
    assert "sysrq_handle_crash" in caught.value.log


def test_files_that_come_to_a_shared_directory_here_meanwhile_stay(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from here\n")
    with Guest("6.12", shares=[share(tmp_path)]) as guest:
        (tmp_path / "late").write_text("made here while the guest ran\n")
        assert guest.run(["rm", str(tmp_path / "given")]).status == 0
    assert sorted(os.listdir(tmp_path)) == ["late"]
