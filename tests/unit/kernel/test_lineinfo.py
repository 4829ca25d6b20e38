# SPDX-License-Identifier: Apache-2.0
"""Lines of a program: out of LLVM's object, and into the kernel."""

from __future__ import annotations

from struct import iter_unpack

import pytest

from kcap.btf.build import BtfBuilder, functions_btf, line_info
from kcap.codegen.lines import SourceLines
from kcap.codegen.llvm import Compiler
from kcap.kernel.errors import ObjectError
from kcap.kernel.lineinfo import object_lines, program_lines
from kcap.kernel.object import BpfObject, Section
from kcap.lang.source import Source

SOURCE = Source("x.bt", "one two three")


def records(blob: bytes) -> list[tuple[int, int, int]]:
    """(instruction, line, column) of each record."""
    return [(insn, line >> 10, line & 1023) for insn, _, _, line in iter_unpack("<IIII", blob)]


def test_a_function_without_a_line_of_its_own_begins_with_the_next() -> None:
    builder = BtfBuilder()
    blob = line_info([(3, "a.bt", "x = 1", 7, 2), (9, "a.bt", "y", 8, 1)], [0, 5], builder)
    assert records(blob) == [(0, 7, 2), (3, 7, 2), (5, 8, 1), (9, 8, 1)]


def test_a_function_behind_the_last_line_has_that() -> None:
    blob = line_info([(0, "a.bt", "x", 1, 1)], [0, 20], BtfBuilder())
    assert records(blob) == [(0, 1, 1), (20, 1, 1)]


def test_no_lines_are_no_records() -> None:
    assert line_info([], [0], BtfBuilder()) == b""


def test_columns_and_lines_that_do_not_fit_are_the_largest() -> None:
    blob = line_info([(0, "a.bt", "x", 1 << 30, 5000)], [0], BtfBuilder())
    assert records(blob) == [(0, (1 << 22) - 1, 1023)]


def test_the_texts_are_in_the_btf_of_the_functions() -> None:
    builder = BtfBuilder()
    line_info([(0, "a.bt", "$x = 1;", 1, 1)], [0], builder)
    blob, _ = functions_btf(["prog_0"], builder)
    assert b"\0a.bt\0$x = 1;\0" in blob


def test_text_that_is_no_utf_8_does_not_stop_it() -> None:
    line_info([(0, "a.bt", "\udcff", 1, 1)], [0], BtfBuilder())


def compiled() -> tuple[BpfObject, SourceLines]:
    lines = SourceLines()
    lines.now = SOURCE.span(0, 3)
    scope = lines.scope("prog_0")
    first = lines.location(scope)
    lines.now = SOURCE.span(4, 7)
    second = lines.location(scope)
    lines.now = SOURCE.span(0, 3)
    ir = f"""target triple = "bpfel"
define i64 @prog_0(ptr %ctx) section "kcap/prog_0" !dbg !{scope} {{
  %a = call i64 inttoptr (i64 5 to ptr)(){first}
  %b = call i64 inttoptr (i64 7 to ptr)(){second}
  ret i64 %b{lines.location(scope)}
}}
{lines.metadata()}
"""
    return BpfObject(Compiler().compile(ir)[0]), lines


def test_llvm_says_which_instruction_is_of_which_span() -> None:
    obj, lines = compiled()
    (program,) = obj.programs()
    found = [(insn, lines.spans[line - 1].text) for insn, line in program_lines(obj, program)]
    assert found == [(0, "one"), (1, "two"), (2, "one")]


def test_a_span_has_one_number() -> None:
    _, lines = compiled()
    assert [span.text for span in lines.spans] == ["one", "two"]


def test_an_object_without_lines_has_none() -> None:
    obj, _ = compiled()
    obj.sections = [s for s in obj.sections if s.name != ".BTF.ext"]
    assert object_lines(obj) == {}


@pytest.mark.parametrize("keep", [1, 20, 40])
def test_damaged_lines_are_an_error(keep: int) -> None:
    obj, _ = compiled()
    obj.sections = [
        Section(s.name, s.executable, s.data[:keep], {}) if s.name == ".BTF.ext" else s
        for s in obj.sections
    ]
    with pytest.raises(ObjectError):
        object_lines(obj)
