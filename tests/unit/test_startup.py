# SPDX-License-Identifier: Apache-2.0
"""What a start loads: the way of ``kcap -e 'begin { exit() }'`` up to where BPF begins."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kcap.cli.main import main

SOURCE = Path(__file__).resolve().parents[2] / "src"

#: Loading one of these costs a noticeable part of a whole start.
HEAVY = {
    "_hashlib",
    "argparse",
    "ast",
    "asyncio",
    "clang",
    "dataclasses",
    "decimal",
    "elftools",
    "inspect",
    "json",
    "llvmlite",
    "logging",
    "multiprocessing",
    "pathlib",
    "rich",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
}

WAY = """
import sys
import kcap.cli.main, kcap.cli.script, kcap.output.text, kcap.output.writer, kcap.session.trace
from kcap.cli import options
from kcap.session.preparation import Preparation

arguments = options.parse(["-e", sys.argv[1]])
with Preparation(kcap.cli.script.script_options(arguments)) as preparation:
    checked = preparation.check(arguments.program, "stdin")
    checked.generate(objects=preparation.objects)
    print("compiled" if preparation.objects.compiled else "cached")
print("BTF was read" if "btf" in vars(checked.system) else "BTF was not read")
print(*sys.modules, sep="\\n")
"""


#: The way of a whole script that was kept: up to where maps are created. What the kernel would say
#: of its boot and modules is put in.
KEPT_WAY = """
import sys
import kcap.cli.main, kcap.cli.script, kcap.output.text, kcap.output.writer, kcap.session.trace
from kcap.cli import options
from kcap.probes import kept as kernel_state
from kcap.session.kept import KeptScript
from kcap.session.preparation import Preparation

kernel_state.state = lambda: "one boot, these modules"
arguments = options.parse(["-e", sys.argv[1]])
given = kcap.cli.script.script_options(arguments)
with Preparation(given) as preparation:
    script = preparation.prepare(arguments.program, "stdin")
    ready = script.ready(preparation.objects)
    print("found" if ready is script else "compiled")
    if ready is not script:
        KeptScript(arguments.program, "stdin", given).keep(ready)
print("BTF was read" if "btf" in vars(script.system) else "BTF was not read")
print(*sys.modules, sep="\\n")
"""

#: What makes a compiled script: a start that found one needs none of it.
COMPILER = {
    "kcap.btf",
    "kcap.codegen.emitter",
    "kcap.codegen.function",
    "kcap.codegen.objects",
    "kcap.diagnose",
    "kcap.functions.base",
    "kcap.lang.ast",
    "kcap.lang.parser",
    "kcap.sema.analyzer",
    "kcap.sema.tree",
    "kcap.session.packets",
    "kcap.session.script",
}


def start(script: str, cache: Path, way: str = WAY) -> list[str]:
    """Go the way; where the object came from, whether BTF was read, and the modules loaded."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "KCAP_CACHE": str(cache)}
    # LLVM's version is read from where llvmlite is; what else site-packages load is not kcap's.
    places = [place for place in sys.path if place.endswith("-packages")]
    code = f"import sys; sys.path.extend({places!r})\n{way}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    "script", ["begin { exit() }", 'interval:s:1 { @[pid] = count(); printf("%d", 1); }']
)
def test_a_start_from_cache_loads_no_heavy_module(script: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert start(script, cache)[0] == "compiled"
    origin, types, *modules = start(script, cache)
    assert origin == "cached"
    assert types == "BTF was not read"
    assert not HEAVY.intersection(name.partition(".")[0] for name in modules)


@pytest.mark.parametrize(
    "script", ["begin { exit() }", 'interval:s:1 { @[pid] = nsecs; printf("%d", 1); }']
)
def test_a_script_that_was_kept_starts_without_the_compiler(script: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert start(script, cache, KEPT_WAY)[0] == "compiled"
    origin, types, *modules = start(script, cache, KEPT_WAY)
    assert origin == "found"
    assert types == "BTF was not read"
    assert not HEAVY.intersection(name.partition(".")[0] for name in modules)
    needless = COMPILER if script.startswith("begin") else COMPILER - {"kcap.sema.tree"}
    assert not needless.intersection(modules)


def test_a_start_without_cache_leaves_llvm_to_the_child(tmp_path: Path) -> None:
    origin, _, *modules = start("begin { exit() }", tmp_path / "cache")
    assert origin == "compiled"
    assert not HEAVY.intersection(name.partition(".")[0] for name in modules)


def test_garbage_is_collected_again_when_a_command_has_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--version"]) == 0
    assert main(["--no-such-option"]) == 1
    assert gc.isenabled()
    assert "kcap" in capsys.readouterr().out
