# SPDX-License-Identifier: Apache-2.0
"""The parts of a session that need no kernel: the command of -c, timings, checking scripts."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

import kcap
from kcap.btf.build import BtfBuilder
from kcap.btf.errors import BtfError
from kcap.btf.types import INT_SIGNED, Member
from kcap.errors import FileError, UsageError
from kcap.lang.diagnostic import ScriptError
from kcap.session.child import Child
from kcap.session.script import Options
from kcap.session.timing import Timings
from unit.symbols.elf_maker import elf


def wait(child: Child) -> None:
    select.select([child.fileno()], [], [])


def test_the_command_runs_only_when_it_is_started(tmp_path: Path) -> None:
    made = tmp_path / "made"
    child = Child(f"touch {made}")
    assert not made.exists()
    assert child.pid > 0
    child.start()
    wait(child)
    child.close()
    assert made.exists()
    assert child.status == 0


def test_a_command_that_still_runs_is_ended_with_sigterm() -> None:
    child = Child("sleep 1000")
    child.start()
    child.close()
    assert child.status == -signal.SIGTERM


def test_a_command_that_was_never_started_leaves_no_process() -> None:
    child = Child("sleep 1000")
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_quotes_of_a_command_are_part_of_its_words(tmp_path: Path) -> None:
    child = Child(f"touch {tmp_path}/'a {tmp_path}/b'")
    child.start()
    wait(child)
    child.close()
    assert sorted(os.listdir(tmp_path)) == ["'a", "b'"]


@pytest.mark.parametrize(("command", "message"), [("", "-c: the command is empty")])
def test_a_command_that_cannot_be_taken_apart(command: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Child(command)
    assert caught.value.message == message


def test_a_command_that_does_not_exist_is_named() -> None:
    child = Child("/no/such/program --x")
    with pytest.raises(UsageError) as caught:
        child.start()
    child.close()
    assert caught.value.message == (
        "-c: cannot execute /no/such/program: No such file or directory"
    )


def test_phases_of_the_same_name_are_added_up_in_the_order_they_first_ran() -> None:
    timings = Timings()
    timings.add("parse", 0.001)
    timings.add("check", 0.002)
    timings.add("parse", 0.003)
    assert timings.lines() == [
        "parse       4.0 ms",
        "check       2.0 ms",
        "total       6.0 ms",
    ]


def test_compile_gives_the_checked_program_with_its_probes_and_warnings() -> None:
    checked = kcap.compile("BEGIN { @x = 1; } interval:s:1 { print(@x) }", name="a.bt")
    assert checked.probes == ["begin", "interval:s:1"]
    assert list(checked.script.maps) == ["@x"]
    assert checked.source.name == "a.bt"


def test_compile_raises_every_error_with_its_place() -> None:
    with pytest.raises(ScriptError) as caught:
        kcap.compile("begin { print($x); }\nend { printf(1); }", name="a.bt")
    places = [error.span.location for error in caught.value.errors if error.span is not None]
    assert places == ["a.bt:1:15", "a.bt:2:14"]


def test_a_generated_script_needs_neither_root_nor_a_kernel() -> None:
    compiled = kcap.compile("begin { @ = count(); }").generate()
    (program,) = compiled.programs
    assert program.context.name == "begin"
    assert len(program.spec.insns) % 8 == 0
    assert [spec.name for spec in compiled.maps][:1] == ["AT_"]


def given_btf() -> bytes:
    """BTF of a struct that no kernel has."""
    builder = BtfBuilder()
    number = builder.integer("int", 4, INT_SIGNED)
    members = [Member("first", number, 0), Member("second", number, 32)]
    builder.struct("of_another_kernel", 8, members)
    return builder.to_bytes()


def test_types_come_from_the_btf_that_the_environment_names(tmp_path: Path) -> None:
    script = "begin { @ = sizeof(struct of_another_kernel); }"
    with pytest.raises(ScriptError, match="of_another_kernel"):
        kcap.compile(script)
    for name, data in (("raw", given_btf()), ("elf", elf([], sections={".BTF": given_btf()}))):
        (tmp_path / name).write_bytes(data)
        options = Options(environment={"BPFTRACE_BTF": str(tmp_path / name)})
        assert not kcap.compile(script, options=options).system.lasting


def test_a_btf_file_that_is_none_is_named(tmp_path: Path) -> None:
    script, path = "begin { @ = sizeof(struct of_another_kernel); }", str(tmp_path / "none")
    options = Options(environment={"BPFTRACE_BTF": path})
    with pytest.raises(FileError, match="can't read the BTF: No such file"):
        kcap.compile(script, options=options)
    (tmp_path / "none").write_bytes(b"nothing of the kind, but long enough")
    with pytest.raises(BtfError, match="none: no BTF"):
        kcap.compile(script, options=options)


def test_imports_of_a_file_are_found_beside_it(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    (tmp_path / "helpers.bt").write_text("macro seven() { 7 }\n")
    script = tmp_path / "main.bt"
    text = 'import "helpers.bt";\nbegin { @x = seven(); }\n'
    script.write_text(text)
    checked = kcap.compile(text, name=str(script), options=Options())
    assert list(checked.script.maps) == ["@x"]


def test_included_headers_do_not_shift_the_lines_of_the_script() -> None:
    with pytest.raises(ScriptError) as raised:
        kcap.compile(
            "begin {\n  print(AF_INET + $x); }", options=Options(includes=("linux/socket.h",))
        )
    (found,) = raised.value.diagnostics
    assert found.span is not None
    assert (found.span.text, found.span.line) == ("$x", 2)
