# SPDX-License-Identifier: Apache-2.0
"""Reading BTF: a small frozen blob made by the builder, read back."""

from __future__ import annotations

import pytest

from kcap import btf as b
from kcap.btf import render
from kcap.btf.build import BtfBuilder, func_info, functions_btf
from kcap.btf.signatures import Signatures


def sample() -> b.Btf:
    """A small kernel: skb with anonymous union and bit-fields, functions, a tracepoint, enums."""
    w = BtfBuilder()
    u32 = w.integer("unsigned int", 4)
    char = w.integer("char", 1, 1)
    u8 = w.modifier(b.Typedef, w.integer("unsigned char", 1), "u8")
    dev = w.forward("net_device")
    pdev = w.pointer(dev)
    inner = w.union("", 8, [b.Member("dev", pdev, 0), b.Member("dev_scratch", u32, 0)])
    cb = w.array(char, u32, 48)
    skb = w.struct(
        "sk_buff",
        64,
        [
            b.Member("", inner, 0),
            b.Member("cb", cb, 64),
            b.Member("cloned", u8, 448, 1),
            b.Member("fclone", u8, 449, 2),
            b.Member("len", u32, 480),
        ],
    )
    pskb = w.pointer(skb)
    pcchar = w.pointer(w.modifier(b.Const, char))
    proto = w.func_proto(u32, [b.Param("skb", pskb), b.Param("name", pcchar)])
    w.func("ip_rcv", proto, 0)
    void_p = w.pointer(0)
    anon = w.func_proto(0, [b.Param("", void_p), b.Param("", pskb)])
    w.modifier(b.Typedef, w.pointer(anon), "btf_trace_kfree_skb")
    named = w.func_proto(u32, [b.Param("__data", void_p), b.Param("skb", pskb)])
    w.func("__traceiter_kfree_skb", named)
    w.enum("reason", [("R_NONE", 0), ("R_HIGH", 0xFFFFFFFF)])
    w.enum("signed_one", [("S_MINUS", -2)], signed=True)
    w.enum("big", [("B_TOP", 1 << 40), ("B_MINUS", -1)], size=8, signed=True)
    w.func_proto(u32, [b.Param("fmt", pcchar), b.Param("", 0)])
    w.pointer(w.modifier(b.TypeTag, char, "user"))
    w.var("jiffies", w.modifier(b.Volatile, u32), 1)
    w.floating("double", 8)
    w.decl_tag("kfunc", 14)
    w.datasec(".data", 16, [(28, 4, 8)])
    w.pointer(w.modifier(b.Const, w.modifier(b.Restrict, pskb)))
    return b.Btf.from_bytes(w.to_bytes(), name="sample")


@pytest.fixture(scope="module")
def btf() -> b.Btf:
    return sample()


def test_finds_a_struct_by_name_and_gives_its_members(btf: b.Btf) -> None:
    skb = btf.get("sk_buff", b.Struct)
    assert (skb.id, skb.size) == (9, 64)
    assert [(m.name, m.bit_offset, m.bitfield_size) for m in skb.members] == [
        ("", 0, 0),
        ("cb", 64, 0),
        ("cloned", 448, 1),
        ("fclone", 449, 2),
        ("len", 480, 0),
    ]


def test_a_member_is_found_in_an_anonymous_union(btf: b.Btf) -> None:
    found = b.find_member(btf, btf.get("sk_buff", b.Struct), "dev_scratch")
    assert found is not None
    assert (found.offset, found.member.type_id, type(found.parent)) == (0, 1, b.Union)


def test_a_member_that_does_not_exist_is_none(btf: b.Btf) -> None:
    assert b.find_member(btf, btf.get("sk_buff", b.Struct), "lenn") is None


def test_member_names_look_through_anonymous_members(btf: b.Btf) -> None:
    names = b.member_names(btf, btf.get("sk_buff", b.Struct))
    assert names == ["dev", "dev_scratch", "cb", "cloned", "fclone", "len"]


def test_find_tells_kinds_apart(btf: b.Btf) -> None:
    assert btf.find("sk_buff", b.Union) is None
    assert btf.find("sk_buff", b.Func) is None
    assert btf.find("sk_buff", b.Composite) is btf.find("sk_buff", b.Struct)
    assert btf.find("net_device", b.Fwd) is not None
    assert btf.find("no_such_name", b.Type) is None
    assert btf.find("", b.Type) is None


def test_get_says_what_is_missing(btf: b.Btf) -> None:
    with pytest.raises(b.BtfError, match="sample has no struct no_such"):
        btf.get("no_such", b.Struct)


@pytest.mark.parametrize(
    ("constant", "enum", "value"),
    [
        ("R_NONE", "reason", 0),
        ("R_HIGH", "reason", 0xFFFFFFFF),
        ("S_MINUS", "signed_one", -2),
        ("B_TOP", "big", 1 << 40),
        ("B_MINUS", "big", -1),
    ],
)
def test_an_enum_constant_has_its_value(btf: b.Btf, constant: str, enum: str, value: int) -> None:
    found = btf.enum_value(constant)
    assert found is not None
    assert (found[0].name, found[1]) == (enum, value)


def test_a_name_that_is_no_constant_has_no_enum_value(btf: b.Btf) -> None:
    assert btf.enum_value("sk_buff") is None
    assert btf.enum_value("absent") is None


def test_before_the_sign_was_recorded_enum_values_are_signed() -> None:
    w = BtfBuilder()
    w.enum("old", [("MINUS_ONE", -1)])
    found = b.Btf.from_bytes(w.to_bytes()).enum_value("MINUS_ONE")
    assert found is not None
    assert found[1] == -1


def test_what_has_no_name_is_not_found_by_that_however_often_names_are_asked_for() -> None:
    w = BtfBuilder()
    w.struct("", 8, [])
    named = w.struct("named", 8, [])
    btf = b.Btf.from_bytes(w.to_bytes())
    for _ in range(100):  # the first few are found in another way than many are
        assert btf.find("", b.Struct) is None
        assert btf.get("named", b.Struct).id == named


def test_functions_are_listed_with_ids_and_have_prototypes(btf: b.Btf) -> None:
    listed = {name: i for i, name in btf.functions()}
    assert list(listed) == ["ip_rcv", "__traceiter_kfree_skb"]
    proto = btf.prototype(btf.get("ip_rcv", b.Func))
    assert [(p.name, p.type_id) for p in proto.params] == [("skb", 10), ("name", 12)]
    assert proto.variadic is False


def test_an_ellipsis_is_no_parameter(btf: b.Btf) -> None:
    protos = [btf.type(i) for i in range(1, btf.end_id) if btf.kind(i) == b.FuncProto.KIND]
    variadic = [p for p in protos if isinstance(p, b.FuncProto) and p.variadic]
    assert [[p.name for p in v.params] for v in variadic] == [["fmt"]]


def test_a_tracepoint_gets_its_names_from_traceiter(btf: b.Btf) -> None:
    proto = b.tracepoint_prototype(btf, "kfree_skb")
    assert proto is not None
    assert [(p.name, p.type_id) for p in proto.params] == [("skb", 10)]
    assert b.tracepoint_prototype(btf, "absent") is None


def test_sizes_see_through_typedefs_arrays_and_qualifiers(btf: b.Btf) -> None:
    skb = btf.get("sk_buff", b.Struct)
    sizes = {m.name: b.size_of(btf, m.type_id) for m in skb.members}
    assert sizes == {"": 8, "cb": 48, "cloned": 1, "fclone": 1, "len": 4}
    assert b.size_of(btf, btf.get("jiffies", b.Var).id) == 4


def test_void_and_functions_have_no_size(btf: b.Btf) -> None:
    with pytest.raises(b.BtfError, match="has no size"):
        b.size_of(btf, 0)
    with pytest.raises(b.BtfError, match="Func ip_rcv has no size"):
        b.size_of(btf, btf.get("ip_rcv", b.Func).id)


def test_type_tags_stand_on_the_target_of_the_pointer(btf: b.Btf) -> None:
    tagged = next(i for i in range(1, btf.end_id) if btf.kind(i) == b.TypeTag.KIND)
    pointer = btf.type(tagged + 1)
    assert isinstance(pointer, b.Ptr)
    assert b.type_tags(btf, pointer.type_id) == ("user",)
    assert render.type_name(btf, pointer.id) == "char *"


def test_rarer_kinds_are_read(btf: b.Btf) -> None:
    double = btf.get("double", b.Float)
    tag = btf.get("kfunc", b.DeclTag)
    section = btf.get(".data", b.Datasec)
    assert (double.size, tag.type_id, tag.component) == (8, 14, -1)
    assert (section.size, section.variables) == (16, ((28, 4, 8),))


def test_c_of_a_signature(btf: b.Btf) -> None:
    text = render.signature(btf, btf.get("ip_rcv", b.Func))
    assert text == "unsigned int ip_rcv(struct sk_buff *skb, const char *name)"


def test_c_of_a_pointer_to_a_function(btf: b.Btf) -> None:
    typedef = btf.get("btf_trace_kfree_skb", b.Typedef)
    text = render.declaration(btf, typedef.type_id, "handler")
    assert text == "void (*handler)(void *, struct sk_buff *)"


def test_c_of_a_qualified_pointer() -> None:
    w = BtfBuilder()
    char = w.integer("char", 1)
    pointer = w.modifier(b.Const, w.pointer(w.modifier(b.Const, char)))
    array = w.pointer(w.array(char, char, 6))
    btf = b.Btf.from_bytes(w.to_bytes())
    assert render.declaration(btf, pointer, "p") == "const char *const p"
    assert render.type_name(btf, pointer) == "const char *const"
    assert render.declaration(btf, array, "a") == "char (*a)[6]"


def test_c_of_a_layout_indents_anonymous_members(btf: b.Btf) -> None:
    assert render.layout(btf, btf.get("sk_buff", b.Struct)) == (
        "struct sk_buff {\n"
        "\tunion {\n"
        "\t\tstruct net_device *dev;\n"
        "\t\tunsigned int dev_scratch;\n"
        "\t};\n"
        "\tchar cb[48];\n"
        "\tu8 cloned: 1;\n"
        "\tu8 fclone: 2;\n"
        "\tunsigned int len;\n"
        "};"
    )


def test_c_of_an_enum(btf: b.Btf) -> None:
    text = render.layout(btf, btf.get("reason", b.Enum))
    assert text == "enum reason {\n\tR_NONE = 0,\n\tR_HIGH = 4294967295,\n};"


def test_an_argument_is_printed_as_bpftrace_lists_it(btf: b.Btf) -> None:
    proto = btf.prototype(btf.get("ip_rcv", b.Func))
    texts = [render.parameter(btf, p) for p in proto.params]
    assert texts == ["struct sk_buff * skb", "const char * name"]


def test_arguments_of_many_functions_are_those_of_their_prototypes() -> None:
    w = BtfBuilder()
    int_ = w.integer("int", 4, 1)
    sock = w.pointer(w.struct("sock", 8, []))
    both = [b.Param("sk", sock), b.Param("", int_)]
    with_result = w.func("tcp_close", w.func_proto(int_, both))
    ellipsis = w.func("printk", w.func_proto(0, [b.Param("level", int_), b.Param("", 0)]))
    nothing = w.func("rcu_read", w.func_proto(0, []))
    base = b.Btf.from_bytes(w.to_bytes())
    listed = Signatures(base)
    assert listed.parameters(with_result) == ("struct sock * sk", "int")
    assert listed.parameters(with_result, returned=True)[2:] == ("int retval",)
    assert listed.parameters(ellipsis, returned=True) == ("int level",)
    assert listed.parameters(nothing, returned=True) == ()
    module = BtfBuilder(base.end_id, base.end_string)
    its = module.func("nf_close", base.get("tcp_close", b.Func).type_id)  # a prototype of the base
    split = Signatures(b.Btf.from_bytes(module.to_bytes(), base=base))
    assert split.parameters(its) == ("struct sock * sk", "int")


def test_types_of_many_arguments_are_written_as_those_of_one(btf: b.Btf) -> None:
    w = BtfBuilder()
    long_ = w.integer("long", 8, 1)
    sock = w.struct("sock", 8, [])
    pointer = w.pointer(w.modifier(b.Const, sock))
    const_pointer = w.modifier(b.Const, pointer)
    callback = w.pointer(w.func_proto(long_, [b.Param("sk", pointer)]))
    array = w.array(long_, long_, 4)
    types = [
        long_, pointer, w.pointer(pointer), const_pointer, w.pointer(const_pointer), callback,
        w.pointer(callback), w.modifier(b.Const, callback), w.pointer(array), w.pointer(0),
        w.pointer(w.modifier(b.Const, 0)), w.pointer(w.struct("", 4, [])),
        w.pointer(w.modifier(b.TypeTag, sock, "user")), w.modifier(b.Const, array),
    ]  # fmt: skip
    function = w.func("f", w.func_proto(0, [b.Param("", each) for each in types]))
    made = b.Btf.from_bytes(w.to_bytes())
    assert Signatures(made).parameters(function) == tuple(
        render.type_name(made, each) for each in types
    )


def test_split_btf_continues_ids_and_strings_of_its_base(btf: b.Btf) -> None:
    w = BtfBuilder(btf.end_id, btf.end_string)
    skb = btf.get("sk_buff", b.Struct)
    pointer = w.pointer(skb.id)
    w.struct("nft_pktinfo", 16, [b.Member("skb", pointer, 0)])
    module = b.Btf.from_bytes(w.to_bytes(), base=btf, name="nf_tables")
    info = module.get("nft_pktinfo", b.Struct)
    assert (info.id, module.first_id) == (btf.end_id + 1, btf.end_id)
    assert render.declaration(module, info.members[0].type_id, "skb") == "struct sk_buff *skb"
    assert module.find("sk_buff", b.Struct) is skb
    assert module.enum_value("S_MINUS") is not None
    assert list(module.functions()) == []


def test_a_split_btf_type_may_take_its_name_from_the_base(btf: b.Btf) -> None:
    w = BtfBuilder(btf.end_id, btf.end_string)
    w._offsets["jiffies"] = btf._string_offset("jiffies")
    w.struct("jiffies", 4, [])
    module = b.Btf.from_bytes(w.to_bytes(), base=btf)
    found = module.find("jiffies", b.Struct)
    assert found is not None
    assert found.id == btf.end_id


@pytest.mark.parametrize("cut", [0, 10, 24, 60])
def test_cut_short_btf_is_an_error(cut: int) -> None:
    with pytest.raises(b.BtfError):
        b.Btf.from_bytes(functions_btf(["probe", "callback"])[0][:cut])


def test_other_bytes_are_no_btf() -> None:
    with pytest.raises(b.BtfError, match=r"no BTF \(magic 0x457f"):
        b.Btf.from_bytes(b"\x7fELF" + bytes(60))


def test_an_unknown_kind_is_an_error_with_a_hint() -> None:
    w = BtfBuilder()
    w._add(25, "future", 0, 0)
    with pytest.raises(b.BtfError, match="kind 25") as caught:
        b.Btf.from_bytes(w.to_bytes())
    assert caught.value.hint is not None


def test_an_id_behind_the_last_is_an_error(btf: b.Btf) -> None:
    with pytest.raises(b.BtfError, match=f"no type with id {btf.end_id}"):
        btf.type(btf.end_id)


def test_a_module_name_is_not_a_path(btf: b.Btf) -> None:
    with pytest.raises(b.BtfNotFoundError, match="not the name of a kernel module"):
        b.Btf.module("../../etc/passwd", btf)


def test_btf_for_func_info_is_small_and_names_the_functions() -> None:
    blob, ids = functions_btf(["probe_1", "callback"])
    btf = b.Btf.from_bytes(blob)
    assert len(blob) < 250
    assert ids == [6, 7]
    assert [(f.name, f.linkage) for i in ids if isinstance(f := btf.type(i), b.Func)] == [
        ("probe_1", 0),
        ("callback", 0),
    ]
    protos = [btf.prototype(f) for i in ids if isinstance(f := btf.type(i), b.Func)]
    assert [len(proto.params) for proto in protos] == [1, 5]  # the context; as many as there can be
    # The kernel refuses functions whose parameters have no names.
    assert all(param.name for proto in protos for param in proto.params)
    assert func_info([(0, 3), (12, 4)]).hex() == "00000000030000000c00000004000000"


def test_types_are_found_alike_by_searching_and_by_the_index_of_many_searches() -> None:
    w = BtfBuilder()
    number = w.integer("int", 4, 1)
    proto = w.func_proto(number, [])
    for n in range(60):
        w.func(f"f{n}", proto)
        w.modifier(b.Typedef, number, f"f{n}")
    blob = b.Btf(w.to_bytes())
    searched = [blob.get(f"f{n}", b.Func).id for n in range(30)]
    for n in range(60):
        assert blob.get(f"f{n}", b.Typedef).id == blob.get(f"f{n}", b.Func).id + 1
    assert [blob.get(f"f{n}", b.Func).id for n in range(30)] == searched
    assert blob.find("f60", b.Func) is None
    assert blob.find("f1", b.Struct) is None


def test_functions_are_found_by_what_they_take() -> None:
    w = BtfBuilder()
    number = w.integer("int", 4)
    skb = w.struct("sk_buff", 8, [])
    alias = w.modifier(b.Typedef, w.pointer(w.modifier(b.Const, skb)), "packet_t")
    second = w.func_proto(number, [b.Param("n", number), b.Param("skb", w.pointer(skb))])
    named = w.func_proto(number, [b.Param("p", alias), b.Param("q", w.pointer(skb))])
    other = w.func_proto(number, [b.Param("skb", w.pointer(w.pointer(skb)))])
    for name, proto in (("second", second), ("named", named), ("other", other)):
        w.func(name, proto)
    small = b.Btf.from_bytes(w.to_bytes(), name="small")
    taking = small.prototypes_taking("sk_buff")
    assert taking == {second: 1, named: 0}
    assert list(small.functions_with(taking)) == [("second", second), ("named", named)]
    assert small.prototypes_taking("no_such_struct") == {}
