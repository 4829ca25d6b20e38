# SPDX-License-Identifier: Apache-2.0
"""fentry, fexit, kprobe, kretprobe: what they resolve to and what they say when they can't."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kcap import btf as b
from kcap.btf.build import BtfBuilder
from kcap.errors import FileError
from kcap.kernel import uapi
from kcap.kernel.programs import relocate
from kcap.kernel.spec import FunctionSpec, ProgramSpec, Relocation
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes import args, serving
from kcap.probes.fentry import Fentry
from kcap.probes.problems import NoMatchError
from kcap.probes.registry import Resolver, probe_type
from kcap.probes.system import Files, System
from kcap.records import replace
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext
from kcap.sema.types import Pointer, Struct
from unit.probes.frozen_machine import point


def names(contexts: list[Any]) -> list[str]:
    return [context.name for context in contexts]


def targets(context: Any) -> list[tuple[str, str]]:
    return [(target.module, target.name) for target in context.targets]


def refused(system: System, text: str, *uses: str) -> Diagnostic:
    """The first error of an attach point that can't be taken."""
    with pytest.raises(ScriptError) as caught:
        Resolver(system).resolve(point(text), set(uses))
    return caught.value.errors[0]


def fields(struct: Struct | None) -> list[tuple[str, int, str, int]]:
    assert struct is not None
    return [(f.name, f.offset, str(f.type), f.slot) for f in struct.all_fields()]


def test_fentry_types_its_arguments_by_btf_in_slots(resolve: Any) -> None:
    (context,) = resolve("fentry:vfs_read")
    assert context.name == "fentry:vmlinux:vfs_read"
    assert (context.program_type, context.attach_type) == (26, uapi.BPF_TRACE_FENTRY)
    assert context.function == "vfs_read"
    assert fields(context.args) == [
        ("file", 0, "struct file *", 8),
        ("buf", 8, "int8 *", 8),
        ("count", 16, "int64", 8),
    ]
    assert context.retval is None
    file, buf, _ = context.args.all_fields()
    assert isinstance(file.type, Pointer)
    assert (file.type.tracked, buf.type.tracked) == (True, False)


def test_fexit_has_the_returned_value_behind_the_arguments(resolve: Any) -> None:
    (context,) = resolve("fr:tcp_connect")
    assert context.name == "fexit:vmlinux:tcp_connect"
    assert context.attach_type == uapi.BPF_TRACE_FEXIT
    assert str(context.retval) == "int32"
    assert context.extra["retval_slot"] == 1


def test_a_void_function_has_no_returned_value(resolve: Any) -> None:
    (context,) = resolve("kretfunc:tcp_close")
    assert context.retval is None


def test_a_struct_by_value_takes_several_slots(resolve: Any) -> None:
    (context,) = resolve("fexit:by_value")
    assert fields(context.args) == [("p", 0, "struct pair", 16), ("last", 16, "uint32", 8)]
    assert context.extra["retval_slot"] == 3


def test_a_module_function_is_found_without_naming_the_module(resolve: Any) -> None:
    (context,) = resolve("fentry:nf_tables_newtable")
    assert context.name == "fentry:nf_tables:nf_tables_newtable"
    (load,) = Fentry().load_specs(context, None)  # type: ignore[arg-type]
    assert load.attach_btf_module == "nf_tables"
    assert load.attach_btf_id == context.targets[0].btf_id > 0


def test_each_function_of_a_wildcard_is_a_loading_of_one_program(resolve: Any) -> None:
    (context,) = resolve("fentry:vfs_*")
    assert context.name == "fentry:vfs_*"
    loads = Fentry().load_specs(context, None)  # type: ignore[arg-type]
    assert [load.name for load in loads] == ["fentry_vfs_read", "fentry_vfs_write"]
    assert all(load.attach_btf_module == "" for load in loads)
    assert context.extra["expanded"] is True


def test_a_wildcard_splits_by_prototype_only_where_args_are_used(resolve: Any) -> None:
    assert [targets(c) for c in resolve("fentry:*e*", "pid")] == [
        [
            ("vmlinux", "by_value"),
            ("vmlinux", "gro_receive_skb"),
            ("vmlinux", "same_name"),
            ("vmlinux", "tcp_close"),
            ("vmlinux", "tcp_connect"),
            ("vmlinux", "vfs_read"),
            ("vmlinux", "vfs_write"),
            ("nf_tables", "nf_tables_newtable"),
        ]
    ]
    split = resolve("fentry:vfs_*", "args")
    assert [targets(c) for c in split] == [[("vmlinux", "vfs_read"), ("vmlinux", "vfs_write")]]
    assert len(resolve("fentry:tcp_*", "args")) == 2
    assert names(resolve("fentry:vfs_*", "probe", "comptime")) == [
        "fentry:vmlinux:vfs_read",
        "fentry:vmlinux:vfs_write",
    ]


def test_wildcards_leave_out_what_may_hang_and_what_cannot_be_attached(resolve: Any) -> None:
    found = {t for c in resolve("fentry:*") for t in targets(c)}
    assert ("vmlinux", "rcu_read") not in found
    assert ("vmlinux", "printk") not in found
    assert resolve("kprobe:rcu_*") == []


def test_a_module_wildcard_is_matched(resolve: Any) -> None:
    (context,) = resolve("fentry:nf_*:nf_tables_newtable")
    assert targets(context) == [("nf_tables", "nf_tables_newtable")]
    (context,) = resolve("kprobe:vmlinu*:vfs_rea*", "probe")
    assert context.name == "kprobe:vmlinux:vfs_read"


def test_kprobe_reads_arguments_from_registers(resolve: Any) -> None:
    (context,) = resolve("k:vfs_read+0x10")
    assert (context.name, context.arguments) == ("kprobe:vfs_read+0x10", "registers")
    assert context.args is None
    assert context.args_missing == "kprobe knows no types: use arg0, arg1, …, or fentry:vfs_read"
    assert context.targets[0].offset == 16
    (context,) = resolve("kretprobe:vfs_read")
    assert (str(context.retval), context.arguments) == ("uint64", "none")


def test_one_kprobe_program_serves_a_wildcard(resolve: Any) -> None:
    (context,) = resolve("kprobe:vfs_*")
    assert (context.name, context.function) == ("kprobe:vfs_*", "")
    assert targets(context) == [("vmlinux", "vfs_read"), ("vmlinux", "vfs_write")]
    split = resolve("kprobe:vfs_*", "func", "comptime")
    assert [(c.name, c.function) for c in split] == [
        ("kprobe:vfs_read", "vfs_read"),
        ("kprobe:vfs_write", "vfs_write"),
    ]


@pytest.mark.parametrize(
    ("text", "probes"),
    [
        ("kprobe:vfs_*", ["kprobe:vfs_read", "kprobe:vfs_write"]),
        ("kprobe:vmlinux:vfs_*", ["kprobe:vmlinux:vfs_read", "kprobe:vmlinux:vfs_write"]),
        ("fexit:vfs_*", ["fexit:vmlinux:vfs_read", "fexit:vmlinux:vfs_write"]),
    ],
)
def test_one_program_knows_the_names_of_all_targets(
    resolve: Any, text: str, probes: list[str]
) -> None:
    (context,) = resolve(text, "probe", "func")
    assert context.extra["target_names"] == probes
    assert context.extra["many_functions"]


def test_a_program_for_one_of_many_targets_has_its_name_in_the_kernel(
    system: System, resolve: Any
) -> None:
    compiled = ProgramSpec("prog_0", 0, bytes(8), functions=(FunctionSpec("fentry_vfs___1", 0),))
    for text, names in (
        ("fentry:vfs_*", ["fentry_vfs_read", "fentry_vfs_write"]),
        ("kprobe:vfs_*", ["kprobe:vfs_read", "kprobe:vfs_write"]),
        ("fentry:vfs_read", ["fentry_vfs___1"]),
    ):
        (context,) = resolve(text, "probe")
        loads = probe_type(context.provider).load_specs(context, system)
        assert [load.apply(compiled).functions[0].name for load in loads] == names


def test_without_cookies_a_program_is_loaded_with_the_number_of_each_target(
    system: System, resolve: Any
) -> None:
    for text in ("kprobe:vfs_*", "fentry:vfs_*"):
        (context,) = resolve(text, "probe")
        assert context.extra["target_index"] == "load"
        loads = probe_type(context.provider).load_specs(context, system)
        assert [(load.targets[0].name, load.index) for load in loads] == [
            ("vfs_read", 0),
            ("vfs_write", 1),
        ]
        wants = (Relocation(0, "map", "kcap_target_index"),)
        spec = loads[1].apply(
            ProgramSpec("prog_0", context.program_type, bytes([0x18, *bytes(15)]), 0, wants)
        )
        assert relocate(spec, {}) == bytes([0x18, 0, 0, 0, 1, *bytes(11)])


class Offering(System):
    """A machine whose kernel has the links that are named."""

    offered: frozenset[str] = frozenset()

    def offers(self, feature: str) -> bool:
        return feature in self.offered


@pytest.fixture
def offering(machine: Files) -> Offering:
    return Offering(files=machine)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_probes": 1, "max_bpf_progs": 1}, "generate more than 1 BPF programs, "),
        ({"max_probes": 1, "max_bpf_progs": 2}, "attach to 2 probes because"),
        ({"max_probes": 2, "max_bpf_progs": 1}, ""),
    ],
)
def test_too_many_probes_that_bpftrace_makes_a_program_of_each_are_too_many_programs(
    monkeypatch: pytest.MonkeyPatch, machine: Files, limits: dict[str, int], words: str
) -> None:
    monkeypatch.setattr(serving, "FEW", 1)
    system = Offering(files=machine, **limits)  # type: ignore[arg-type]
    system.offered = frozenset({"kprobe_multi"})
    resolver = Resolver(system)
    if not words:  # one program serves them all
        resolver.resolve(point("kprobe:vfs_*"), {"probe"})
        return
    with pytest.raises(ScriptError) as caught:
        resolver.resolve(point("kprobe:vfs_*"), {"probe"})
    (error,) = caught.value.errors
    assert words in error.title
    assert error.help[-1].endswith("BPFTRACE_MAX_PROBES environment variable.")


@pytest.mark.parametrize(
    ("uses", "few", "index"),
    [("probe", 2, "load"), ("probe", 1, "cookie"), ("func", 2, "cookie")],
)
def test_a_program_is_loaded_for_each_of_few_kprobes_that_are_told_apart_by_name(
    offering: Offering, monkeypatch: pytest.MonkeyPatch, uses: str, few: int, index: str
) -> None:
    monkeypatch.setattr(serving, "FEW", few)
    offering.offered = frozenset({"kprobe_multi"})
    (context,) = Resolver(offering).resolve(point("kprobe:vfs_*"), {uses})
    assert context.extra["target_index"] == index
    assert probe_type("kprobe").programs(context) == (2 if index == "load" else 1)


def test_with_multi_links_one_program_serves_all_functions_of_a_module(offering: Offering) -> None:
    offering.offered = frozenset({"tracing_multi", "kprobe_multi"})
    kernel, module = Resolver(offering).resolve(point("fexit:*e*"), {"probe"})
    assert (kernel.program_type, kernel.attach_type) == (26, uapi.BPF_TRACE_FEXIT_MULTI)
    assert kernel.extra["target_index"] == "cookie"
    (load,) = probe_type("fexit").load_specs(kernel, offering)
    assert (len(load.targets), load.attach_btf_id, load.attach_btf_module) == (7, 0, "")
    assert targets(module) == [("nf_tables", "nf_tables_newtable")]
    (load,) = probe_type("fexit").load_specs(module, offering)
    assert load.expected_attach_type == uapi.BPF_TRACE_FEXIT


def test_many_functions_are_served_by_registers_where_only_kprobes_can_be_many(
    offering: Offering, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering.offered = frozenset({"kprobe_multi"})
    (context,) = Resolver(offering).resolve(point("fentry:vfs_*"), {"args"})
    assert context.program_type == uapi.BPF_PROG_TYPE_TRACING  # too few to be worth it
    monkeypatch.setattr(serving, "MANY", 2)
    (context,) = Resolver(offering).resolve(point("fentry:vfs_*"), {"args"})
    assert context.program_type == uapi.BPF_PROG_TYPE_KPROBE
    assert context.attach_type == uapi.BPF_TRACE_KPROBE_MULTI
    assert context.extra["slot_places"][:3] == (112, 104, 96)  # di, si, dx of struct pt_regs
    assert [f[0] for f in fields(context.args)] == ["file", "buf", "count"]
    assert context.args is not None
    assert not any(getattr(f.type, "tracked", False) for f in context.args.all_fields())


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("fexit:vfs_*", {"args"}),  # the arguments are gone when the function returns
        ("fentry:vfs_*", {"arg7"}),  # not in a register
        ("fentry:vfs_*", {"skboutput"}),  # wants a pointer that the verifier knows
        ("fentry:vfs_*", {"path"}),
    ],
)
def test_what_registers_do_not_have_needs_a_program_for_each_function(
    offering: Offering, monkeypatch: pytest.MonkeyPatch, text: str, uses: set[str]
) -> None:
    offering.offered = frozenset({"kprobe_multi"})
    monkeypatch.setattr(serving, "MANY", 2)
    (context,) = Resolver(offering).resolve(point(text), uses)
    assert context.program_type == uapi.BPF_PROG_TYPE_TRACING
    assert len(probe_type(context.provider).load_specs(context, offering)) == 2


def test_kprobe_in_a_module_is_asked_for_by_module_and_name(resolve: Any) -> None:
    (context,) = resolve("kprobe:nf_tables_newtable")
    assert context.targets[0].symbol == "nf_tables:nf_tables_newtable"


def test_a_misspelt_function_is_corrected(system: System) -> None:
    error = refused(system, "fentry:vfs_raed")
    assert error.title == "No matches for fentry vfs_raed."
    assert error.label == "no such function"
    assert error.help == ("did you mean vfs_read?",)
    assert [(e.span.text, e.replacement) for e in error.edits] == [("vfs_raed", "vfs_read")]
    assert error.span is not None
    assert (error.span.start, error.span.end) == (7, 15)


def test_an_edit_keeps_what_stands_around_the_name(system: System) -> None:
    assert refused(system, "kprobe:vfs_raed+4").edits[0].replacement == "vfs_read+4"


def test_only_an_obvious_name_is_offered_as_an_edit(system: System) -> None:
    error = refused(system, "kprobe:vfs_reads_all")
    assert (error.help, error.edits) == ((), ())
    error = refused(system, "kprobe:tcp_connexion")
    assert (error.help, error.edits) == (("did you mean tcp_connect?",), ())


def test_a_renamed_function_is_explained(system: System) -> None:
    error = refused(system, "kprobe:napi_gro_receive")
    assert error.help == ("did you mean gro_receive_skb?",)
    assert error.notes == (
        "this kernel has no function napi_gro_receive: it is inlined everywhere, or never was "
        "there",
        "napi_gro_receive became an inline wrapper of gro_receive_skb (Linux 6.15)",
    )


def test_a_misspelt_renamed_function_leads_to_its_successor(system: System) -> None:
    assert refused(system, "fentry:napi_gro_recieve").help == ("did you mean gro_receive_skb?",)


def test_the_nearest_name_counts_be_it_of_this_kernel_or_of_another(
    machine: Files, tmp_path: Path
) -> None:
    tracefs = tmp_path / "tracefs"
    shutil.copytree(machine.tracefs, tracefs)
    (tracefs / "available_filter_functions").write_text("tcp_sendmsg\ntcp_sendmsg_locked\n")
    system = System(files=replace(machine, tracefs=str(tracefs)))
    assert refused(system, "kprobe:tcp_sendmsgg").help == ("did you mean tcp_sendmsg?",)
    renamed = refused(system, "kprobe:tcp_sendpagee")  # until 6.5
    assert renamed.help == ("did you mean tcp_sendmsg_locked?",)


@pytest.mark.parametrize(
    ("text", "label", "note"),
    [
        (
            "fentry:inlined_one",
            "can't be traced",
            "BTF has inlined_one, but the kernel has no code of its own for it: it is inlined",
        ),
        (
            "kprobe:notrace_one",
            "can't be traced",
            "notrace_one exists, but ftrace has no hook in it: it is marked notrace, or built "
            "without instrumentation",
        ),
        (
            "kprobe:listed",
            "can't be traced",
            "listed is in the kernel's blacklist: a probe in it could make the kernel recurse",
        ),
        (
            "kprobe:nf_tables:vfs_read",
            "can't be traced",
            "vfs_read is in vmlinux, not in nf_tables",
        ),
        (
            "fentry:lookup_fast",
            "no such function",
            "this kernel has no function lookup_fast: it is inlined everywhere, or never was there",
        ),
    ],
)
def test_the_reason_is_given_for_what_cannot_be_traced(
    system: System, text: str, label: str, note: str
) -> None:
    error = refused(system, text)
    assert (error.label, error.notes[0]) == (label, note)


def test_compiler_made_copies_are_proposed_to_kprobe_and_mentioned_by_fentry(
    system: System,
) -> None:
    assert refused(system, "kprobe:lookup_fast").edits[0].replacement == "lookup_fast.constprop.0"
    assert refused(system, "fentry:lookup_fast").notes[1] == (
        "the compiler made a copy of it that BTF leaves out: kprobe:lookup_fast.constprop.0"
    )


def test_an_untraceable_function_comes_with_the_warning_that_bpftrace_gives(
    system: System,
) -> None:
    with pytest.raises(NoMatchError) as caught:
        Resolver(system).resolve(point("kprobe:vmlinux:nonsense"), set())
    assert [(d.severity, d.title) for d in caught.value.diagnostics] == [
        ("error", "No matches for kprobe vmlinux:nonsense."),
        (
            "warning",
            'nonsense is not traceable (either non-existing, inlined, or marked as "notrace"); '
            "attaching to it will likely fail",
        ),
    ]


def test_a_module_that_is_not_loaded_is_named(system: System) -> None:
    error = refused(system, "kprobe:nf_table:vfs_read")
    assert error.title == (
        "specified module nf_table in probe kprobe:nf_table:vfs_read is not loaded."
    )
    assert error.help[0] == "did you mean nf_tables?"
    assert error.span is not None
    assert error.span.text == "nf_table"


@pytest.mark.parametrize(
    ("text", "title", "help_"),
    [
        (
            "fentry:only_a_kprobe",
            "fentry: BTF has no function only_a_kprobe",
            "use kprobe:only_a_kprobe, which needs no BTF",
        ),
        (
            "fexit:no_btf_fn",
            "fexit: module old_module has no BTF",
            "use kretprobe:no_btf_fn, which needs no BTF",
        ),
        (
            "fentry:printk",
            "fentry can't trace printk: it takes a variable number of arguments",
            "use kprobe:printk, which needs no BTF",
        ),
        (
            "fentry:same_name",
            "ambiguous attach point: same_name is in vmlinux, nf_tables",
            "name the module: fentry:vmlinux:same_name or fentry:nf_tables:same_name",
        ),
        (
            "kprobe:0xffffffff81000000",
            "kprobe at a bare address needs --unsafe",
            "name a function and an offset, or give --unsafe",
        ),
        (
            "kretprobe:vfs_read+4",
            "kretprobe: a return probe takes no offset",
            "write kretprobe[:module]:function or kretprobe:address",
        ),
        (
            "fentry",
            "fentry: something is missing",
            "write fentry[:module]:function or fentry:bpf[:id]:function",
        ),
    ],
)
def test_what_cannot_be_attached_says_what_to_do(
    system: System, text: str, title: str, help_: str
) -> None:
    error = refused(system, text)
    assert (error.title, error.help[-1]) == (title, help_)


def test_unsafe_allows_addresses_and_unknown_functions(machine: Files) -> None:
    resolver = Resolver(System(files=machine, unsafe=True))
    (context,) = resolver.resolve(point("kprobe:0xff00"), set())
    assert context.targets[0].symbol == 0xFF00
    assert context.name == "kprobe:65280"
    (context,) = resolver.resolve(point("kprobe:vmlinux:nonsense"), set())
    assert context.targets[0].symbol == "nonsense"
    (warning,) = resolver.system.warnings
    assert warning.title.startswith("nonsense is not traceable (either non-existing, inlined, ")


def test_a_list_of_traceable_functions_may_be_empty(machine: Files) -> None:
    nothing = System(files=replace(machine, traceable="/dev/null"))
    assert refused(nothing, "kprobe:vfs_read").title == "No matches for kprobe vfs_read."


def test_a_list_of_traceable_functions_has_to_be_there(machine: Files) -> None:
    with pytest.raises(FileError, match="can't read the traceable functions: No such file"):
        _ = System(files=replace(machine, traceable="/nonexistent")).functions


def test_without_rights_nothing_is_said_to_be_untraceable(machine: Files) -> None:
    blind = System(files=replace(machine, tracefs="/nonexistent"))
    assert blind.functions is None
    resolver = Resolver(blind)
    (context,) = resolver.resolve(point("fentry:inlined_one"), set())
    assert context.name == "fentry:vmlinux:inlined_one"
    (context,) = resolver.resolve(point("kprobe:only_a_kprobe"), set())
    assert context.name == "kprobe:only_a_kprobe"
    assert refused(blind, "fentry:vfs_raed").help == ("did you mean vfs_read?",)


def test_without_btf_fentry_points_to_kprobe(machine: Files) -> None:
    bare = System(files=replace(machine, btf="/nonexistent"))
    error = refused(bare, "fexit:vfs_read")
    assert error.title == "fexit needs BTF, and the kernel has none"
    assert error.help[0].startswith("use kretprobe:vfs_read, which needs none")


def test_a_file_of_traceable_functions_can_be_given(machine: Files, tmp_path: Any) -> None:
    (tmp_path / "functions").write_text("only_this\n")
    system = System(files=replace(machine, traceable=str(tmp_path / "functions")))
    (context,) = Resolver(system).resolve(point("kprobe:*"), set())
    assert targets(context) == [("vmlinux", "only_this")]


def test_lists_name_the_module_as_bpftrace_does(system: System) -> None:
    assert list(probe_type("fentry").names(["vfs_*"], system)) == [
        "fentry:vmlinux:vfs_read",
        "fentry:vmlinux:vfs_write",
    ]
    assert list(probe_type("kprobe").names(["nf_*"], system)) == ["kprobe:nf_tables_newtable"]
    assert list(probe_type("kprobe").names(["nf_tables", "*"], system)) == [
        "kprobe:nf_tables:nf_tables_newtable",
        "kprobe:nf_tables:same_name",
    ]


def test_lists_give_arguments_with_their_c_types(system: System) -> None:
    def parameters(probe: str) -> list[str]:
        return list(probe_type(probe.partition(":")[0]).parameters(probe, system))

    assert parameters("fexit:vmlinux:vfs_read") == [
        "struct file * file",
        "const char * buf",
        "long count",
        "long retval",
    ]
    assert parameters("kprobe:tcp_connect") == ["struct sock * sk"]
    assert parameters("fexit:vmlinux:tcp_close") == ["struct sock * sk", "long timeout"]


@pytest.mark.parametrize(
    ("target", "by_helper"),
    [
        ("void", False),
        ("char", False),
        ("const char", False),
        ("struct", False),
        ("typedef of struct", False),
        ("const void", True),
        ("long", True),
        ("pointer", True),
        ("typedef of char", True),
        ("function", True),
    ],
)
def test_slots_of_pointers_that_5_10_refuses_to_load_are_read_by_a_helper(
    target: str, by_helper: bool
) -> None:
    w = BtfBuilder()
    char, long_ = w.integer("char", 1, 1), w.integer("long", 8, 1)
    made = w.struct("s", 8, [b.Member("m", long_, 0)])
    targets = {
        "void": 0,
        "char": char,
        "const char": w.modifier(b.Const, char),
        "struct": made,
        "typedef of struct": w.modifier(b.Typedef, made, "s_t"),
        "const void": w.modifier(b.Const, 0),
        "long": long_,
        "pointer": w.pointer(char),
        "typedef of char": w.modifier(b.Typedef, char, "u8"),
        "function": w.func_proto(0, []),
    }
    proto = w.func_proto(0, [b.Param("first", long_), b.Param("p", w.pointer(targets[target]))])
    btf = b.Btf(w.to_bytes(), None, "vmlinux")
    function = btf.type(proto)
    assert isinstance(function, b.FuncProto)
    found = args.prototype(KernelTypes(btf), btf, function, "f")
    assert found.helper_slots == (frozenset({8}) if by_helper else frozenset())


def joined(text: str, system: System, *uses: str) -> list[ProbeContext]:
    """What becomes of all attach points of a probe."""
    (probe,) = parse(Source("stdin", f"{text} {{ }}")).probes
    resolver = Resolver(system)
    contexts = [c for at in probe.attach_points for c in resolver.resolve(at, set(uses))]
    return list(resolver.join(contexts))


def test_wildcards_of_one_probe_share_a_program(offering: Offering) -> None:
    offering.offered = frozenset({"kprobe_multi"})
    (context,) = joined("kprobe:vfs_*,kprobe:tcp_*", offering, "probe")
    assert context.name == "kprobe:vfs_*,kprobe:tcp_*"
    names = ["vfs_read", "vfs_write", "tcp_close", "tcp_connect"]
    assert [target.name for target in context.targets] == names
    assert context.extra["target_names"] == [f"kprobe:{name}" for name in names]
    assert [serving.index_of(context, target) for target in context.targets] == [0, 1, 2, 3]
    assert context.span is not None
    assert context.span.text == "kprobe:vfs_*,kprobe:tcp_*"


def test_typed_wildcards_share_a_program_if_their_prototypes_are_one(offering: Offering) -> None:
    offering.offered = frozenset({"tracing_multi"})
    text = "fentry:vfs_*,fentry:tcp_c*"
    assert len(joined(text, offering)) == 1
    assert [len(context.targets) for context in joined(text, offering, "args")] == [2, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "kprobe:vfs_*,kprobe:vfs_r*,kprobe:vfs_w*",  # each function twice
        "kprobe:vfs_*,kretprobe:vfs_*",
        "kprobe:vfs_read,kprobe:vfs_write",  # named one by one: kprobes as they are
    ],
)
def test_other_attach_points_of_a_probe_stay_apart(offering: Offering, text: str) -> None:
    offering.offered = frozenset({"kprobe_multi"})
    assert len(joined(text, offering)) == len(text.split(","))


def test_where_programs_are_loaded_for_each_target_they_know_their_names(system: System) -> None:
    (context,) = joined("kprobe:vfs_*,kprobe:tcp_*", system, "probe")
    loads = probe_type("kprobe").load_specs(context, system)
    assert [load.index for load in loads] == [0, 1, 2, 3]
