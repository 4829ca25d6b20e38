# SPDX-License-Identifier: Apache-2.0
"""C definitions in scripts, conditions, headers, constants, macros."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.lang.diagnostic import Diagnostics, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema import tree
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.constants import uapi_constant, uapi_names
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.preprocess import active_definitions
from kcap.sema.types import Field, Struct
from unit.sema.sema_support import FUNCTIONS, Resolver, body, check, error, mini_btf, where


def access(script: str) -> tuple[Field, str]:
    """The field that the last statement of a script reads, and the type of the read."""
    last = check(script).script.programs[0].body[-1]
    assert isinstance(last, tree.AssignVariable)
    value = last.value
    while isinstance(value, tree.Cast | tree.Index):
        value = value.operand if isinstance(value, tree.Cast) else value.array
    assert isinstance(value, tree.FieldAccess)
    return value.field, str(last.variable.type)


def test_a_struct_of_the_script() -> None:
    pytest.importorskip("clang.cindex")
    script = """
        struct inner { char name[8]; u16 port; };
        struct outer {
            int a; uint64_t b; struct inner in; struct outer *next; unsigned f : 3, g : 5;
        };
        kprobe:f { $p = (struct outer *)arg0; $x = $p.next.in.%s; }
    """
    assert access(script % "port") == (
        Field("port", 8, check("begin { $x = (u16)1; }").value().type), "uint16"
    )  # fmt: skip
    assert access(script % "name")[1] == "string[8]"
    field, type_ = access(script.replace("next.in.%s", "g"))
    assert (field.offset, field.bit_shift, field.bit_size, type_) == (40, 3, 5, "uint32")
    assert check(script.replace("next.in.%s", "b")).variables["$p"] == "struct outer *"


def test_anonymous_members_and_unions() -> None:
    pytest.importorskip("clang.cindex")
    script = """
        union addr { u32 v4; u8 v6[16]; };
        struct S { int kind; union { u64 whole; struct { u32 low, high; }; }; union addr a; };
        kprobe:f { $x = ((struct S *)arg0).%s; }
    """
    field, type_ = access(script % "high")
    assert (field.offset, field.in_union, type_) == (12, True, "uint32")
    assert access(script % "a.v6")[1] == "uint8[16]"


def test_kernel_types_inside_of_a_struct_come_from_btf() -> None:
    pytest.importorskip("clang.cindex")
    script = """
        struct mine { int a; struct net_device dev; struct sk_buff *skb; enum colour c; };
        kprobe:f { $p = (struct mine *)arg0; $x = $p.%s; }
    """
    field, type_ = access(script % "dev")
    assert (field.offset, field.type.size, type_) == (8, 24, "struct net_device")
    assert access(script % "skb.len")[1] == "uint32"
    assert access(script % "dev.id")[1] == "uint64"


def test_enums_and_typedefs_of_the_script() -> None:
    pytest.importorskip("clang.cindex")
    result = check("""
        enum e { A, B = 5 };
        typedef struct { int x; } point_t;
        begin { $a = B; $p = (point_t *)0; $x = $p.x; $e = (enum e)5; }
    """)
    assert result.variables["$a"] == result.variables["$e"] == "enum e"
    assert result.variables["$x"] == "int32"


def test_a_definition_of_the_script_wins_over_the_kernels() -> None:
    pytest.importorskip("clang.cindex")
    script = "struct pair { u64 mine; }; kprobe:f { $x = ((struct pair *)arg0).mine; }"
    assert access(script)[1] == "uint64"


def test_mistakes_in_c_are_shown_where_they_are() -> None:
    pytest.importorskip("clang.cindex")
    found = error("#define N 3\nstruct S { int a; nonsense b; };\nbegin { $x = N; }")
    assert found.code == "c-definition"
    assert "nonsense" in found.title
    assert found.span is not None
    assert (found.span.line, found.span.column) == (2, 19)


def test_headers_that_btf_stands_in_for_may_be_missing() -> None:
    result = check("#include <net/sock.h>\n#include <linux/nothere.h>\nkprobe:f { $x = AF_INET6; }")
    assert result.variables == {"$x": "int8"}
    assert result.script.warnings == []


@pytest.mark.parametrize(
    "header",
    ["linux/sched.h", "uapi/linux/tcp.h", "net/sock.h", "asm/unistd.h", "kernel/sched/sched.h",
     "fs/ext4/ext4.h", "sys/socket.h", "netinet/in.h", "stdint.h", "syscall.h", "vmlinux.h",
     "bpf/bpf_helpers.h", "bcc/proto.h"],
)  # fmt: skip
def test_headers_of_kernel_and_c_library_may_be_missing(header: str) -> None:
    assert check(f"#include <{header}>\nbegin {{ }}").script.warnings == []


@pytest.mark.parametrize("header", ['"mine.h"', "<lol/no.h>", "<nothere.h>"])
def test_other_headers_have_to_be_there(header: str) -> None:
    found = error(f"#include {header}\nbegin {{ }}")
    assert found.title == f"'{header[1:-1]}' file not found"
    assert where(found) == header


def test_a_misspelt_directory_of_the_kernel_is_mended() -> None:
    found = error("#define A 1\n#include <linxu/sched.h>\nbegin { }")
    assert [edit.replacement for edit in found.edits] == ["linux"]
    assert found.edits[0].span.text == "linxu"


def test_a_librarys_header_is_read_with_what_it_includes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("clang.cindex")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "lib.h").write_text(
        "#include <limits.h>\n#include <stddef.h>\n#include <stdarg.h>\n#include <own/more.h>\n"
        "struct lib { char name[CHAR_BIT]; size_t size; more_t more; };\n"
        "void lib_log(const char *format, va_list arguments);\n"
    )
    (tmp_path / "own" / "more.h").write_text("typedef short more_t;\n")
    (tmp_path / "limits.h").write_text("")
    for module in ("headers", "cdefinitions"):
        monkeypatch.setattr(f"kcap.sema.{module}.SYSTEM_DIRECTORIES", (str(tmp_path),))
    script = "#include <own/lib.h>\nkprobe:f { $x = ((struct lib *)arg0).%s; }"
    assert access(script % "more")[1] == "int16"
    assert access(script % "more")[0].offset == 16


def test_directories_of_clangs_environment_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("clang.cindex")
    (tmp_path / "far.h").write_text("struct far { int away; };\n")
    monkeypatch.setenv("C_INCLUDE_PATH", f"/nowhere:{tmp_path}")
    assert access("#include <far.h>\nkprobe:f { $x = ((struct far *)arg0).away; }")[1] == "int32"


def test_a_header_of_the_users_own_gives_types_and_macros(tmp_path: Path) -> None:
    pytest.importorskip("clang.cindex")
    (tmp_path / "mine.h").write_text("#define LIMIT (4 + 1)\nstruct own { long v; };\n")
    types = KernelTypes(mini_btf())
    text = '#include "mine.h"\nbegin { $a = LIMIT; $b = ((struct own *)0).v; }'
    script = analyze(
        parse(Source(str(tmp_path / "script.bt"), text)),
        functions=FUNCTIONS,
        probes=Resolver(types, []),
        types=types,
        config=Config(),
    )
    types_found = [
        str(node.variable.type)
        for node in tree.walk(script.programs[0].body)
        if isinstance(node, tree.AssignVariable)
    ]
    assert types_found == ["int8", "int64"]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("ifdef BPFTRACE_HAVE_BTF", True),
        ("ifndef BPFTRACE_HAVE_BTF", False),
        ("if 0", False),
        ("if defined(BPFTRACE_HAVE_BTF) && 2 > 1", True),
        ("if !defined NOPE || (1 << 3) == 9", True),
        ("if NOPE", False),
    ],
)
def test_conditions(condition: str, holds: bool) -> None:
    text = f"#{condition}\n#define X 1\n#else\n#define X 1000\n#endif\nbegin {{ $a = X; }}"
    assert check(text).variables == {"$a": "int8" if holds else "int16"}


def test_conditions_nest_and_have_an_end() -> None:
    def names(text: str) -> tuple[list[str], list[str]]:
        found = Diagnostics()
        definitions = parse(Source("test", text + "\nbegin { }")).c_definitions
        active = active_definitions(definitions, [], found)
        return [d.name for d in active], [d.title for d in found]

    nested = "#if 1\n#if 0\n#define A 1\n#elif 1\n#define B 1\n#else\n#define C 1\n#endif\n#endif"
    assert names(nested) == (["B"], [])
    assert names("#ifdef X\n#define A 1") == ([], ["this condition has no #endif"])
    assert names("#endif") == ([], ["#endif without #if"])
    assert names("#if 1 +\n#define A 1\n#endif") == ([], ["this condition can't be evaluated"])


def test_constants_of_the_kernels_headers_are_literals() -> None:
    result = check("begin { $a = IPPROTO_TCP; $b = ETH_P_IPV6; $c = S_IFSOCK | 1; $d = EAGAIN; }")
    assert result.variables == {"$a": "int8", "$b": "int32", "$c": "int32", "$d": "int8"}
    found = uapi_constant("ETH_P_IPV6")
    assert found is not None
    assert found[1] == 0x86DD
    assert uapi_constant("NO_SUCH_CONSTANT") is None
    assert len(uapi_names()) > 4000


def test_macros_are_expanded_before_types_are_inferred() -> None:
    result = check("macro add(x) { let $y = x; $y + 1 } begin { $y = 2; $z = add((uint64)5); }")
    assert result.variables["$y"] == "int8"
    assert result.variables["$z"] == "uint64"


def test_messages_call_a_macros_variable_as_the_macro_does() -> None:
    found = error('macro m(x) { $y = x; $y = "s"; $y } begin { $z = m(1); }')
    assert found.title.startswith("Type mismatch for $y: ")


def test_kernel_types_without_btf_still_have_the_basic_names() -> None:
    types = KernelTypes()
    assert str(types.named("__be16")) == "uint16"
    assert str(types.named("size_t")) == "uint64"
    assert types.named("nonsense") is None
    assert body("$x = (u32)1;", btf=False).variables == {"$x": "uint32"}


def test_structs_refer_to_themselves_lazily() -> None:
    types = KernelTypes(mini_btf())
    skb = types.struct("sk_buff")
    assert isinstance(skb, Struct)
    field = skb.find("next")
    assert field is not None
    assert str(field.type) == "struct sk_buff *"
    assert [f.name for f in skb.all_fields()][:4] == ["next", "dev", "cookie", "sk_dev"]
    assert types.struct("sk_buff") is skb


def test_arguments_take_a_slot_each() -> None:
    types = KernelTypes(mini_btf())
    point = parse(Source("t", "fentry:ip_rcv { }")).probes[0].attach_points[0]
    args = Resolver(types, []).resolve(point, ())[0].args
    assert args is not None
    assert [(f.name, f.offset, f.slot, str(f.type)) for f in args.all_fields()] == [
        ("skb", 0, 8, "struct sk_buff *"),
        ("dev", 8, 8, "struct net_device *"),
        ("n", 16, 8, "int32"),
    ]


def test_a_redefined_struct_of_the_kernel_has_to_bring_the_types_of_its_members() -> None:
    pytest.importorskip("clang.cindex")
    assert check("struct foo { struct pair p; }; begin {}").script.programs
    found = error("struct net_device { struct pair p; }; begin {}")
    assert found.title == "C error: field has incomplete type 'struct pair'"


def test_numbers_of_system_calls_are_known_without_headers() -> None:
    found = uapi_constant("__NR_nanosleep")
    assert found is not None
    assert found[1] in (35, 101)  # x86-64, arm64
    assert uapi_constant("__NR_no_such_call") is None


def test_kernel_headers_are_read_where_the_environment_names_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("clang.cindex")
    files = {
        "source/include/linux/odd.h": "#include <asm/odder.h>\n#define ODD (ODDER + FROM_BUILD)\n"
        "typedef unsigned long long u64;\nstruct odd { u64 even; short v; };\n",
        "source/arch/x86/include/asm/odder.h": "#include <generated/made.h>\n#define ODDER 40\n",
        "source/include/linux/kconfig.h": "#define CONFIG_ODD 1\n",
        "build/include/generated/made.h": "#ifdef CONFIG_ODD\n#define FROM_BUILD 2\n#endif\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("kcap.sema.headers._MACHINE", "x86_64")
    script = "#include <linux/odd.h>\nkprobe:f { @ = ODD; $x = ((struct odd *)arg0).v; }"
    with pytest.raises(ScriptError, match="odd"):
        check(script)
    monkeypatch.setenv("BPFTRACE_KERNEL_SOURCE", str(tmp_path / "source"))
    monkeypatch.setenv("BPFTRACE_KERNEL_BUILD", str(tmp_path / "build"))
    assert access(script)[0].offset == 8
