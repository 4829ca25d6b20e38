# SPDX-License-Identifier: Apache-2.0
"""Maps: keys, values, aggregates, declarations, loops over them."""

from __future__ import annotations

from kcap.sema import tree
from unit.sema.sema_support import body, check, error, errors, warnings, where


def test_keys_and_values_grow() -> None:
    result = body('@x[1, "hi"] = 1; @x[1000, "hello"] = -1000;')
    assert result.maps == {"@x": ("(int16,string[6])", "int16")}


def test_a_key_of_one_part_is_not_a_tuple() -> None:
    assert body("@x[pid] = nsecs;").maps == {"@x": ("uint64", "uint64")}


def test_maps_know_each_other_across_probes() -> None:
    result = check("begin { $a = @x; } begin { @x = @y[1]; } begin { @y[1] = (uint16)1; }")
    assert result.maps == {"@x": (None, "uint16"), "@y": ("int8", "uint16")}
    assert result.variables == {"$a": "uint16"}


def test_a_map_that_is_only_counted_up_starts_as_an_integer() -> None:
    assert body("@++; @a[1] += 2; $r = @never[1];").maps == {
        "@": (None, "int64"),
        "@a": ("int8", "int64"),
        "@never": ("int8", "int8"),
    }


def test_what_is_computed_from_a_map_that_is_only_counted_up_has_its_own_type() -> None:
    assert body('@x++; @z = (@x, "a");').maps == {
        "@x": (None, "int64"),
        "@z": (None, "(int64,string[2])"),
    }


def test_maps_that_are_only_computed_from_each_other_are_integers() -> None:
    assert body("@x = @y; @y = @x;").maps == {"@x": (None, "int8"), "@y": (None, "int8")}


def test_aggregates_become_the_type_of_the_map() -> None:
    result = body("@c[pid] = count(); @s = hist();")
    assert result.maps == {"@c": ("uint64", "count_t"), "@s": (None, "hist_t")}
    first = result.script.programs[0].body[0]
    assert isinstance(first, tree.UpdateAggregate)
    assert result.script.maps["@c"].per_cpu


def test_aggregates_are_read_as_the_integer_they_stand_for() -> None:
    result = body("@c = count(); $a = @c; if (@c > 5) { } @b = 0; @b = @c;")
    assert result.variables == {"$a": "int64"}
    assert result.maps["@b"] == (None, "int64")


def test_an_aggregate_is_not_copied_to_a_map_without_a_type() -> None:
    found = error("@c = count(); @b = @c;")
    assert found.code == "aggregate-copy"
    assert "`@b = (int64)@c;`" in found.help[0]
    assert error("@h = hist(); $x = @h;").code == "no-value"
    assert error("@c = count(); @c = 5;").code == "type-mismatch"
    assert error("@c = count(); @c = hist();").code == "type-mismatch"
    assert error("count();").title == "count() should be assigned to a map"


def test_keys_of_another_type_are_refused() -> None:
    found = error('@g[1, "hi"] = 2; if (has_key(@g, (1, 2))) { }')
    assert found.title == (
        "Argument mismatch for @g: trying to access with arguments: '(int8,int8)' when map "
        "expects arguments: '(int8,string[3])'"
    )
    assert where(found) == "(1, 2)"


def test_a_map_has_keys_or_it_has_none() -> None:
    found = error("@a = 1; @a[1] = 2;")
    assert found.code == "map-key-use"
    assert found.title.startswith("@a used as a map with an explicit key (non-scalar map)")
    assert found.labels[0].span.text == "@a"


def test_a_map_that_nothing_sets_is_an_error_when_it_is_printed() -> None:
    found = error("print(@nothing);")
    assert found.title == "Undefined map: @nothing"
    assert where(found) == "@nothing"


def test_pointers_that_come_out_of_a_map_are_not_tracked() -> None:
    result = check("fentry:ip_rcv { @p = args.skb; $q = @p; }")
    last = result.script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    assert str(last.variable.type) == "struct sk_buff *"
    assert not last.variable.type.tracked  # type: ignore[attr-defined]


def test_declared_maps_have_a_kind_and_a_size() -> None:
    result = check("let @a = lruhash(100); begin { @a[1] = 2; @b = 1; }")
    assert (result.script.maps["@a"].kind, result.script.maps["@a"].max_entries) == ("lruhash", 100)
    assert (result.script.maps["@b"].kind, result.script.maps["@b"].max_entries) == ("", 4096)


def test_bad_declarations_are_errors() -> None:
    assert error("let @a = foohash(100); begin { @a[1] = 1; }").code == "unknown-map-kind"
    assert error("let @a = hash(pid); begin { @a[1] = 1; }").code == "map-entries"
    assert error("let @a = hash(1); let @a = hash(2); begin { @a[1] = 1; }").code == (
        "map-redeclared"
    )
    assert error("let @a = hash(10); begin { @a[1] = count(); }").code == "map-kind"
    script = check("let @a = hash(10); begin { }").script
    assert [w.title for w in script.warnings] == ["Unused map: @a"]
    assert script.maps == {}


def test_a_loop_over_a_map_has_key_and_value() -> None:
    result = body('@x[1, "a"] = (uint16)1; for ($kv : @x) { $k = $kv.0.1; $v = $kv.1; }')
    assert result.variables == {
        "$kv": "((int8,string[2]),uint16)",
        "$k": "string[2]",
        "$v": "uint16",
    }
    result = body("@c[1] = count(); for ($kv : @c) { $v = $kv.1; }")
    assert result.variables["$v"] == "int64"


def test_a_loop_needs_keys() -> None:
    found = error("@x = 1; for ($kv : @x) { }")
    assert found.title == ("@x has no explicit keys (scalar map), and cannot be used for iteration")
    assert [e.code for e in errors("for ($kv : @undefined) { }")] == ["undefined-map"]


def test_signs_that_may_change_are_warned_of() -> None:
    assert warnings("@c = (uint64)1; $d = (int64)-1; @c = $d;") == [
        "implicit cast from 'uint64' to 'int64' may change the value's sign"
    ]
