# SPDX-License-Identifier: Apache-2.0
"""Scripts in standard form."""

from __future__ import annotations

import pytest

from kcap.lang.diagnostic import ScriptError
from kcap.lang.format import format_script
from kcap.lang.source import Source


def formatted(text: str) -> str:
    """The standard form, after checking that formatting it again changes nothing."""
    once = format_script(Source("t.bt", text))
    assert format_script(Source("t.bt", once)) == once
    return once


def body(text: str) -> str:
    """The standard form of statements, without the probe around them."""
    lines = formatted("begin {\n" + text + "\n}").splitlines()
    assert (lines[0], lines[-1]) == ("begin {", "}")
    return "\n".join(line[2:] for line in lines[1:-1])


def test_a_script_comes_out_in_standard_form() -> None:
    text = """\
#!/usr/bin/env bpftrace
// About.
#include <a.h>
struct S { int x; };
config={stack_mode=perf;max_strlen=64}
import"x.bt";
let @a=hash( 10 );
let @b=hash(20);
macro inc($x,@m){$x+=1;@m[ $x ]++;$x}
kprobe:f,kprobe:g/pid==1&&comm=="x"/{print(1);if(pid){exit()}else if(tid){$x=1}else{}
  // last
}
interval:s:1 { clear(@a) }


// before end
END{}
"""
    assert (
        formatted(text)
        == """\
#!/usr/bin/env bpftrace
// About.
#include <a.h>
struct S { int x; };

config = {
  stack_mode = perf;
  max_strlen = 64;
}

import "x.bt";

let @a = hash(10);
let @b = hash(20);

macro inc($x, @m) {
  $x += 1;
  @m[$x]++;
  $x
}

kprobe:f,
kprobe:g
/pid == 1 && comm == "x"/
{
  print(1);
  if (pid) {
    exit();
  } else if (tid) {
    $x = 1;
  } else {}
  // last
}

interval:s:1 { clear(@a); }

// before end
END {}
"""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x=(struct sock *)arg0;", "$x = (struct sock*)arg0;"),
        ("$x=args->a->b[1].0;", "$x = args.a.b[1].0;"),
        ("@x[1,2]=(1,);@[(1,2)]=()", "@x[1, 2] = (1,);\n@[(1, 2)] = ();"),
        ("$x=((a+b))*-c- -d;", "$x = (a + b) * -c - -d;"),
        ("$x = - -a & &$b;", "$x = - -a & &$b;"),
        ("$x=a?b:c?:d;", "$x = a ? b : c ?: d;"),
        ("++$x;$x--;", "++$x;\n$x--;"),
        ("let $x:uint16=(uint16)0xFFul;", "let $x: uint16 = (uint16)0xFFul;"),
        ("let $x:string[64];", "let $x: string[64];"),
        (
            "_=f(sizeof(struct s),offsetof(int*,a.b));",
            "_ = f(sizeof(struct s), offsetof(int*, a.b));",
        ),
        ('$x=(a=1,b="é\\n");', '$x = (a=1, b="é\\n");'),
        ("for($i:0..5){break;}", "for ($i : 0..5) {\n  break;\n}"),
        ("for $i : (1)..@x {continue}", "for ($i : (1)..@x) {\n  continue;\n}"),
        ("while(1){return}", "while (1) {\n  return;\n}"),
        ("unroll(3){f()}", "unroll (3) {\n  f();\n}"),
        ("if comptime x {f()}", "if comptime x {\n  f();\n}"),
        ("$x={ $y+=1;$y };", "$x = { $y += 1; $y };"),
        ("$x={\n$y+=1;$y };", "$x = {\n  $y += 1;\n  $y\n};"),
        ("$x=if(a){1}else{2};", "$x = if (a) { 1 } else { 2 };"),
        ("m({ f() })", "m({ f() });"),
        ("a;\n\n\n\nb;\nc;", "a;\n\nb;\nc;"),
    ],
)
def test_statements_in_standard_form(text: str, expected: str) -> None:
    assert body(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("// one\nf(); // two\n\n// three\ng(); /* four */ // five\n// six", None),
        ("if (a) { // why\n  f();\n} // done", None),
        ("if (a) {\n  // nothing\n}", None),
        ("    /*\n     * block\n       */\nf();", "/*\n * block\n */\nf();"),
        ("f(1, // one\n    2);", "f(1, // one\n  2);"),
        ("f( 1,/* one */ 2) ;", "f( 1,/* one */ 2);"),
        ("$x={\n// in\n1};", "$x = {\n  // in\n  1\n};"),
        ("(f() /* x */);", None),
    ],
)
def test_comments_stay_with_their_code(text: str, expected: str) -> None:
    assert body(text) == (text if expected is None else expected)


def test_parentheses_that_keep_a_name_from_being_a_cast_stay() -> None:
    text = "begin {\n  print(((x)) - 5);\n}\n"
    assert format_script(Source("t", text)) == text
    text = "begin {\n  print(((int8[2])) - 5, (pid), (pid + 1));\n}\n"
    spelled = text.replace("(pid + 1)", "((pid + 1))")
    assert format_script(Source("t", spelled)) == text


def test_comments_between_attach_points_keep_them_as_they_are() -> None:
    text = "kprobe:f, // one\nkprobe:g\n// two\n{ f(); }\n"
    assert formatted(text) == "kprobe:f, // one\nkprobe:g\n// two\n{ f(); }\n"


def test_long_calls_are_filled_and_long_conditions_broken_after_operators() -> None:
    text = 'printf("' + "x" * 50 + '", aaaaaaaaaaa, bbbbbbbbbbb, ccccccccccc, ddddddddd);'
    assert body(text) == (
        'printf("' + "x" * 50 + '", aaaaaaaaaaa,\n       bbbbbbbbbbb, ccccccccccc, ddddddddd);'
    )
    a, b, c = "a" * 30, "b" * 30, "c" * 30
    assert body(f"if ({a} && {b} && ({c} || {a})) {{ f(); }}") == (
        f"if ({a} &&\n    {b} &&\n    ({c} || {a})) {{\n  f();\n}}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "kprobe:f /pid == 1/ { exit(); }\n",
        "kprobe:f / *$1/ { exit(); }\n",
        'uprobe:/bin/sh:"f(int)"+4 { exit(); }\n',
        "a=kprobe:f { exit(); }\n",
        "fn f($x : uint64, $y : struct s*) : int32 {\n  return 1;\n  f();\n}\n",
        "macro m(x) {\n  if (x) {\n    f();\n  };\n}\n",
        "macro m(x) {\n  if (x) {\n    1\n  } else {\n    2\n  }\n}\n",
        "#define A \\\n    1\n\n#ifdef A\n#endif\n",
        "// only a comment\n",
        "",
    ],
)
def test_what_is_in_standard_form_stays(text: str) -> None:
    assert formatted(text) == text


def test_a_script_with_errors_is_not_formatted() -> None:
    with pytest.raises(ScriptError):
        format_script(Source("t.bt", "begin { ( }"))


def test_a_block_inside_sizeof_is_put_on_one_line_in_standard_form() -> None:
    text = "begin { print(sizeof( { $x = pid ; ( pid || pid )\n } )); }"
    once = format_script(Source("t", text))
    assert once == "begin {\n  print(sizeof({ $x = pid; (pid || pid) }));\n}\n"
    assert format_script(Source("t", once)) == once


def test_an_if_expression_on_several_lines_inside_sizeof_becomes_one_line() -> None:
    once = format_script(Source("t", "begin { $x = sizeof((if pid { 1 } else {\n2  })); }"))
    assert once == "begin {\n  $x = sizeof((if pid { 1 } else { 2 }));\n}\n"
