# SPDX-License-Identifier: Apache-2.0
"""A script that loads is never refused: the checks find nothing in scripts that are right.

The scripts are those of all tests: whatever text of them is a script that analysis takes on the
frozen machine. (That the scripts of the live tests load is what these tests show, checks included.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcap.diagnose.check import check
from kcap.errors import KcapError
from kcap.functions.registry import all_functions
from kcap.kernel import uapi
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.registry import resolver
from kcap.probes.system import System
from kcap.sema import tree
from kcap.sema.analyzer import analyze
from kcap.session.script import Options, configure
from unit.diagnose.corpus_machine import machine

TESTS = Path(__file__).parents[2]


def texts() -> Iterator[tuple[Path, str]]:
    """Every literal text of the tests that may be a script, once, and the scripts of the corpus
    after their repair."""
    seen = set()
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and "{" in value and value not in seen:
                seen.add(value)
                yield path, value
    for path in sorted((TESTS / "unit/diagnose/corpus/fixed").glob("*.bt")):
        yield path, path.read_text()


def packets_from_elsewhere(script: tree.Script) -> bool:
    """Whether the script calls skboutput() where the kernel does not let it, as
    tests/live/guest/diagnose shows: what the tests of diagnosis are about."""
    return any(
        isinstance(node, tree.Call)
        and node.function.name == "skboutput"
        and program.context.program_type != uapi.BPF_PROG_TYPE_TRACING
        for program in script.programs
        for node in tree.walk(program.body)
    )


@pytest.mark.parametrize("release", ["6.12.107", "7.2.12"])
def test_the_checks_find_nothing_in_scripts_that_are_right(
    tmp_path_factory: pytest.TempPathFactory, release: str
) -> None:
    system: System = machine(tmp_path_factory.mktemp("machine"))
    functions = all_functions()
    refused, passed, rightly = [], 0, 0
    for path, text in texts():
        source = Source(path.name, text)
        try:
            syntax = parse(source)
            config = configure(syntax, Options(environment={}))
            script = analyze(
                syntax,
                functions=functions,
                probes=resolver(system),
                types=system.types,
                config=config,
                unsafe=True,
            )
        except KcapError:
            continue
        found = check(script, syntax, source, system, functions, release)
        if not found:
            passed += 1
        elif packets_from_elsewhere(script):
            rightly += 1
        else:
            refused.append((path.name, text, found[0].title))
    assert refused == []
    assert passed > 200
    assert rightly > 40
