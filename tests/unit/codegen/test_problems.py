# SPDX-License-Identifier: Apache-2.0
"""What a running program says of things that go wrong in it."""

from __future__ import annotations

from unit.codegen.script_machine import run

OUT_OF_BOUNDS = "WARNING: Array access out of bounds. This can lead to unexpected results.\n"


def test_an_index_out_of_range_is_reported_with_its_place_and_reads_zero() -> None:
    text = 'begin { $a = (int8[8])12345; $i = pid - 4200; printf("%d", $a[$i]) }'
    outcome = run(text)
    assert outcome.text == "0"
    assert outcome.messages == [f"test:1:60-66: {OUT_OF_BOUNDS}{text}\n{' ' * 59}~~~~~~\n"]


def test_an_index_in_range_is_not_reported() -> None:
    assert run("begin { $a = (int8[8])12345; $i = pid - 4242; print($a[$i]) }").messages == []


def test_a_missing_key_is_reported_only_where_helper_errors_are_asked_for() -> None:
    text = 'begin { @x[1] = 2; printf("%d", @x[7]) }'
    assert run(text).messages == []
    (message,) = run(text, helper_errors=True).messages
    assert message.splitlines()[:2] == [
        "test:1:33-38: WARNING: Can't lookup map element because it does not exist.",
        "Additional Info - helper: map_lookup_elem, retcode: 0",
    ]


def test_a_failed_read_is_reported_at_the_pointer_that_was_followed() -> None:
    text = "struct s { int a; } begin { $x = ((struct s *)16).a; print($x) }"
    outcome = run(text, helper_errors=True)
    assert outcome.text == "0\n"
    (message,) = outcome.messages
    assert message.splitlines()[:2] == [
        "test:1:35-49: WARNING: Bad address",
        "Additional Info - helper: probe_read_kernel, retcode: -14",
    ]


def test_a_failed_assertion_is_said_with_the_macro_and_the_call() -> None:
    outcome = run('begin { assert(pid == 1, "not init"); print(1) }')
    assert outcome.text == ""
    lines = outcome.messages[0].splitlines()
    assert lines[0] == "stdlib/base.bt:6:5-37: ERROR: assert failed: not init"
    assert lines[1] == "test:1:9-37: ERROR: expanded from"
    assert outcome.runtime.exit_status == 1
