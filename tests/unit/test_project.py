# SPDX-License-Identifier: Apache-2.0
"""What the project's files say of each other: documents, dependencies, version, licence."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import kcap
from kcap.cli.main import SUBCOMMANDS
from kcap.cli.options import OPTIONS
from kcap.version import BPFTRACE_VERSION, __version__

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def requirements() -> list[str]:
    """Everything that pyproject.toml asks for, with its range."""
    found = list(project()["dependencies"])
    for group in project()["optional-dependencies"].values():
        found += group
    return found


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_made_parts_of_the_documents_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/update_docs.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [
        link for link in links if "://" not in link and not (document.parent / link).is_file()
    ]
    assert not missing


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    for requirement in requirements():
        assert ">=" in requirement, requirement
        assert ",<" in requirement, requirement


def test_every_dependency_is_justified_in_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    listed = set(re.findall(r"^\| `([a-z]+)`(?: \(tests\))? \| \S.* \|$", page, re.MULTILINE))
    assert listed == {re.split(r"[<>=]", requirement)[0] for requirement in requirements()}


def test_every_layer_is_described_in_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    described = re.findall(r"^\| `([a-z]+)/` \|", page, re.MULTILINE)
    layers = {
        path.name for path in (ROOT / "src/kcap").iterdir() if (path / "__init__.py").exists()
    }
    assert set(described) == layers


def test_the_readme_mentions_every_subcommand() -> None:
    for command in SUBCOMMANDS:
        if command != "run":  # the same as no subcommand
            assert f"    kcap {command} " in README, command


def test_options_that_the_readme_shows_are_there() -> None:
    flags = {flag for option in OPTIONS for flag in option.flags}
    usage = README[README.index("## Using it") : README.index("### Captures")]
    shown = re.findall(r"^    kcap (.*?)(?:   .*)?$", usage, re.MULTILINE)
    for line in shown:
        if line.split()[0] not in SUBCOMMANDS:
            for flag in re.findall(r"(?<=\s)--?[a-z]+\b|^--?[a-z]+\b", line.partition("'")[0]):
                assert flag in flags, line


def test_the_readmes_python_example_compiles_and_its_script_is_right() -> None:
    (example,) = blocks("python")
    compile(example, "README.md", "exec")
    script = re.search(r'SCRIPT = r"""(.*?)"""', example, re.DOTALL)
    assert script is not None
    checked = kcap.compile(script[1])
    assert [name.partition(":")[0] for name in checked.probes] == ["fentry", "interval"]


def test_the_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert __version__ in text
    assert BPFTRACE_VERSION.rpartition(".")[0] in text


def test_the_licence_is_apache() -> None:
    assert project()["license"] == {"text": "Apache-2.0"}
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_package_data_is_declared() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = table["tool"]["setuptools"]["package-data"]["kcap"]
    package = ROOT / "src/kcap"
    declared = {path for pattern in patterns for path in package.glob(pattern)}
    data = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".pyo")
    }
    assert data <= declared
