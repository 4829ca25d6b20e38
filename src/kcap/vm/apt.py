# SPDX-License-Identifier: Apache-2.0
"""Debian packages by apt's own machinery, kept apart from the packages of this machine.

apt-get runs with a state, a cache and a list of sources of its own below kcap's cache, so it needs
no root and the machine's apt notices nothing; proxies and credentials of the machine's apt
configuration still count. Signatures are checked against Debian's archive keyring. The mirror is
the one that this machine's apt already uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kcap.vm.cache import private_directory
from kcap.vm.errors import FetchError, RequirementError

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Hooks of the machine's configuration act on the machine's own cache: they have no business here.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets;
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
}};
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Get::AllowUnauthenticated "false";
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::AllowInsecureRepositories "false";
"""


class Mirror(NamedTuple):
    """Where Debian's archive and its security archive are found, as base addresses."""

    archive: str
    security: str | None


def this_release(os_release: Path = Path("/etc/os-release")) -> str:
    """Return the code name of the Debian release that this machine runs (``bookworm``).

    :raises RequirementError: when the machine is not a Debian.
    """
    try:
        text = os_release.read_text()
    except OSError:
        text = ""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    codename = fields.get("VERSION_CODENAME", "")
    if fields.get("ID") != "debian" or not codename:
        raise RequirementError(
            "guests need a Debian machine: kernels come from the mirror its apt is set up with",
            hint="run it on Debian 12 or later, or in a container of one",
        )
    return str(codename)


def parse_index_targets(text: str, codename: str) -> Mirror | None:
    """Pick Debian's mirror out of what ``apt-get indextargets`` printed.

    :param text: lines of ``RELEASE|COMPONENT|REPO_URI``.
    :param codename: the machine's release; its ``main`` is looked for, and of several
        repositories that call theirs so the one whose address ends in ``debian`` comes first.
    :returns: the mirror, or None when no line fits.
    """
    rows = [line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2]
    main = [(release, uri.strip()) for release, component, uri in rows if component == "main"]
    names = {codename, "stable"}
    archives = sorted(
        dict.fromkeys(uri for release, uri in main if release in names),
        key=lambda uri: not uri.rstrip("/").endswith("debian"),
    )
    suites = {f"{name}-security" for name in names}
    security = [uri for release, uri in main if release.removesuffix("/updates") in suites]
    if not archives:
        return None
    return Mirror(archives[0], security[0] if security else None)


def find_mirror() -> Mirror:
    """Return the mirror that this machine's apt is set up with.

    :raises RequirementError: when apt is missing or knows no Debian mirror.
    """
    codename = this_release()
    shown = _run(
        ["apt-get", "indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)"],
        "asking apt for its mirror",
    )
    mirror = parse_index_targets(shown, codename)
    if mirror is None:
        raise RequirementError(
            f"this machine's apt has no source for Debian {codename} main, "
            "so there is no mirror to fetch kernels from",
            hint=f"add one to /etc/apt/sources.list: deb MIRROR {codename} main",
            log=shown,
        )
    return mirror


def sources_text(mirror: Mirror, suite: str) -> str:
    """Return a sources.list for ``suite`` and its security updates on ``mirror``."""
    options = f"[arch=amd64 signed-by={KEYRING}]"
    lines = [f"deb {options} {mirror.archive} {suite} main"]
    if mirror.security:
        lines.append(f"deb {options} {mirror.security} {suite}-security main")
    return "\n".join(lines) + "\n"


class PrivateApt:
    """apt for one Debian release, with everything it writes below ``directory``.

    :param directory: where state, cache and configuration go; created where missing.
    :param suite: the release's code name.
    """

    def __init__(self, directory: Path, suite: str) -> None:
        self.directory = private_directory(directory)
        self.suite = suite
        self._configuration = directory / "apt.conf"

    def update(self) -> None:
        """Fetch the package lists.

        :raises FetchError: with apt's output, when that fails or a signature is wrong.
        """
        if not KEYRING.exists():
            raise RequirementError(
                f"{KEYRING} is missing: the kernels' signatures cannot be checked",
                hint="apt-get install debian-archive-keyring",
            )
        mirror = find_mirror()
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "status").write_bytes(b"")
        (self.directory / "sources.list").write_text(sources_text(mirror, self.suite))
        self._configuration.write_text(_CONFIGURATION.format(root=self.directory))
        self._apt("apt-get", "-q", "update")

    def newest(self, pattern: str) -> tuple[str, str] | None:
        """Return name and version of the package with the newest version.

        :param pattern: what the package's name must match in full.
        """
        expression = re.compile(pattern)
        names = self._apt("apt-cache", "pkgnames", "linux-image-").split()
        chosen = [name for name in names if expression.fullmatch(name)]
        found: tuple[str, str] | None = None
        for name in chosen:
            version = self.field(name, "Version")
            if found is None or newer(version, found[1]):
                found = (name, version)
        return found

    def field(self, package: str, field: str) -> str:
        """Return a field of the newest version of ``package``, or an empty text."""
        text = self._apt("apt-cache", "--no-all-versions", "show", package)
        found = re.search(rf"^{field}: (.*)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Download the newest version of each of ``packages``, without what they depend on."""
        target = private_directory(self.directory / "download")
        for old in target.glob("*.deb"):
            old.unlink()
        self._apt("apt-get", "-q", "download", *packages, cwd=target)
        return sorted(target.glob("*.deb"))

    def download_with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """Download ``packages`` and all that they depend on."""
        archives = self.directory / "cache" / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        self._apt("apt-get", "-q", "-y", "--download-only", "install", *packages)
        return sorted(archives.glob("*.deb"))

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        tool, *rest = command
        return _run([tool, "-c", str(self._configuration), *rest], f"{tool} {rest[0]}", cwd)


def newer(version: str, than: str) -> bool:
    """Say whether ``version`` comes after ``than`` in Debian's ordering (deb-version(7))."""
    done = subprocess.run(["dpkg", "--compare-versions", version, "gt", than], check=False)
    return done.returncode == 0


def unpack(package: Path, directory: Path) -> None:
    """Unpack a package's files below ``directory``; no script of the package is run.

    tar is told to leave symbolic links to directories alone (``dpkg-deb -x`` replaces them), since
    /bin, /lib and /sbin are such links.

    :raises FetchError: when the package is damaged.
    """
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    options = ["--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore"]
    done = subprocess.run(
        ["tar", "-x", "-p", *options, "-C", str(directory)],
        stdin=reader.stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if reader.stdout is not None:
        reader.stdout.close()
    if reader.wait() or done.returncode:
        raise FetchError(f"cannot unpack {package.name}", log=done.stderr)


def _run(command: list[str], doing: str, cwd: Path | None = None) -> str:
    """Run a program of apt's and return its output.

    :raises RequirementError: when it is not installed.
    :raises FetchError: when it fails.
    """
    if shutil.which(command[0]) is None:
        raise RequirementError(
            f"{command[0]} is not installed, and kernels are fetched with it",
            hint="run it on Debian 12 or later, or in a container of one",
        )
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        log = done.stdout + done.stderr
        lines = [line for line in log.splitlines() if line.startswith(("E:", "W:", "Err:"))]
        raise FetchError(
            f"{doing} failed: {lines[-1] if lines else f'exit status {done.returncode}'}",
            hint="check that this machine's own `apt-get update` works",
            log=log,
        )
    return done.stdout
