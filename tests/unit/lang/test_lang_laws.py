# SPDX-License-Identifier: Apache-2.0
"""Laws of the front end: any text gives a tree or errors with places, formatting changes nothing,
and reading takes time in proportion to the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.lang.ast import walk
from kcap.lang.diagnostic import Diagnostics
from kcap.lang.format import format_script
from kcap.lang.parser import Parser, parse, parse_with_diagnostics
from kcap.lang.render import render_all, to_json
from kcap.lang.source import Source
from kcap.lang.traverse import same_tree

# --- generated scripts -----------------------------------------------------------------------

_NAMES = st.sampled_from(["pid", "x", "args", "uint64", "size_t", "comm", "_", "FOO"])
_VARIABLES = st.sampled_from(["$x", "$y1", "$_"])
_MAPS = st.sampled_from(["@", "@m", "@a_1"])
_INTEGERS = st.sampled_from(["0", "1", "0x1fUL", "1e6", "5ms", "017", "18446744073709551615"])
_STRINGS = st.sampled_from(['""', '"a b"', r'"\x41\n\"%s"', '"//"', '"é/* "'])
_TYPES = st.sampled_from(
    ["uint64", "struct s *", "int8[4]", "string[8]", "enum e", "void**", "typeof($x)", "foo_t[]"]
)
_BINARY = st.sampled_from(
    ["||", "&&", "|", "^", "&", "==", "!=", "<", ">", "<=", ">=", "<<", ">>", "+", "-",
     "*", "/", "%"]
)  # fmt: skip
_SPACE = st.sampled_from(["", " ", "\n", " // c\n", "/* c */", "  "])
_LEAVES = st.one_of(
    _NAMES, _VARIABLES, _MAPS, _INTEGERS, _STRINGS, st.sampled_from(["true", "$1", "$#", "()"])
)


@st.composite
def _joined(draw: st.DrawFn, *parts: st.SearchStrategy[str]) -> str:
    out = []
    for part in parts:
        out.append(draw(part))
        out.append(draw(_SPACE) or " ")
    return "".join(out)


def _just(text: str) -> st.SearchStrategy[str]:
    return st.just(text)


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, max_size=4).map(", ".join)
    some = st.lists(inner, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        _joined(_just("("), inner, _BINARY, inner, _just(")")),
        _joined(inner, _BINARY, inner),
        _joined(st.sampled_from(["!", "~", "-", "*", "&", "comptime", "- -"]), inner),
        _joined(_just("("), inner, _just(")")),
        _joined(_just("(("), _TYPES, _just(")"), inner, _just(")")),
        _joined(_NAMES, _just("("), arguments, _just(")")),
        _joined(_just("("), inner, _just("?"), inner, _just(":"), inner, _just(")")),
        _joined(_just("("), some, _just(",)")),
        _joined(_just("(a ="), inner, _just(", b ="), inner, _just(")")),
        _joined(_MAPS, _just("["), some, _just("]")),
        _joined(_VARIABLES, st.sampled_from([".a", "->b", ".0", "++", "--"])),
        _joined(_just("sizeof("), st.one_of(_TYPES, inner), _just(")")),
        _joined(_just("{"), _VARIABLES, _just("="), inner, _just(";"), inner, _just("}")),
        _joined(_just("(if"), inner, _just("{"), inner, _just("} else {"), inner, _just("})")),
    )


_EXPRESSIONS = st.recursive(_LEAVES, _extend, max_leaves=12)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.lists(inner, max_size=3).map(lambda parts: "{" + "\n".join(parts) + "}")
    head = _EXPRESSIONS.map(lambda text: f"({text})")
    return st.one_of(
        _joined(_just("if"), head, block),
        _joined(_just("if"), head, block, _just("else"), block),
        _joined(_just("while"), head, block),
        _joined(_just("for ($i : 0 .."), head, _just(")"), block),
        _joined(_just("unroll"), head, block),
        block,
    )


_SIMPLE = st.one_of(
    _joined(_EXPRESSIONS.map(lambda text: f"({text})"), _just(";")),
    _joined(
        st.one_of(_VARIABLES, _MAPS), st.sampled_from(["=", "+=", "<<="]), _EXPRESSIONS, _just(";")
    ),
    _joined(_just("let $x :"), _TYPES, _just("="), _EXPRESSIONS, _just(";")),
    st.sampled_from(["break;", "return;", "let $z;", ";", "// comment\n", "/* c */"]),
    _joined(_just("_ ="), _EXPRESSIONS, _just(";")),
)
_STATEMENTS = st.recursive(_SIMPLE, _statements, max_leaves=6)
_BLOCKS = st.lists(_STATEMENTS, max_size=4).map(lambda parts: "{" + " ".join(parts) + "}")
_HEADS = st.sampled_from(
    ["BEGIN", "kprobe:f", "k:a,\nk:b*", 'uprobe:/bin/sh:"f g"', "macro m(x, $y, @z)", "i:s:1 /pid/"]
)
_SCRIPTS = st.lists(_joined(_HEADS, _BLOCKS), max_size=3).map("\n".join)


def _check(text: str) -> bool:
    """Check the laws for one text; whether it is a script."""
    source = Source("t", text)
    tree, diagnostics = parse_with_diagnostics(source)
    for diagnostic in diagnostics:
        spans = [diagnostic.span, *(label.span for label in diagnostic.labels)]
        spans += [edit.span for edit in diagnostic.edits]
        assert all(s is not None and 0 <= s.start <= s.end <= len(text) for s in spans)
        to_json(diagnostic)
    if tree is None:
        assert render_all(diagnostics)
        return False
    assert all(0 <= n.span.start <= n.span.end <= len(text) for n in walk(tree))
    once = format_script(source)
    again = parse(Source("t", once))
    assert same_tree(tree, again)
    assert [c.text.split() for c in tree.comments] == [c.text.split() for c in again.comments]
    assert format_script(Source("t", once)) == once
    return True


@given(_SCRIPTS)
@settings(max_examples=150, deadline=None)
def test_formatting_keeps_the_tree_and_the_comments_and_is_idempotent(text: str) -> None:
    _check(text)


@given(_EXPRESSIONS)
@settings(max_examples=150, deadline=None)
def test_expressions_keep_their_tree(text: str) -> None:
    _check(f"begin {{ $x = {text}; }}")


_FRAGMENTS = st.one_of(
    _SCRIPTS,
    _STATEMENTS,
    _EXPRESSIONS,
    st.sampled_from(
        ["{", "}", "(", ")", "[", "]", ";", "/", "/*", "*/", "//", '"', "\\", "#", "@", "$", "\n",
         "kprobe:", "if", "else", "struct", "config = {", "import", "let", "fn", "#define", "0x"]
    ),
    st.text(max_size=5),
)  # fmt: skip


@given(st.lists(_FRAGMENTS, max_size=8).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_tree_or_errors_inside_the_text(text: str) -> None:
    _check(text)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_characters_give_a_tree_or_errors_inside_the_text(text: str) -> None:
    _check(text)


# --- work in proportion to the text ------------------------------------------------------------


def _steps(text: str) -> int:
    parser = Parser(Source("t", text), Diagnostics())
    parser.program()
    return parser.steps


@pytest.mark.parametrize(
    "piece",
    [
        "kprobe:f /pid == 1/ { @x[comm] = count(); if (a) { f(1, (uint64)$x); } }\n",
        "let @m = hash(1);\n",
        "macro m(x) { (x[1] * 2) }\n",
        "struct s { int a; };\n",
        "kprobe:f { f(sizeof(typeof(typeof(x) + 1)), (a*)b, (a)) } // comment\n",
        "kprobe:f { ( }\n",
        "kprobe:f {\n",
        "/* x */ kprobe\n",
        'kprobe:"x\n',
        "/*",
        '\\"',
        "{",
        "}",
        "#",
        "uprobe:/a*/b:c,",
    ],
)
def test_the_steps_taken_grow_with_the_text_and_no_faster(piece: str) -> None:
    small, large = _steps(piece * 200), _steps(piece * 2000)
    assert large <= 11 * small + 100


def test_a_script_of_a_megabyte_takes_a_step_or_two_a_token() -> None:
    piece = "kprobe:vfs_read /pid == 1/ { @bytes[comm, tid] = sum(arg2); }\n"
    text = piece * (1_000_000 // len(piece))
    tokens = 29
    assert _steps(text) / (len(text) / len(piece)) <= 2 * tokens


def test_nested_typeof_is_read_once() -> None:
    def nested(depth: int) -> str:
        text = "x"
        for _ in range(depth):
            text = f"(typeof({text}) + 1)"
        return f"begin {{ $x = {text}; }}"

    assert parse(Source("t", nested(40))).probes
