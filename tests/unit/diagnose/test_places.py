# SPDX-License-Identifier: Apache-2.0
"""From the instruction that a verifier's log ends at to the place in the script."""

from __future__ import annotations

import pytest

from kcap.codegen.compile import Compiled, compile_script
from kcap.codegen.module import Features
from kcap.diagnose.places import failing_instruction, place
from kcap.diagnose.verifier import refused
from kcap.kernel.errors import CUT, VerifierError
from kcap.lang.render import render
from kcap.probes.system import System
from kcap.session.script import compile as check

SCRIPT = """\
interval:s:1
{
  $i = 0;
  @a = 1; @c = nsecs;
  while ($i < 10) {
    @b += $i;
  }
}

fentry:icmp_rcv { for ($i : 0..100) {
    @len = args.skb->len;
  }
}
"""


@pytest.fixture
def compiled(machine: System) -> Compiled:
    """The script with its places, compiled for the frozen machine."""
    checked = check(SCRIPT, name="test.bt", system=machine)
    return compile_script(checked.script, Features(), lines=True)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (("3: (85) call bpf_ktime_get_ns#5", "4: (95) exit", "R0 !read_ok"), 4),
        (("12: (0f) r0 += r6", "math between map_value pointer …", "processed 12 insns"), 12),
        (("1: (05) goto pc-1", "infinite loop detected at insn 7", "cur state: R10=fp0"), 7),
        (("unreachable insn 2", "processed 0 insns"), 2),
        (
            ("12: (85) call bpf_loop#181", "regs=40 stack=0 before 5: (07) r2 += -8", "R1 …"),
            12,
        ),
        (("8: (95) exit", "combined stack size of 2 calls is 832. Too large"), None),
        (("; @x = 1 @ test.bt:3", "9: R1=ctx()", "9: (79) r1 = *(u64 *)(r1 +0)"), 9),
        ((), None),
    ],
)  # fmt: skip
def test_the_instruction_that_failed(log: tuple[str, ...], expected: int | None) -> None:
    assert failing_instruction(log) == expected


def test_every_statement_has_instructions(compiled: Compiled) -> None:
    lines = {span.line for _, span in compiled.programs[0].places}
    assert lines >= {1, 4, 6}
    assert {span.line for _, span in compiled.programs[1].places} >= {10, 11}


def test_statements_of_one_line_are_told_apart(compiled: Compiled) -> None:
    texts = {span.text for _, span in compiled.programs[0].places if span.line == 4}
    assert texts == {"@a = 1", "@c = nsecs", "nsecs"}


def test_callbacks_have_their_places(compiled: Compiled) -> None:
    program = compiled.programs[1]
    callback = program.spec.functions[1].insn
    inside = [span.text for insn, span in program.places if insn >= callback]
    assert "args.skb->len" in inside


def test_instructions_are_the_same_with_and_without_places(machine: System) -> None:
    script = check(SCRIPT, name="test.bt", system=machine).script
    plain, traced = (compile_script(script, Features(), lines=lines) for lines in (False, True))
    assert [p.spec.insns for p in plain.programs] == [p.spec.insns for p in traced.programs]
    assert [p.places for p in plain.programs] == [(), ()]


def test_the_kernel_gets_the_lines_of_the_script(compiled: Compiled) -> None:
    lines = compiled.programs[0].spec.lines
    assert ("test.bt", "@b += $i;", 6, 5) in {
        (at.file, at.text, at.line, at.column) for at in lines
    }
    assert [at.insn for at in lines] == sorted({at.insn for at in lines})


def test_an_instruction_between_two_places_belongs_to_the_first(compiled: Compiled) -> None:
    places = compiled.programs[0].places
    insn, span = places[2]
    assert place((f"{insn}: (b7) r1 = 0", "R1 invalid"), places) == span


def test_a_refusal_names_the_line(compiled: Compiled) -> None:
    program = compiled.programs[0]
    insn = next(insn for insn, span in program.places if span.text == "@b += $i")
    log = (f"{insn}: (79) r1 = *(u64 *)(r0 +0)", f"infinite loop detected at insn {insn}")
    error = VerifierError("prog_0", 22, log)
    found = refused(error, program.context, compiled.script, program.places).diagnostics[0]
    assert found.span is not None
    assert (found.span.line, found.span.text) == (6, "@b += $i")
    assert found.title == "a loop never ends"
    text = render(found)
    assert "6 |     @b += $i;" in text
    assert "^^^^^^^^ the verifier stopped at an instruction of this" in text
    assert "------------ in this probe" in text


def test_a_log_that_lost_its_end_names_no_line(compiled: Compiled) -> None:
    program = compiled.programs[0]
    error = VerifierError("prog_0", 28, ("40: (b7) r1 = 0", CUT, "R1 !read_ok"), truncated=True)
    found = refused(error, program.context, compiled.script, program.places).diagnostics[0]
    assert found.span == program.context.span
