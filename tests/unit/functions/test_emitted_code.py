# SPDX-License-Identifier: Apache-2.0
"""What the emitted code computes, run natively: the parts that call no BPF helper."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.codegen.ir import IRBuilder
from kcap.functions.aggregates import divide, emit_divide
from kcap.functions.comparing import (
    compare_bytes,
    emit_compare,
    emit_match,
    emit_match_constant,
)
from kcap.functions.histogram import (
    HistType,
    LinearHistType,
    emit_linear_bucket,
    emit_log2_bucket,
)
from kcap.functions.loops import counted

llvm = pytest.importorskip("llvmlite.binding")

_engines: list[object] = []


class Bare:
    """As much of an emitter as code without helpers needs."""

    def __init__(self, signature: Any) -> None:
        self.ir = IRBuilder("f", signature, ".f")


def native(signature: Any, emit: Any, *kinds: Any) -> Any:
    """A Python function that runs what ``emit`` emits for a C function of the signature."""
    gen = Bare(signature)
    gen.ir.ret(emit(gen))
    text = gen.ir.text().replace('#0 section ".f"', "")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)
    return prototype(engine.get_function_address("f"))


LOG2 = {
    bits: native("i64 %v", lambda gen, bits=bits: emit_log2_bucket(gen, "%v", bits), ctypes.c_int64)
    for bits in range(6)
}


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 5))
def test_logarithmic_buckets(value: int, bits: int) -> None:
    assert LOG2[bits](value) == HistType(bits).index(value)


@given(st.integers(0, 62), st.integers(-1, 1), st.integers(0, 5))
def test_logarithmic_buckets_around_powers_of_two(power: int, off: int, bits: int) -> None:
    value = 2**power + off
    assert LOG2[bits](value) == HistType(bits).index(value)


@settings(max_examples=20)
@given(
    st.integers(-1000, 1000),
    st.integers(1, 500),
    st.integers(1, 40),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1500, 1500)),
)
def test_linear_buckets(minimum: int, width: int, step: int, values: Any) -> None:
    type_ = LinearHistType(minimum, minimum + width, step)
    bucket = native("i64 %v", lambda gen: emit_linear_bucket(gen, "%v", type_), ctypes.c_int64)
    for value in values:
        assert bucket(value) == type_.index(value)


DIVIDE = native(
    "i64 %t, i64 %c", lambda gen: emit_divide(gen, "%t", "%c", True), ctypes.c_int64, ctypes.c_int64
)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(1, 2**40))
def test_signed_division(total: int, count: int) -> None:
    assert DIVIDE(0, 0) == divide(0, 0) == 0
    assert DIVIDE(total, count) == divide(total, count)


TEXT = st.binary(max_size=15).map(lambda raw: raw.replace(b"\0", b"a"))
SIZE = 16


@given(TEXT, TEXT, st.integers(0, SIZE))
@settings(max_examples=60)
def test_comparing_strings(left: bytes, right: bytes, limit: int) -> None:
    compare = native(
        "ptr %a, ptr %b",
        lambda gen: emit_compare(gen, "%a", "%b", limit, text=True),
        ctypes.c_char_p,
        ctypes.c_char_p,
    )
    result = compare(left.ljust(SIZE, b"\0"), right.ljust(SIZE, b"\0"))
    assert (result != 0) == compare_bytes(left, right, limit)


def search(gen: Any, needle: Any = None) -> Any:
    """The loop of strstr over a haystack ``%h`` and the needle ``%n`` or a constant one."""
    ir = gen.ir
    result = ir.alloca(8)
    ir.store("i64", "-1", result)
    with counted(gen, SIZE - len(needle or b"")) as start:
        here = ir.offset("%h", start.index)
        miss, next_ = ir.fresh("miss"), ir.fresh("next")
        if needle is not None:
            emit_match_constant(gen, here, needle, miss)
        else:
            emit_match(gen, "%h", start.index, "%n", SIZE, SIZE, miss)
        ir.store("i64", start.index, result)
        ir.jump(start.leave)
        ir.label(miss)
        byte = ir.load("i8", here)
        ir.branch(ir.compare("eq", "i8", byte, "0"), start.leave, next_)
        ir.label(next_)
    return ir.load("i64", result)


FIND = native("ptr %h, ptr %n", search, ctypes.c_char_p, ctypes.c_char_p)
ALPHABET = st.text("ab", max_size=15).map(str.encode)


@given(ALPHABET, ALPHABET)
def test_searching_strings(haystack: bytes, needle: Any) -> None:
    found = FIND(haystack.ljust(SIZE, b"\0"), needle.ljust(SIZE, b"\0"))
    assert found == haystack.find(needle)


@given(ALPHABET, st.text("ab", min_size=1, max_size=4).map(str.encode))
@settings(max_examples=40)
def test_searching_for_a_constant(haystack: bytes, needle: Any) -> None:
    find = native("ptr %h", lambda gen: search(gen, needle), ctypes.c_char_p)
    assert find(haystack.ljust(SIZE, b"\0")) == haystack.find(needle)
