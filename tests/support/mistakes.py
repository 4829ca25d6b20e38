# SPDX-License-Identifier: Apache-2.0
"""Functions of the language that make the verifier refuse the program: one for each family.

kcap's own checks come before the verifier, so that no ordinary script leads to most of its
messages. These functions are made as any other is (a class with a signature, which emits LLVM
IR), and are known only to the analysis that :func:`compile_with_mistakes` runs: what is compiled,
loaded and refused is otherwise what a user's script would be.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from kcap.btf import Btf, Func
from kcap.codegen.function import Function
from kcap.functions.base import made
from kcap.functions.registry import all_functions
from kcap.functions.skboutput import SkbOutput
from kcap.kernel import asm
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import FunctionSpec, MapSpec, MapType
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.registry import resolver
from kcap.records import replace
from kcap.sema.analyzer import analyze
from kcap.sema.types import INT64
from kcap.session.options import Options, make_system
from kcap.session.script import Checked, configure
from kcap.session.timing import Timings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.compile import Compiled
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.module import Features
    from kcap.codegen.objects import ObjectSource
    from kcap.lang import ast
    from kcap.sema import tree
    from kcap.sema.function import CallSite, Sema

NO_HELPER = 9999
"""The number of a helper that no kernel has."""


#: Stand-ins for instructions that LLVM would not make: helpers of these numbers are called, and
#: :class:`Mistaken` puts the instruction in the call's place.
_EXIT, _KFUNC, _NO_KFUNC, _NO_BTF = 60_001, 60_002, 60_003, 60_004


def _lookup(gen: Emitter) -> str:
    """The value (8 bytes) of key 0 of an array, or null."""
    values = gen.auxiliary_map(MapSpec("values", MapType.ARRAY, 4, 8, 1))
    key = gen.ir.alloca(8)
    gen.ir.store("i64", "0", key)
    return gen.lookup(values, key)


def _found(gen: Emitter) -> str:
    """The same, checked."""
    value = _lookup(gen)
    with gen.if_(gen.ir.compare("eq", "ptr", value, "null")):
        gen.return_()
    return value


def _read(gen: Emitter, pointer: str) -> None:
    gen.ir.load("i64", pointer, volatile=True)


def _argument(gen: Emitter, number: int) -> str:
    """An argument of an fentry probe, as a pointer."""
    return gen.ir.load("ptr", gen.ir.offset(gen.ctx, 8 * number), volatile=True)


def _output(gen: Emitter, skb: str) -> None:
    """bpf_skb_output of 8 bytes, with whatever pointer."""
    ring = gen.auxiliary_map(MapSpec("mistakes", MapType.PERF_EVENT_ARRAY, 4, 4, 0))
    data = gen.alloc(8)
    gen.ir.store("i64", "0", data)
    gen.helper(
        Helper.skb_output, f"ptr {skb}", f"ptr {ring}", "i64 0", f"ptr {data}", "i64 8"
    )  # fmt: skip


def _without_check(gen: Emitter) -> None:
    _read(gen, _lookup(gen))


def _map_bounds(gen: Emitter) -> None:
    _read(gen, gen.ir.offset(_found(gen), 8))


def _map_unbounded(gen: Emitter) -> None:
    index = gen.helper(Helper.get_prandom_u32)
    _read(gen, gen.ir.offset(_found(gen), index))


def _size_unbounded(gen: Emitter) -> None:
    data, size = gen.alloc(8), gen.helper(Helper.get_prandom_u32)
    gen.ir.store("i64", "0", data)
    gen.helper(Helper.probe_read_kernel, f"ptr {data}", f"i64 {size}", "ptr null")


def _stack_bounds(gen: Emitter) -> None:
    address = gen.ir.opaque(gen.ir.address(gen.ir.alloca(8)))
    below = gen.ir.pointer(gen.ir.op(f"sub i64 {address}, 600"))
    gen.ir.line(f"store volatile i64 0, ptr {below}")


def _skb_may_be_null(gen: Emitter) -> None:
    _output(gen, _lookup(gen))


def _skb_is_number(gen: Emitter) -> None:
    _output(gen, gen.ir.pointer(gen.helper(Helper.get_prandom_u32)))


def _skb_of_other_struct(gen: Emitter) -> None:
    _output(gen, gen.ir.load("ptr", _argument(gen, 0), volatile=True))


def _argument_is_number(gen: Emitter) -> None:
    _read(gen, _argument(gen, 1))


def _argument_to_function(gen: Emitter) -> None:
    _argument(gen, 1)  # smp_call_func_t func


def _argument_too_many(gen: Emitter) -> None:
    _argument(gen, 4)


def _struct_bounds(gen: Emitter) -> None:
    _read(gen, gen.ir.offset(_argument(gen, 0), 5000))


def _struct_written(gen: Emitter) -> None:
    gen.ir.line(f"store volatile i64 1, ptr {_argument(gen, 0)}")


def _pointer_arithmetic(gen: Emitter) -> None:
    address = gen.ir.address(_argument(gen, 0))
    _read(gen, gen.ir.pointer(gen.ir.op(f"and i64 {address}, -8")))


def _number_as_map(gen: Emitter) -> None:
    gen.lookup(gen.ir.pointer(gen.helper(Helper.get_prandom_u32)), gen.alloc(8))


def _helper_asleep(gen: Emitter) -> None:
    data = gen.alloc(8)
    gen.helper(Helper.copy_from_user, f"ptr {data}", "i64 8", "ptr null")


MISTAKES: dict[str, Callable[[Emitter], None]] = {
    "helper_unknown": lambda gen: void(gen.helper(NO_HELPER)),
    "helper_asleep": _helper_asleep,
    "skb_is_number": _skb_is_number,
    "skb_may_be_null": _skb_may_be_null,
    "skb_of_other_struct": _skb_of_other_struct,
    "null_check_missing": _without_check,
    "map_bounds": _map_bounds,
    "map_unbounded": _map_unbounded,
    "size_unbounded": _size_unbounded,
    "stack_bounds": _stack_bounds,
    "number_as_map": _number_as_map,
    "exit": lambda gen: void(gen.helper(_EXIT)),
    "argument_is_number": _argument_is_number,
    "argument_to_function": _argument_to_function,
    "argument_too_many": _argument_too_many,
    "struct_bounds": _struct_bounds,
    "struct_written": _struct_written,
    "pointer_arithmetic": _pointer_arithmetic,
    "kfunc_not_allowed": lambda gen: void(gen.helper(_KFUNC)),
    "kfunc_unknown": lambda gen: void(gen.helper(_NO_KFUNC)),
    "btf": lambda gen: void(gen.helper(_NO_BTF)),
}


def void(_: object) -> None:
    """Nothing of it."""


class Mistake(Function):
    """``mistake("NAME")``: the code of :data:`MISTAKES`."""

    name = "mistake"
    signatures = ("int64 mistake(const string name)",)
    summary = "Do something that the verifier refuses."
    arity = (1, 1)
    discardable = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        name = sema.string_literal(call.args[0], "the argument of mistake()")
        return made(self, call, INT64, data=MISTAKES[name])

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        call.data(gen)
        return "0"


class AnySkbOutput(SkbOutput):
    """skboutput() that takes any packet, also one that the verifier can't follow."""

    def _skb(self, node: ast.Expr, sema: Sema) -> tree.Expr:
        return sema.expr(node)


class Mistaken(Checked):
    """A checked script in whose programs instructions stand that LLVM would not make."""

    def generate(
        self,
        features: Features | None = None,
        objects: ObjectSource | None = None,
        *,
        lines: bool = False,
    ) -> Compiled:
        compiled = Checked.generate(self, features, objects, lines=lines)
        for program in compiled.programs:
            spec = program.spec
            patched = _patched(spec.insns)
            if pack("<BBhi", 0x85, 0, 0, _NO_BTF) in spec.insns:
                spec = replace(spec, functions=(FunctionSpec("one", 0), FunctionSpec("two", 2)))
            program.spec = replace(spec, insns=patched)
        return compiled


def _patched(insns: bytes) -> bytes:
    """The program with the instructions that the stand-ins are for."""
    function = Btf.kernel().get("vfs_read", Func).id
    put = {
        _EXIT: asm.exit_(),
        _NO_BTF: asm.mov_imm(asm.R0, 0),
        _KFUNC: pack("<BBhi", 0x85, 0x20, 0, function),
        _NO_KFUNC: pack("<BBhi", 0x85, 0x20, 0, 0x7FFFFFF),
    }
    code = bytearray(insns)
    for at in range(0, len(code), 8):
        number = int.from_bytes(code[at + 4 : at + 8], "little")
        if code[at] == 0x85 and number in put:
            code[at : at + 8] = put[number]
    return bytes(code)


def compile_with_mistakes(text: str, name: str = "test.bt") -> Checked:
    """Parse and analyse a script without the checks before loading.

    :param text: may call ``mistake()``, and ``skboutput()`` wherever.
    """
    source, options = Source(name, text), Options()
    syntax = parse(source)
    config = configure(syntax, options)
    system = make_system(options, config)
    functions = {**all_functions(), "mistake": Mistake(), "skboutput": AnySkbOutput()}
    script = analyze(
        syntax, functions=functions, probes=resolver(system), types=system.types, config=config
    )
    return Mistaken(source, syntax, script, system, options, [], Timings(), reads_files=False)
