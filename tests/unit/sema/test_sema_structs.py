# SPDX-License-Identifier: Apache-2.0
"""Structs, pointers, casts, address spaces, and which pointers the verifier vouches for."""

from __future__ import annotations

import pytest

from kcap.sema import tree
from kcap.sema.types import Pointer, Type
from unit.sema.sema_support import check, error, where

CAST = "$p = (struct sk_buff *)arg0;"


def kprobe(text: str) -> dict[str, str]:
    return check(f"kprobe:f {{ {text} }}").variables


def variable(script: str) -> Type:
    last = check(script).script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    return last.variable.type


def test_dot_and_arrow_are_the_same_and_follow_pointers() -> None:
    found = kprobe(f"{CAST} $a = $p.len; $b = $p->len; $c = $p->next->next.sk_dev->id;")
    assert found == {"$p": "struct sk_buff *", "$a": "uint32", "$b": "uint32", "$c": "uint64"}


def test_members_of_anonymous_unions_and_nested_structs() -> None:
    assert kprobe(f"{CAST} $a = $p.cookie; $b = $p.pair.b; $c = $p.pair;") == {
        "$p": "struct sk_buff *",
        "$a": "uint64",
        "$b": "uint16",
        "$c": "struct pair",
    }


def test_bit_fields_say_where_their_bits_are() -> None:
    last = check(f"kprobe:f {{ {CAST} $a = $p.ip_summed; }}").script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    access = last.value
    assert isinstance(access, tree.FieldAccess)
    field = access.field
    assert (field.offset, field.bit_shift, field.bit_size, str(field.type)) == (28, 5, 2, "uint8")


def test_char_arrays_are_strings_when_read() -> None:
    assert kprobe(f"{CAST} $n = $p.sk_dev.name; $s = sizeof($p.sk_dev.name);")["$n"] == "string[16]"
    assert kprobe(f"{CAST} $a = $p.addr; $b = $p.addr[3];") == {
        "$p": "struct sk_buff *",
        "$a": "uint8[4]",
        "$b": "uint8",
    }


def test_constant_indices_are_checked() -> None:
    found = error(f"kprobe:f {{ {CAST} $b = $p.addr[4]; }}")
    assert found.title == "the index 4 is out of bounds for array of size 4"
    assert where(found) == "4"


def test_flexible_arrays_have_no_bound() -> None:
    assert kprobe(f"{CAST} $b = $p.tail[100];")["$b"] == "uint32"


def test_an_unknown_field_suggests_near_names() -> None:
    found = error(f"kprobe:f {{ {CAST} $b = $p->pkt_typ; }}")
    assert found.code == "unknown-field"
    assert found.title == (
        "Struct/union of type 'struct sk_buff' does not contain a field named 'pkt_typ'"
    )
    assert where(found) == "pkt_typ"
    assert found.edits[0].replacement == "pkt_type"


def test_fields_of_integers_need_a_cast() -> None:
    found = error("kprobe:f { $a = arg0.len; }")
    assert found.title == "Can not access field 'len' on expression of type 'uint64'"
    assert found.help == ("say what it points to: ((struct NAME *)arg0).len",)


def test_unknown_types_are_found_with_a_suggestion() -> None:
    found = error("kprobe:f { $a = (struct sk_buf *)arg0; }")
    assert found.title == 'Cannot resolve unknown type "struct sk_buf"'
    assert found.edits[0].replacement == "struct sk_buff"


def test_args_of_tracing_programs_are_tracked_through_struct_members() -> None:
    def tracked(expression: str) -> bool:
        found = variable(f"fentry:ip_rcv {{ $x = {expression}; }}")
        assert isinstance(found, Pointer)
        return found.tracked

    assert tracked("args.skb")
    assert tracked("args->skb->next->next")
    assert tracked("args.skb.sk_dev")
    assert not tracked("args.skb.dev")  # a union
    assert not tracked("args.skb + 1")
    assert not tracked("(struct net_device *)args.skb")
    assert not tracked("(struct sk_buff *)(uint64)args.skb")
    assert tracked("(struct sk_buff *)args.skb")
    assert tracked("args.n ? args.skb : args.skb.next")


def test_a_variable_stays_tracked_only_if_all_that_is_assigned_is() -> None:
    both = "fentry:ip_rcv { $x = args.skb; $x = $x.next; $y = $x; }"
    assert variable(both).tracked  # type: ignore[attr-defined]
    mixed = "fentry:ip_rcv { $x = args.skb; $x = (struct sk_buff *)1; $y = $x; }"
    assert not variable(mixed).tracked  # type: ignore[attr-defined]
    late = "fentry:ip_rcv { let $x; if (args.n) { $x = args.skb; } $y = $x; }"
    assert not variable(late).tracked  # type: ignore[attr-defined]


def test_args_elsewhere_say_why_there_are_none() -> None:
    found = error("kprobe:f { $a = args.skb; }")
    assert (found.code, found.title) == ("no-args", "args is not available in kprobe probes")
    found = error("fentry:ip_rcv { $a = args.sbk; }")
    assert found.title == "Can't find function parameter sbk"
    assert found.notes == ("fentry_ip_rcv has skb, dev, n",)


def test_address_spaces_follow_the_probe_the_cast_and_the_tag() -> None:
    def space(script: str) -> str:
        found = variable(script)
        assert isinstance(found, Pointer)
        return found.space

    assert space("kprobe:f { $x = (struct sk_buff *)arg0; }") == "kernel"
    assert space("uprobe:f { $x = (struct sk_buff *)arg0; }") == "user"
    assert space("uprobe:f { $x = ((struct sk_buff *)arg0).sk_dev; }") == "user"
    assert space("kprobe:f { $x = ((struct sk_buff *)arg0).user; }") == "user"
    assert space("kprobe:f { $x = ((struct sk_buff *)arg0).sk_dev; }") == "kernel"
    assert space("kprobe:f { $v = 1; $x = &$v; }") == "bpf"


@pytest.mark.parametrize(
    ("expression", "type_"),
    [
        ("(uint8)arg0", "uint8"),
        ("(int8[8])12345", "int8[8]"),
        ("(int8[])12345", "int8[2]"),
        ("(bool[2])(uint16)1", "bool[2]"),
        ('(int8[])"hello"', "int8[6]"),
        ("(uint32)$p.addr", "uint32"),
        ("(uint64_t)1", "uint64"),
        ("(bool)arg0", "bool"),
        ("(string[64])comm", "string[64]"),
        ("(enum colour)7", "enum colour"),
        ("(uint8 *)arg0", "uint8 *"),
        ("(struct sk_buff **)arg0", "struct sk_buff **"),
        ("*(uint16 *)arg0", "uint16"),
        ("((struct net_device *)arg0)[1].id", "uint64"),
        ("**(int32 **)arg0", "int32"),
        ("(__be32)1", "uint32"),
    ],
)
def test_casts(expression: str, type_: str) -> None:
    assert kprobe(f"{CAST} $x = {expression};")["$x"] == type_


@pytest.mark.parametrize(
    "expression",
    [
        "(struct sk_buff)arg0",
        '(uint64)"hello"',
        "(uint16)$p.addr",
        "(int8[3])12345",
        "(string[4])comm",
        "(uint8)*$p",
        "(string[8])arg0",
    ],
)
def test_casts_that_make_no_sense(expression: str) -> None:
    found = error(f"kprobe:f {{ {CAST} $x = {expression}; }}")
    assert found.code == "invalid-cast"
    assert where(found) == expression


@pytest.mark.parametrize(
    ("cast", "call"),
    [
        ("(string[64])arg0", "str(arg0, 64)"),
        ("(string)arg0", "str(arg0)"),
        ("(buffer[16])$p", "buf($p, 16)"),
    ],
)
def test_a_cast_of_an_address_to_text_is_mended_to_a_read(cast: str, call: str) -> None:
    (edit,) = error(f"kprobe:f {{ {CAST} $x = {cast}; }}").edits
    assert (edit.span.text, edit.replacement) == (cast, call)


def test_enums() -> None:
    assert kprobe("$c = GREEN; $d = BLUE == 7;") == {"$c": "enum colour", "$d": "bool"}
    found = error("kprobe:f { $x = (enum colour)9; }")
    assert found.title == "Enum: colour doesn't contain a variant value of 9"
    assert error("kprobe:f { $x = GREN; }").code == "unknown-identifier"


def test_pointer_arithmetic_counts_in_what_is_pointed_to() -> None:
    last = check("kprobe:f { $x = (int32 *)arg0 - 5; }").script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    assert isinstance(last.value, tree.PointerOffset)
    assert isinstance(last.value.index, tree.IntegerLiteral)
    assert last.value.index.value == -5
    assert error("kprobe:f { $x = 5 - (int32 *)arg0; }").code == "invalid-operands"
    assert error("kprobe:f { $x = (int32 *)arg0 * 2; }").code == "invalid-operands"
    assert kprobe("$x = (int32 *)arg0; $y = 0x32 < $x; $x++;") == {"$x": "int32 *", "$y": "bool"}


def test_pointers_of_other_types_are_not_assigned_to_one_variable() -> None:
    found = error(f"kprobe:f {{ {CAST} $p = (struct net_device *)arg0; }}")
    assert found.code == "type-mismatch"


def test_offsetof() -> None:
    last = check("kprobe:f { $o = offsetof(struct sk_buff, pair.b); }").script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    assert isinstance(last.value, tree.IntegerLiteral)
    assert last.value.value == 36
    assert error("kprobe:f { $o = offsetof(struct sk_buff, nope); }").code == "unknown-field"
