# SPDX-License-Identifier: Apache-2.0
"""Copying the Python that runs kcap, with the libraries kcap needs, into a guest's root.

Everything keeps its path, so ``sys.executable`` and the first lines of scripts hold in the guest as
they do here, and the compiled parts meet the interpreter they were made for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import Distribution

#: What is wanted in a guest where it is installed here: kcap's own needs, and those of its tests.
DISTRIBUTIONS = (
    "llvmlite", "libclang", "pyelftools", "rich", "pyroute2", "pytest", "scapy", "hypothesis",
)  # fmt: skip
_UNWANTED = shutil.ignore_patterns(
    "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "config-*",
    "site-packages", "dist-packages", "pydoc_data", "*.a",
)  # fmt: skip


class Runtime(NamedTuple):
    """The interpreter to copy.

    :ivar executable: the interpreter's path.
    :ivar prefix: the virtual environment, or the installation itself.
    :ivar stdlib: the directory of the standard library.
    :ivar distributions: name and version of what goes along.
    """

    executable: Path
    prefix: Path
    stdlib: Path
    distributions: tuple[tuple[str, str], ...]

    def key(self) -> list[str]:
        """Return what tells this one from others, as texts."""
        named = [f"{name} {version}" for name, version in self.distributions]
        return [str(self.executable), str(self.stdlib), sys.version, *named]


def executable() -> Path:
    """Return the interpreter that runs now, by the one name that every virtual environment has.

    (``sys.executable`` says python, python3 or python3.11, as it was started.)
    """
    usual = Path(sys.prefix, "bin", "python3")
    return usual if usual.exists() else Path(sys.executable)


def directories() -> list[str]:
    """Return the directories of this machine that the interpreter's parts are copied from.

    Without those below /usr, which no share may hide, and without those inside another of them.
    """
    import os

    stdlib = sysconfig.get_path("stdlib")
    found = {sys.prefix, stdlib, str(executable().resolve().parent)}
    found |= {path for path in sys.path if path.endswith("-packages") and os.path.isdir(path)}
    return sorted(
        path
        for path in found
        if not path.startswith("/usr/") and not any(path.startswith(f"{other}/") for other in found)
    )


def runtime() -> Runtime:
    """Describe the interpreter that runs now."""
    found = sorted(needed(DISTRIBUTIONS).values(), key=lambda one: one.name.lower())
    return Runtime(
        executable(),
        Path(sys.prefix),
        Path(sysconfig.get_path("stdlib")),
        tuple((one.name, one.version) for one in found),
    )


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed ones of the distributions ``names`` and of all that they require."""
    from importlib import metadata

    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            one = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = one
        # Requirements of extras are optional; the name ends where version or marker begins.
        required = [text for text in one.requires or () if "extra ==" not in text]
        todo += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required]
    return found


def copy_into(root: Path, chosen: Runtime) -> None:
    """Copy interpreter, standard library, distributions and shared libraries below ``root``."""
    _copy_executable(root, chosen.executable)
    _copy_prefix(root, chosen)
    shutil.copytree(
        chosen.stdlib, below(root, chosen.stdlib), symlinks=True, ignore=_UNWANTED,
        dirs_exist_ok=True,
    )  # fmt: skip
    for one in needed(name for name, _ in chosen.distributions).values():
        for file in one.files or ():
            source = Path(str(one.locate_file(file))).resolve()
            # Scripts (../../../bin/x) are not needed; their directory is handled apart.
            if source.is_file() and ".." not in file.parts:
                _copy(root, Path(str(one.locate_file(file))))
    _copy_libraries(root, chosen)


def below(root: Path, path: Path) -> Path:
    """Return where the absolute ``path`` lies when ``root`` is the root directory."""
    return root / path.relative_to("/")


def _copy(root: Path, path: Path) -> None:
    target = below(root, path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _copy_executable(root: Path, path: Path) -> None:
    """Copy an executable and every symbolic link on the way to it."""
    for _ in range(16):
        target = below(root, path)
        if not path.is_symlink():
            _copy(root, path)
            return
        link = path.readlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(link)
        path = Path(path.parent, link)


def _copy_prefix(root: Path, chosen: Runtime) -> None:
    """Copy what makes a virtual environment one: its mark, and the interpreter's names."""
    mark = chosen.prefix / "pyvenv.cfg"
    if not mark.exists():
        return
    _copy(root, mark)
    for path in (chosen.prefix / "bin").glob("py*"):
        if path.is_symlink():
            _copy_executable(root, path)
        elif path.stat().st_size < 4096:
            _copy(root, path)


def _copy_libraries(root: Path, chosen: Runtime) -> None:
    """Copy the shared libraries that interpreter and extension modules need, where missing."""
    binaries = [chosen.executable.resolve()]
    for top in {chosen.stdlib, *(Path(path) for path in sys.path if "packages" in path)}:
        binaries += [path for path in top.rglob("*.so*") if below(root, path).is_file()]
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    for found in sorted(set(re.findall(r"=> (/\S+) \(0x", done.stdout))):
        path = Path(found)
        if not below(root, path).exists():
            _copy(root, path)
