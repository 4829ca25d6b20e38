# SPDX-License-Identifier: Apache-2.0
"""A resolver, a few functions and a little BTF to analyse scripts with, and short ways to look."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kcap.btf import Btf
from kcap.btf import types as b
from kcap.btf.build import BtfBuilder
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema import tree
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.function import Callable_, CallSite, Sema
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext
from kcap.sema.types import BOOL, INT64, UINT64, VOID, Aggregate, String, Type

TRACING, KPROBE = 26, 2


class Count(Aggregate):
    """A stand-in for the value of count()."""

    size = 8

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Count)

    def __hash__(self) -> int:
        return 1

    def __str__(self) -> str:
        return "count_t"

    @property
    def castable(self) -> Type | None:
        return INT64


class Hist(Count):
    """A stand-in for the value of hist(), which no expression can read."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hist)

    def __hash__(self) -> int:
        return 2

    def __str__(self) -> str:
        return "hist_t"

    @property
    def castable(self) -> Type | None:
        return None


class Printf(Callable_):
    """printf, with its arguments as values."""

    name = "printf"
    arity = (1, None)
    signatures = ("void printf(const string fmt, args...)",)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        sema.string_literal(call.args[0], "the format of printf()")
        values = [sema.rvalue(arg) for arg in call.args[1:]]
        return tree.Call(call.span, VOID, self, values)


class Print(Callable_):
    """print, of a value or a map."""

    name = "print"
    arity = (1, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if isinstance(call.args[0], ast.Map):
            map_, _ = sema.map_argument(call.args[0], "print()")
            return tree.Call(call.span, VOID, self, [tree.MapRef(call.span, VOID, map_)])
        return tree.Call(call.span, VOID, self, [sema.expr(call.args[0])])


class HasKey(Callable_):
    """has_key(@map, key)."""

    name = "has_key"
    arity = (2, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        map_, _ = sema.map_argument(call.args[0], "has_key()")
        return tree.Call(call.span, BOOL, self, [sema.map_key(map_, call.args[1])])


class Str(Callable_):
    """str(address)."""

    name = "str"
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        value = sema.rvalue(call.args[0])
        return tree.Call(call.span, String(sema.config.max_strlen), self, [value])


class Simple(Callable_):
    """A builtin of one type."""

    def __init__(self, name: str, type_: Type, *, unsafe: bool = False) -> None:
        self.name = name  # type: ignore[misc]
        self.type = type_
        self.unsafe = unsafe  # type: ignore[misc]
        self.arity = (0, 1)  # type: ignore[misc]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        for arg in call.args:
            sema.rvalue(arg)
        return tree.Call(call.span, self.type, self, [])


FUNCTIONS: dict[str, Callable_] = {
    f.name: f
    for f in (
        Printf(),
        Print(),
        HasKey(),
        Str(),
        Simple("pid", UINT64),
        Simple("nsecs", UINT64),
        Simple("arg0", UINT64),
        Simple("comm", String(16)),
        Simple("count", Count()),
        Simple("hist", Hist()),
        Simple("system", VOID, unsafe=True),
        Simple("exit", VOID),
    )
}


def mini_btf() -> Btf:
    """A few structs in the shape of the kernel's."""
    builder = BtfBuilder()
    char = builder.integer("char", 1, b.INT_SIGNED)
    u8 = builder.integer("unsigned char", 1)
    u16 = builder.integer("short unsigned int", 2)
    u32 = builder.integer("unsigned int", 4)
    int_ = builder.integer("int", 4, b.INT_SIGNED)
    u64 = builder.integer("long unsigned int", 8)
    name = builder.array(char, u32, 16)
    bytes4 = builder.array(u8, u32, 4)
    rest = builder.array(u32, u32, 0)
    user_char = builder.pointer(builder.modifier(b.TypeTag, char, "user"))
    builder.modifier(b.Typedef, u32, "__be32")
    builder.enum("colour", [("RED", 0), ("GREEN", 1), ("BLUE", 7)])
    device = builder.struct("net_device", 24, [b.Member("name", name, 0), b.Member("id", u64, 128)])
    device_ptr = builder.pointer(device)
    union = builder.union("", 8, [b.Member("dev", device_ptr, 0), b.Member("cookie", u64, 0)])
    nested = builder.struct("pair", 8, [b.Member("a", int_, 0), b.Member("b", u16, 32)])
    skb_ptr = builder.pointer(nested + 2)  # the struct that is added next
    members = [
        b.Member("next", skb_ptr, 0),
        b.Member("", union, 64),
        b.Member("sk_dev", device_ptr, 128),
        b.Member("len", u32, 192),
        b.Member("pkt_type", u8, 224, 3),
        b.Member("ip_summed", u8, 229, 2),
        b.Member("pair", nested, 256),
        b.Member("addr", bytes4, 320),
        b.Member("user", user_char, 384),
        b.Member("tail", rest, 448),
    ]
    assert builder.struct("sk_buff", 56, members) == nested + 2
    proto = builder.func_proto(
        int_, [b.Param("skb", skb_ptr), b.Param("dev", device_ptr), b.Param("n", int_)]
    )
    builder.func("ip_rcv", proto)
    return Btf.from_bytes(builder.to_bytes(), name="mini")


@dataclass
class Resolver:
    """One context for each attach point, with the parameters of ip_rcv as args."""

    types: KernelTypes
    seen: list[tuple[str, frozenset[str]]]

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        return contexts

    def resolve(self, attach_point: ast.AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        provider, text = attach_point.provider.text, attach_point.text
        self.seen.append((text, frozenset(uses)))
        context = ProbeContext(provider, text, TRACING if provider == "fentry" else KPROBE)
        if provider == "uprobe":
            context.space = "user"
        if provider == "fentry":
            btf = self.types.btf
            assert btf is not None
            proto = btf.prototype(btf.get("ip_rcv", b.Func))
            context.args = self.types.arguments(btf, proto, "ip_rcv", "fentry_ip_rcv")
        else:
            context.args_missing = "args is not available in kprobe probes"
        return [context]


@dataclass
class Result:
    """What came out of a script."""

    script: tree.Script
    text: str

    @property
    def variables(self) -> dict[str, str]:
        """The type of each scratch variable, by name."""
        found: dict[str, str] = {}
        for program in self.script.programs:
            for node in tree.walk(program.body):
                variable = getattr(node, "variable", None)
                if isinstance(variable, tree.Variable):
                    found[variable.name] = str(variable.type)
        return found

    @property
    def maps(self) -> dict[str, tuple[str | None, str]]:
        """(key, value) types of each map, by name."""
        maps = self.script.maps.values()
        return {m.name: (str(m.key) if m.key else None, str(m.value)) for m in maps}

    def value(self, program: int = 0) -> tree.Expr:
        """The value that the last statement of a program assigns."""
        last = self.script.programs[program].body[-1]
        assert isinstance(last, tree.AssignVariable | tree.AssignMap)
        assert last.value is not None
        return last.value


def check(
    text: str,
    *,
    parameters: Sequence[str] = (),
    config: Config | None = None,
    unsafe: bool = False,
    btf: bool = True,
) -> Result:
    """Analyse a script with the functions and types above.

    :raises ScriptError: with what is wrong.
    """
    types = KernelTypes(mini_btf() if btf else None)
    script = analyze(
        parse(Source("test", text)),
        functions=FUNCTIONS,
        probes=Resolver(types, []),
        types=types,
        config=config or Config(),
        parameters=parameters,
        unsafe=unsafe,
    )
    return Result(script, text)


def body(text: str, **options: object) -> Result:
    """Analyse the statements of a ``begin`` probe."""
    return check(f"begin {{ {text} }}", **options)  # type: ignore[arg-type]


def errors(text: str, **options: object) -> list[Diagnostic]:
    """The errors of a script (of a begin probe, if it is only statements)."""
    try:
        result = check(text, **options) if text.startswith(PROBES) else body(text, **options)  # type: ignore[arg-type]
    except ScriptError as error:
        return list(error.errors)
    raise AssertionError(f"no error in {text!r}; variables {result.variables}")


def error(text: str, **options: object) -> Diagnostic:
    """The one error of a script."""
    found = errors(text, **options)
    assert len(found) == 1, found
    return found[0]


def where(diagnostic: Diagnostic) -> str:
    """The text that a diagnostic points at."""
    assert diagnostic.span is not None
    return diagnostic.span.text


def warnings(text: str, **options: object) -> list[str]:
    """The titles of a script's warnings."""
    return [warning.title for warning in body(text, **options).script.warnings]


PROBES = ("begin", "fentry", "kprobe", "uprobe", "config", "let @", "#", "macro", "struct", "fn")
