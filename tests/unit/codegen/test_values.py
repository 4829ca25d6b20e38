# SPDX-License-Identifier: Apache-2.0
"""What the emitted programs compute, on the BPF machine."""

from __future__ import annotations

import struct

import pytest

import kcap
from kcap.codegen.module import PERCPU_LIMIT, SCRATCH, Features
from kcap.functions.histogram import Histogram, HistType
from kcap.functions.tseries import Series
from kcap.kernel import cpus, uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapType
from kcap.lang.diagnostic import ScriptError
from kcap.sema.config import Config
from kcap.sema.probe import ProbeContext
from unit.codegen.script_machine import compiled, output, run

OLD = Features(loop=False, for_each=False, subregisters=False)


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("1 + 2 * 3", "7"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7 / (pid - 4242)", "1"),
        ("pid / 5 % 100", "48"),
        ("1 << 40", "1099511627776"),
        ("(uint8)255 + (uint8)1", "256"),
        ("(uint8)300", "44"),
        ("(int8)200", "-56"),
        ("(int64)(int8)200", "-56"),
        ("(uint64)(uint8)200", "200"),
        ("~0", "-1"),
        ("5 & 3 | 8 ^ 1", "9"),
        ("pid > 4241 && tid < 4244", "1"),
        ("pid > 9999 || tid == 4243", "1"),
        ("!pid", "0"),
        ('comm == "curl"', "1"),
        ('comm != "curl"', "0"),
        ('comm == "cur"', "0"),
        ('comm == "curls"', "0"),
        ("pid ? 10 : 20", "10"),
        ("pid == 1 ? 10 : 20", "20"),
        ("uid", "1000"),
        ("gid", "100"),
        ("cpu", "3"),
        ("(1, 2).1", "2"),
        ("((1, 2), 3).0.1", "2"),
        ("(uint64)(int8[8])12345", "12345"),
        ("((int8[8])12345)[1]", "48"),
    ],
)
def test_expression(expression: str, printed: str) -> None:
    assert output(f'begin {{ printf("%lld", {expression}) }}') == printed


def test_signed_shift_keeps_the_sign() -> None:
    assert output('begin { $x = (int64)-256; printf("%d", $x >> 4) }') == "-16"


def test_division_by_a_variable_that_is_zero_gives_one_as_does_its_remainder_and_says_so() -> None:
    outcome = run('begin { $z = pid - 4242; printf("%d %d", 17 / $z, 17 % $z) }')
    assert outcome.text == "1 1"
    assert [message.split(": ", 2)[:2] for message in outcome.messages] == [
        ["test:1:42-49", "WARNING"],
        ["test:1:51-58", "WARNING"],
    ]


def test_a_string_cast_to_an_array_prints_as_numbers() -> None:
    assert output('begin { print((int8[])"hello") }') == "[104,101,108,108,111,0]\n"


def test_strings_print_up_to_their_nul_and_compare_by_content() -> None:
    text = 'begin { $a = "abc"; $b = "abc"; printf("%s %d %d", $a, $a == $b, $a == "abd") }'
    assert output(text) == "abc 1 0"


def test_a_map_of_strings_and_numbers_is_keyed_by_the_content_of_its_strings() -> None:
    text = 'begin { @[comm, 1] = 5; @["curl", 1]++; printf("%d", @["curl", 1]) }'
    assert output(text) == "6"


def test_reading_a_missing_key_gives_zero_and_leaves_no_key() -> None:
    outcome = run('begin { @x[1] = 2; printf("%d %d", @x[7], @x[1]) }')
    assert outcome.text == "0 2"
    assert outcome.map("@x") == {1: 2}


def test_prefix_and_postfix_steps_of_variables_and_maps() -> None:
    text = 'begin { $x = 5; @y = 5; printf("%d %d %d %d", $x++, ++$x, @y--, --@y) }'
    assert output(text) == "5 7 5 3"


def test_compound_assignment_of_maps_and_variables() -> None:
    text = 'begin { $x = 6; $x *= 7; @y = 40; @y += 2; $x -= 1; printf("%d %d", $x, @y) }'
    assert output(text) == "41 42"


def test_if_else_and_blocks_with_values() -> None:
    text = """begin {
      $a = 0;
      if (pid == 4242) { $a = 1 } else { $a = 2 }
      $b = { let $c = 3; $c + 1 };
      printf("%d %d", $a, $b)
    }"""
    assert output(text) == "1 4"


def test_return_leaves_the_program() -> None:
    assert output('begin { printf("a"); if (pid) { return } printf("b") }') == "a"


def test_predicate_false_keeps_the_body_from_running() -> None:
    assert (
        output('begin /pid == 1/ { printf("no") } begin /pid == 4242/ { printf("yes") }') == "yes"
    )


@pytest.mark.parametrize("features", [Features(), OLD], ids=["bpf_loop", "plain loops"])
def test_range_loops_with_break_and_continue(features: Features) -> None:
    text = """begin {
      $sum = 0;
      for ($i : 0..100) {
        if ($i % 2) { continue }
        if ($i > 10) { break }
        $sum += $i;
      }
      printf("%d", $sum)
    }"""
    assert output(text, features) == "30"


@pytest.mark.parametrize("features", [Features(), OLD], ids=["bpf_loop", "plain loops"])
def test_return_out_of_nested_loops_leaves_the_program(features: Features) -> None:
    text = """begin {
      for ($i : 0..50) {
        for ($j : 0..50) {
          if ($i * 50 + $j == 120) { printf("%d %d", $i, $j); return }
        }
      }
      printf("never")
    }"""
    assert output(text, features) == "2 20"


def test_unroll_and_while() -> None:
    text = 'begin { $i = 0; unroll(3) { $i++ } while ($i < 7) { $i++ } printf("%d", $i) }'
    assert output(text) == "7"


def test_loop_over_a_map_sees_every_pair() -> None:
    text = """begin {
      @x[1, 2] = 10; @x[3, 4] = 20;
      $sum = 0;
      for ($kv : @x) { $sum += $kv.0.0 * 100 + $kv.0.1 + $kv.1 }
      printf("%d", $sum)
    }"""
    assert output(text) == "436"


def test_aggregates_print_what_they_collected() -> None:
    text = """begin {
      @c = count(); @s = sum(5); @s = sum(7);
      @mi = min(3); @mi = min(9); @ma = max(3); @ma = max(9);
      @a = avg(3); @a = avg(8);
    }"""
    outcome = run(text)
    assert [outcome.map(n)[None] for n in ("@c", "@s", "@mi", "@ma")] == [1, 12, 3, 9]


def test_an_aggregate_that_was_set_is_there_even_if_it_is_zero() -> None:
    outcome = run("begin { @sum = sum(0); if (pid == 0) { @count = count(); @hist = hist(1); } }")
    assert outcome.map("@sum") == {None: 0}
    assert outcome.map("@count") == outcome.map("@hist") == {}


def test_zero_keeps_an_aggregate_without_keys_and_clear_does_not() -> None:
    outcome = run(
        "begin { @a = count(); @b = count(); @h = hist(3); zero(@a); zero(@h); clear(@b) }"
    )
    assert outcome.map("@a") == {None: 0}
    assert outcome.map("@b") == {}
    assert outcome.map("@h") == {None: Histogram((), HistType())}


@pytest.mark.parametrize("function", ["count()", "hist(1)"])
def test_an_aggregate_without_keys_can_be_deleted(function: str) -> None:
    outcome = run(f'begin {{ @ = {function}; printf("%d", delete(@)); printf("%d", delete(@)) }}')
    assert outcome.text == "10"
    assert outcome.map("@") == {}


def test_an_aggregate_without_keys_is_changed_without_a_call_that_hashes() -> None:
    made = compiled("begin { @ = count(); @h = hist(5) }")
    kinds = {spec.name: spec.type for spec in made.maps}
    assert kinds["AT_"] == kinds["AT_h"] == MapType.PERCPU_ARRAY
    calls = [
        imm for op, imm in struct.iter_unpack("<BxxxI", made.programs[0].spec.insns) if op == 0x85
    ]
    assert calls == [Helper.map_lookup_elem, Helper.map_lookup_elem]


def test_histogram_without_keys_counts_buckets() -> None:
    outcome = run("begin { @ = hist(0); @ = hist(1); @ = hist(5); @ = hist(6); print(@) }")
    assert "[4, 8)                 2 |" in outcome.text


def test_events_that_find_the_ring_full_are_counted_for_the_probe() -> None:
    outcome = run('begin { printf("x"); printf("y") }', full=True)
    assert outcome.text == ""
    assert outcome.lost == {("event", "begin"): 2}


def test_updates_that_a_full_map_refuses_are_counted_for_the_map() -> None:
    outcome = run("let @x = hash(2); begin { @x[1] = 1; @x[2] = 1; @x[3] = 1; @x[1] = 5 }")
    assert outcome.map("@x") == {1: 5, 2: 1}
    assert outcome.lost[("map", "@x")] == 1


def test_objects_larger_than_the_bpf_stack_are_no_problem() -> None:
    names = [f"$s{n}" for n in range(8)]
    body = "".join(f'{name} = "text{n}"; ' for n, name in enumerate(names))
    compare = " && ".join(f'{name} == "text{n}"' for n, name in enumerate(names))
    grown = "".join(f'{name} = "{"y" * 300}"; {name} = "text{n}"; ' for n, name in enumerate(names))
    assert output(f'begin {{ {body}{grown} printf("%d", {compare}) }}') == "1"


def test_nested_tuples_with_strings_keep_their_values() -> None:
    text = 'begin { $t = (1, ("ab", (uint16)7, "x"), 9); print($t); @m[$t] = 1; print(@m) }'
    assert output(text) == "(1, (ab, 7, x), 9)\n@m[1, (ab, 7, x), 9]: 1\n"


def test_strncmp_of_different_strings_is_one() -> None:
    text = 'begin { printf("%d %d %d", strncmp("cow", comm, 17), strncmp("one", "one ", 4), ' + (
        'strncmp("cup", comm, 2)) }'
    )
    assert output(text) == "1 1 0"


def test_a_pointer_made_of_a_narrower_integer_has_its_bits() -> None:
    assert output("begin { print((uint8 *)-1); $x = (int32)-2; print((uint8 *)$x) }") == (
        "0xff\n0xfffffffe\n"
    )


def test_tseries_takes_its_time_from_a_map_where_it_is_told_to() -> None:
    config = Config(dummy_ts_map="@ts")
    text = "begin { @ts = (uint64)100; @a = tseries(7, 10, 5); @ts += 10; @a = tseries(8, 10, 5); }"
    (series,) = run(text, config=config).map("@a").values()
    assert isinstance(series, Series)
    assert [(point.start, point.value) for point in series.points] == [(100, 7), (110, 8)]
    assert series.absolute


def test_a_member_that_is_a_floating_point_number_has_no_value() -> None:
    definition = "union n { int i; float f; }; "
    text = f"{definition}begin {{ $x = (uint32)5; print(*(union n *)(&$x)) }}"
    assert output(text) == "{ .i = 5, .f =  }\n"
    with pytest.raises(ScriptError, match="Field 'f' of 'union n' has a type"):
        output(f"{definition}begin {{ print(((union n *)1).f) }}")


def test_memcmp_takes_a_length_that_is_known_only_at_run_time() -> None:
    text = 'begin { $s = "abcdef"; $n = (uint64)%d; print(memcmp($s, "abcxef", $n)); }'
    assert [output(text % n) for n in (0, 3, 4, 99)] == ["0\n", "0\n", "-20\n", "-20\n"]


def test_exit_ends_its_program_but_no_other() -> None:
    """Programs run until user space has read of the exit and has detached them."""
    outcome = run("begin { @x++; exit(); @y = 1; } begin { @z = 1 }", rounds=3)
    assert (outcome.map("@x"), outcome.map("@y"), outcome.map("@z")) == ({None: 3}, {}, {None: 1})


def test_a_timer_that_has_called_exit_fires_no_more_while_others_do() -> None:
    timer = ProbeContext("interval", "interval:ms:1", uapi.BPF_PROG_TYPE_PERF_EVENT)
    text = "interval:ms:1 { @x++; if (@x == 2) { exit(); } } interval:ms:1 { @z++ }"
    outcome = run(text, rounds=5, context=timer)
    assert (outcome.map("@x"), outcome.map("@z")) == ({None: 2}, {None: 1})
    outcome = run("interval:ms:1 { @x++; exit(); }", rounds=3, full=True, context=timer)
    assert outcome.map("@x") == {None: 3}  # nobody was told, so it has to be called again


def test_other_probes_go_on_after_their_exit_until_they_are_detached() -> None:
    function = ProbeContext("kprobe", "kprobe:f", uapi.BPF_PROG_TYPE_KPROBE)
    assert run("kprobe:f { @x++; exit(); }", rounds=3, context=function).map("@x") == {None: 3}


def test_the_first_exit_counts_and_tells_when_it_was() -> None:
    outcome = run("begin { exit(3) } begin { exit(4) }")
    assert outcome.runtime.exit_status == 3
    assert outcome.runtime.exit_ns == outcome.machine.mono_ns


def test_scratch_memory_too_large_for_a_cpus_share_has_an_element_for_each_cpu() -> None:
    text = "begin { @[str(1)] = str(1); for ($e : @) { print($e); } }"
    checked = kcap.compile(f"config = {{ max_strlen = 9999 }} {text}")
    for features, levels in ((Features(), 1), (Features(recursion_guard=False), 4)):
        (spec,) = (m for m in checked.generate(features).maps if m.name == SCRATCH)
        assert spec.type == MapType.ARRAY
        assert spec.value_size > PERCPU_LIMIT
        assert spec.max_entries == levels * (max(cpus.possible()) + 1)


def test_a_char_array_without_a_nul_keeps_its_last_character() -> None:
    script = """
        struct word { char s[4]; }
        begin {
          $n = (uint32)0x64636261;
          $w = (struct word *)&$n;
          $t = $w.s;
          @[$w.s] = $t;
          printf("%s %s %s|", $w.s, $t, str_concat($w.s, "!"));
          print(@["abcd"]);
          print(($w.s, 1));
        }
    """
    assert output(script) == "abcd abcd abcd!|abcd\n(abcd, 1)\n"


def test_bitfields_have_no_sign() -> None:
    script = """
        struct bits { int a : 4; int b : 12; short c; }
        begin { $n = (uint32)0xffff8ff9; $b = (struct bits *)&$n; print(($b.a, $b.b, $b.c)); }
    """
    assert output(script) == "(9, 2303, -1)\n"


@pytest.mark.parametrize(
    ("key", "wanted"), [("(uint8)200", 200), ("(int8)-3", -3), ("(int32)-7", -7), ("pid", 4242)]
)
def test_a_scalar_key_is_extended_to_a_word_and_read_back_as_it_was(key: str, wanted: int) -> None:
    outcome = run(f"begin {{ @a[{key}] = 1; @b[{key}] = count(); @h[{key}] = hist(1); }}")
    assert {spec.name: spec.key_size for spec in outcome.compiled.maps if "AT_" in spec.name} == {
        "AT_a": 8, "AT_b": 8, "AT_h": 8
    }  # fmt: skip
    assert [list(outcome.map(name)) for name in ("@a", "@b", "@h")] == [[wanted]] * 3


def test_a_loop_sees_narrow_keys_as_they_are() -> None:
    text = 'begin { @[(int8)-3] = 1; for ($kv : @) { printf("%d", $kv.0) } delete(@, (int8)-3); }'
    assert run(text).text == "-3"
    assert run(text).map("@") == {}


@pytest.mark.parametrize(("limit", "scratch"), [(0, True), (32, True), (512, False)])
def test_objects_up_to_the_limit_are_on_the_stack_and_print_the_same(
    limit: int, scratch: bool
) -> None:
    script = """begin {
        $t = (1, (2, "XXXX"), "longer than thirty-two bytes, by far");
        @s["a"] = $t;
        print(@s["a"]);
        for ($i : 0..2) { print(($i, "abc")); }
    }"""
    config = Config(on_stack_limit=limit)
    assert run(script, config=config).text == (
        "(1, (2, XXXX), longer than thirty-two bytes, by far)\n(0, abc)\n(1, abc)\n"
    )
    assert any(map_.name == SCRATCH for map_ in compiled(script, config=config).maps) == scratch


def test_a_range_that_is_known_to_be_empty_has_no_callback() -> None:
    (program,) = compiled("begin { $n = 0; for ($i : 0..$n) { @x += $i; } }").programs
    assert len(program.spec.functions) == 1
    assert output(
        "begin { for ($i : pid..4242) { print(1); } for ($i : pid..4243) { print($i); } }"
    ) == ("4242\n")
