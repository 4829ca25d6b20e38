# SPDX-License-Identifier: Apache-2.0
"""Wrong scripts, as people really write them: what is found, where, and what repairs them.

Each script of ``corpus`` begins with what its author did and a line for each error: its code, its
place (line and column), the text that is underlined. Lines with the help that is given may follow.
Where there is a repair, the script after it stands in ``corpus/fixed``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kcap.diagnose.repair import repair
from kcap.lang.diagnostic import Diagnostic
from kcap.lang.render import render
from kcap.probes.system import System
from unit.diagnose.corpus_machine import findings, machine

CORPUS = Path(__file__).parent / "corpus"
SCRIPTS = sorted(CORPUS.glob("*.bt"))
HELPED = [path for path in SCRIPTS if "\n// help: " in path.read_text()]
FIXED = sorted((CORPUS / "fixed").glob("*.bt"))

_ERROR = re.compile(r"// error: (\S+) at (\d+):(\d+) (\".*\")")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return machine(tmp_path_factory.mktemp("machine"))


def expected(text: str) -> list[tuple[str, int, int, str]]:
    return [
        (match[1], int(match[2]), int(match[3]), json.loads(match[4]))
        for match in map(_ERROR.match, text.splitlines())
        if match is not None
    ]


def summary(found: Diagnostic) -> tuple[str, int, int, str]:
    assert found.span is not None
    return found.code, found.span.line, found.span.column, found.span.text


def test_the_corpus_is_large_enough() -> None:
    assert len(SCRIPTS) >= 120
    assert {path.name for path in FIXED} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_errors_have_their_code_and_place(system: System, path: Path) -> None:
    text = path.read_text()
    assert [summary(found) for found in findings(system, path.name, text)] == expected(text)


@pytest.mark.parametrize("path", HELPED, ids=lambda path: path.stem)
def test_errors_say_how_to_mend_them(system: System, path: Path) -> None:
    text = path.read_text()
    wanted = re.findall("^// help: (.*)$", text, re.MULTILINE)
    assert [line for found in findings(system, path.name, text) for line in found.help] == wanted


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_repairs_are_what_they_should_be(system: System, path: Path) -> None:
    found = findings(system, path.name, path.read_text())
    after = CORPUS / "fixed" / path.name
    assert any(one.edits for one in found) == after.exists()
    if after.exists():
        fixed = repair(path.name, path.read_text(), lambda text: findings(system, path.name, text))
        assert fixed.text.partition("\n\n")[2] == after.read_text()


@pytest.mark.parametrize("path", FIXED, ids=lambda path: path.stem)
def test_repaired_scripts_have_no_errors(system: System, path: Path) -> None:
    assert findings(system, path.name, path.read_text()) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_errors_can_be_shown(system: System, path: Path) -> None:
    for found in findings(system, path.name, path.read_text()):
        text = render(found)
        assert text.startswith(f"error[{found.code}]: ")
        assert f"--> {path.name}:" in text
