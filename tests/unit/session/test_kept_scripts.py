# SPDX-License-Identifier: Apache-2.0
"""Compiled scripts that are kept: found again when nothing has changed, and only then."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kcap import cachedir
from kcap.codegen.compile import generate
from kcap.codegen.module import Features
from kcap.functions import clock
from kcap.probes import kept as kernel_state
from kcap.session import kept
from kcap.session.compiled import CompiledScript
from kcap.session.kept import KeptScript
from kcap.session.options import Options
from kcap.session.script import Checked, compile
from unit.functions.function_support import check
from unit.functions.test_functions_compile import EXPRESSIONS, STATEMENTS

SCRIPT = 'interval:s:1 { @[pid] = count(); printf("%d %s\\n", pid, comm); print(@, 3); }'


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, on a machine whose modules can be told."""
    monkeypatch.setenv("KCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_state, "state", lambda: "one boot, these modules")


def ran(text: str, **options: Any) -> Checked:
    """Compile a script and keep it, as a start does that the kernel took."""
    given = Options(**options)
    checked = compile(text, options=given)
    KeptScript(text, "stdin", given).keep(checked.ready())
    return checked


def found(text: str, name: str = "stdin", **options: Any) -> CompiledScript | None:
    return KeptScript(text, name, Options(**options)).find()


def test_a_script_that_ran_is_found_with_all_that_a_trace_needs() -> None:
    before = ran(SCRIPT).ready()
    after = found(SCRIPT)
    assert after is not None
    assert [p.spec for p in after.compiled.programs] == [p.spec for p in before.compiled.programs]
    assert after.compiled.maps == before.compiled.maps
    assert after.compiled.lost == before.compiled.lost
    assert after.config == before.config
    assert list(after.maps) == ["@"]
    printf, printed = after.compiled.sites
    data = (7).to_bytes(4, "little") + b"bash".ljust(16, b"\0")
    assert printf.payload.decode(data) == (7, "bash")
    assert printed.map is after.maps["@"]  # type: ignore[attr-defined]
    (context,) = [program.context for program in after.compiled.programs]
    assert (context.provider, context.name) == ("interval", "interval:s:1")
    assert context.span is not None
    assert context.span.text == "interval:s:1"


def test_a_script_that_was_found_is_checked_again_when_somebody_asks() -> None:
    ran(SCRIPT)
    after = found(SCRIPT)
    assert after is not None
    assert after.check().script.maps.keys() == {"@"}
    assert after.check() is after.check()
    assert after.compiled.script is after.check().script


def test_warnings_are_kept_with_their_places() -> None:
    text = 'begin { $x = 1; if (has_cpid) { } @a = comm; strftime("%H", nsecs); }'
    checked = ran(text.replace("has_cpid", "true"))
    after = found(text.replace("has_cpid", "true"))
    assert after is not None
    assert checked.warnings
    assert [str(w) for w in after.warnings] == [str(w) for w in checked.warnings]


@pytest.mark.parametrize(
    "options",
    [
        {"parameters": ("1",)},
        {"named": {"a": "1"}},
        {"pid": 1},
        {"unsafe": True},
        {"helper_errors": True},
        {"without": ("kprobe_multi",)},
        {"probe_filter": "interval"},
        {"include_directories": ("/tmp",)},
        {"environment": {"BPFTRACE_MAX_STRLEN": "100"}},
        {"mode": "test"},
        {"debug_directories": ("/tmp",)},
        {"cached": False},
    ],
    ids=str,
)
def test_another_option_is_another_script(options: dict[str, Any]) -> None:
    ran(SCRIPT)
    assert found(SCRIPT, environment={}) is not None
    assert found(SCRIPT, **options) is None


def test_another_text_name_boot_or_kcap_is_another_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran(SCRIPT)
    assert found(SCRIPT + " ") is None
    assert found(SCRIPT, "x.bt") is None
    monkeypatch.setattr(kept, "__version__", "0.0")
    assert found(SCRIPT) is None
    monkeypatch.undo()
    assert found(SCRIPT) is None  # nothing can be told of the boot, or it is another cache


def test_a_loaded_module_makes_it_another_script(monkeypatch: pytest.MonkeyPatch) -> None:
    ran(SCRIPT)
    monkeypatch.setattr(kernel_state, "state", lambda: "one boot, another module")
    assert found(SCRIPT) is None
    monkeypatch.setattr(kernel_state, "state", lambda: "")
    assert found(SCRIPT) is None


def test_a_changed_file_of_kcap_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kcap" / "session").mkdir(parents=True)
    (tmp_path / "kcap" / "sema").mkdir()
    module = tmp_path / "kcap" / "sema" / "types.py"
    module.write_text("x = 1")
    monkeypatch.setattr(kept, "__file__", str(tmp_path / "kcap" / "session" / "kept.py"))
    ran(SCRIPT)
    assert found(SCRIPT) is not None
    os.utime(module, ns=(1, 1))
    assert found(SCRIPT) is None


@pytest.mark.parametrize(
    "text",
    [
        'interval:s:1 { print(cgroupid("/")); }',
        "interval:s:1 { print(cpid); }",
        "#include <linux/types.h>\ninterval:s:1 { print(1); }",
        'import "stdlib/test"; interval:s:1 { print(1); }',
        f"uprobe:{os.path.realpath('/proc/self/exe')}:main {{ print(1); }}",
    ],
)
def test_what_depends_on_files_and_processes_is_not_kept(text: str) -> None:
    checked = compile(text)
    script = checked.ready()
    KeptScript(text, "stdin", Options()).keep(script)
    assert found(text) is None


def test_elapsed_is_kept_since_the_start_is_put_in_when_it_is_loaded() -> None:
    ran("interval:s:1 { print(elapsed); }")
    after = found("interval:s:1 { print(elapsed); }")
    assert after is not None
    symbols = {r.symbol for r in after.compiled.programs[0].spec.relocations}
    assert "kcap_start_time" in symbols


def test_formats_of_events_are_looked_at_again(tmp_path: Path) -> None:
    file = tmp_path / "format"
    file.write_text("field:int a;")
    checked = compile(SCRIPT)
    checked.system.inputs[str(file)] = checked.system.digest(str(file))
    KeptScript(SCRIPT, "stdin", Options()).keep(checked.ready())
    assert found(SCRIPT) is not None
    file.write_text("field:int b;")
    assert found(SCRIPT) is None


def test_a_damaged_file_is_no_script(tmp_path: Path) -> None:
    ran(SCRIPT)
    (path,) = Path(str(cachedir.directory(kept.DIRECTORY))).iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert found(SCRIPT) is None
    path.write_bytes(cachedir.sealed(b"not what was written"))
    assert found(SCRIPT) is None
    path.write_bytes(whole)
    assert found(SCRIPT) is not None


def test_the_directory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ran(SCRIPT)
    size = sum(e.stat().st_size for e in Path(str(cachedir.directory("scripts"))).iterdir())
    monkeypatch.setattr(kept, "LIMIT", size + size // 2)
    ran(SCRIPT + " ")
    assert found(SCRIPT) is None
    assert found(SCRIPT + " ") is not None


#: What compiling may read: kcap and Python themselves, and what is the kernel's until it boots.
LASTING = ("/sys/kernel/btf", "/sys/kernel/notes", "/sys/devices/system/cpu", "/proc/kallsyms")


@pytest.fixture
def files_read() -> Iterator[list[str]]:
    """The files that are opened meanwhile, but for Python's own and kcap's."""
    own = (sys.prefix, sys.base_prefix, str(Path(kept.__file__).parents[2]))
    found: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "open" and isinstance(arguments[0], str):
            path = os.path.abspath(arguments[0])
            if not path.startswith((*own, *LASTING)):
                found.append(path)

    sys.addaudithook(hook)
    yield found
    listening = False


def test_functions_that_are_kept_look_at_no_file_and_no_clock(
    files_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(__file__).read_bytes()
    assert files_read.pop() == os.path.abspath(__file__)  # so others would be seen
    monkeypatch.setattr(clock, "time", None)
    uses = [*(f"$x = {each}" for each in EXPRESSIONS), *STATEMENTS]
    for use in uses:
        script = check(f"kprobe:f {{ {use} }}")
        generate(script, Features())
        assert not files_read or not script.lasting, use
        files_read.clear()
