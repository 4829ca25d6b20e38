# SPDX-License-Identifier: Apache-2.0
"""Source lines of a kernel's code, with a program in the place of its image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.errors import FileError, UsageError
from kcap.symbols.elf import ElfFile
from kcap.symbols.kallsyms import Kallsyms
from kcap.symbols.kernel_source import KernelSource

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

SOURCE = """\
void panic(void) {}
int dropped;
void drop(void)
{
    panic();
    dropped++;
}
int main(void) { drop(); return dropped; }
"""
SLIDE = 0x1A000000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kernel")
    (directory / "net").mkdir()
    (directory / "net" / "udp.c").write_text(SOURCE)
    command = ["gcc", "-g", "-O0", "-Wl,--build-id", "-o", "vmlinux", "net/udp.c"]
    subprocess.run(command, check=True, cwd=directory)
    return directory / "vmlinux"


def address(image: Path, name: str) -> int:
    found = ElfFile(str(image)).function(name)
    assert found is not None
    return found.address


def symbols(image: Path) -> Kallsyms:
    return Kallsyms(f"{address(image, 'panic') + SLIDE:016x} T panic\n".encode())


def test_line_of_a_call_is_that_of_the_call(image: Path) -> None:
    source = KernelSource(str(image), symbols(image))
    code = subprocess.run(["objdump", "-d", image], capture_output=True, text=True, check=True)
    body = code.stdout.partition("<drop>:")[2].splitlines()
    call = next(number for number, line in enumerate(body) if "<panic>" in line)
    back = int(body[call + 1].split(":")[0], 16) + SLIDE
    assert source.line(back, called=True) == "net/udp.c:5"
    assert source.line(back) == "net/udp.c:6"
    assert source.line(0xFFFFFFFFC0000000) == ""


def test_file_that_is_no_kernel_is_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "p.c").write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-g", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    with pytest.raises(FileError, match="is no image of a kernel"):
        KernelSource(str(tmp_path / "p"), symbols(image))


def test_missing_debugging_information_names_the_packages(image: Path) -> None:
    with pytest.raises(UsageError, match=r"of Linux 1\.2\.3-x is not installed") as caught:
        KernelSource.running(symbols(image), "1.2.3-x")
    assert "linux-image-1.2.3-x-dbg" in (caught.value.hint or "")
