# SPDX-License-Identifier: Apache-2.0
"""Places in memory: reading, copying, writing values.

Kernel and user memory is read with bpf_probe_read_kernel/user, which zero the destination when the
address is bad. Through pointers that the verifier tracks, plain loads are allowed and cheaper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import problems
from kcap.codegen.function import implementation
from kcap.codegen.ir import Operand
from kcap.kernel.helpers import Helper
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import UINT64, Array, Field, Pointer, Space, String, Struct, Tuple, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang.source import Span

#: The BPF back end expands copies and fills of up to 128 stores; larger ones go to a helper.
INLINE_LIMIT = 512
#: Bytes that an argument takes in the context of a tracing program.
SLOT = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands.

    :param base: a ``ptr`` operand in spaces 'bpf' and 'ctx', else an i64.
    :param offset: bytes from there.
    :param space: the address space.
    :param tracked: plain loads are allowed (the verifier knows the base's BTF type).
    :param nullable: the base may be NULL even so, and has to be compared with it before a load.
    :param span: the pointer that was followed to get there, if one was.
    """

    base: Operand
    space: Space
    offset: int = 0
    tracked: bool = False
    nullable: bool = False
    span: Span | None = None

    def at(self, offset: int, *, tracked: bool | None = None) -> Place:
        """The place ``offset`` bytes further."""
        keep = self.tracked if tracked is None else self.tracked and tracked
        return Place(self.base, self.space, self.offset + offset, keep, self.nullable, self.span)


def pointer_to(gen: Emitter, where: Place) -> Operand:
    """The place as a ``ptr``: only for spaces 'bpf' and 'ctx'."""
    return gen.ir.offset(where.base, where.offset)


def address_of(gen: Emitter, where: Place) -> Operand:
    """The place as an i64, whatever its space."""
    if where.space in ("bpf", "ctx"):
        return gen.ir.address(pointer_to(gen, where))
    return where.base if not where.offset else gen.ir.op(f"add i64 {where.base}, {where.offset}")


def read(
    gen: Emitter,
    dest: Operand,
    size: int | Operand,
    address: Operand,
    space: str,
    span: Span | None = None,
) -> Operand:
    """bpf_probe_read_kernel/user: 0, or a negative error with ``dest`` zeroed."""
    helper = Helper.probe_read_user if space == "user" else Helper.probe_read_kernel
    status = _probe_read(gen, helper, dest, size, address)
    problems.check_read(gen, helper, status, span)
    return status


def read_string(
    gen: Emitter,
    dest: Operand,
    size: int | Operand,
    address: Operand,
    space: str,
    span: Span | None = None,
) -> Operand:
    """bpf_probe_read_kernel/user_str: the length with the NUL, or a negative error."""
    helper = Helper.probe_read_user_str if space == "user" else Helper.probe_read_kernel_str
    status = _probe_read(gen, helper, dest, size, address)
    problems.check_read(gen, helper, status, span)
    return status


def _probe_read(
    gen: Emitter, helper: int, dest: Operand, size: int | Operand, address: Operand
) -> Operand:
    return gen.helper(helper, f"ptr {dest}", f"i32 {_size32(gen, size)}", f"i64 {address}")


def _size32(gen: Emitter, size: int | Operand) -> Operand:
    if isinstance(size, int) or not size.startswith("%"):
        return str(size)
    return gen.ir.op(f"trunc i64 {size} to i32")


def zero(gen: Emitter, pointer: Operand, size: int, align: int = 8) -> None:
    """Fill ``size`` bytes with zeros.

    :param align: what the pointer is known to be aligned to; LLVM may find out better.
    """
    if size <= INLINE_LIMIT * align // 8:
        gen.ir.line(
            f"call void @llvm.memset.inline.p0.i64"
            f"(ptr align {align} {pointer}, i8 0, i64 {size}, i1 0)"
        )
    else:  # a failed read zeroes its destination: mm/maccess.c, kernel/trace/bpf_trace.c
        _probe_read(gen, Helper.probe_read_kernel, pointer, size, "0")


def copy(gen: Emitter, dest: Operand, source: Operand, size: int, align: int = 1) -> None:
    """Copy within BPF memory."""
    if size <= INLINE_LIMIT and size % 8 == 0 and align == 8:
        gen.ir.line(
            f"call void @llvm.memcpy.inline.p0.p0.i64(ptr align 8 {dest}, ptr align 8 {source}, "
            f"i64 {size}, i1 0)"
        )
    else:
        _probe_read(gen, Helper.probe_read_kernel, dest, size, gen.ir.address(source))


def load_field(gen: Emitter, where: Place, field: Field) -> Operand:
    """A scalar field of the struct at ``where``, of its type's LLVM type."""
    place = field_place(gen, where, field)
    if field.slot and place.space == "ctx":
        wide = load_slot(gen, place)
        return gen.ir.resize(wide, 64, 8 * field.type.size, False)
    loaded = load_scalar(gen, place, field.type)
    if not field.bit_size:
        return loaded
    bits = 8 * field.type.size
    left = bits - field.bit_shift - field.bit_size
    # As in bpftrace, the bits are a number without a sign, whatever the field's type is.
    raised = gen.ir.op(f"shl i{bits} {loaded}, {left}")
    return gen.ir.op(f"lshr i{bits} {raised}, {left + field.bit_shift}")


def load_slot(gen: Emitter, where: Place) -> Operand:
    """A slot of a tracing program's context, an i64.

    The verifier knows each slot's type and refuses loads of pointers to other things than structs,
    void and char (btf_ctx_access in kernel/bpf/btf.c; newer kernels take more): the probe names
    those slots, and their memory is read as any other of the kernel's. In other programs, the probe
    names the places of its arguments: in the context, or in memory that a register points to.
    """
    places = gen.context.extra.get("slot_places")
    if places is not None:
        at = places[where.offset // SLOT]
        if isinstance(at, int):
            return gen.ir.load("i64", gen.ir.offset(where.base, at), volatile=True)
        return load_scalar(gen, _pointed(gen, where, at), UINT64)
    if where.offset not in gen.context.extra.get("helper_slots", ()):
        return gen.ir.load("i64", pointer_to(gen, where), volatile=True)
    copied = gen.alloc(SLOT, SLOT)
    _probe_read(gen, Helper.probe_read_kernel, copied, SLOT, address_of(gen, where))
    return gen.ir.load("i64", copied)


def _pointed(gen: Emitter, where: Place, at: tuple[int, int]) -> Place:
    """Memory of the traced function's: (where the context has a register, bytes behind it)."""
    register, displacement = at
    base = gen.ir.load("i64", gen.ir.offset(where.base, register), volatile=True)
    return Place(base, gen.context.space, displacement)


def _argument_place(gen: Emitter, where: Place, field: Field) -> Place:
    """Where an argument stands that is passed by value and larger than a register may be: copied
    from its slots, or on the traced function's stack."""
    places = gen.context.extra.get("slot_places")
    first = places[(where.offset + field.offset) // SLOT] if places is not None else 0
    if not isinstance(first, int):
        return _pointed(gen, where, first)
    copied = gen.alloc(field.slot, SLOT)
    for offset in range(0, field.slot, SLOT):
        part = load_slot(gen, where.at(field.offset + offset))
        gen.ir.store("i64", part, gen.ir.offset(copied, offset), align=SLOT)
    return Place(copied, "bpf")


def field_place(gen: Emitter, where: Place, field: Field) -> Place:
    """Where a field of the struct at ``where`` stands."""
    if field.slot and where.space == "ctx" and isinstance(field.type, Struct | Array):
        return _argument_place(gen, where, field)
    if field.data_loc:
        location = gen.ir.load("i32", pointer_to(gen, where.at(field.offset)), volatile=True)
        start = gen.ir.resize(gen.ir.op(f"and i32 {location}, 65535"), 32, 64, False)
        base = gen.ir.op(f"add i64 {gen.ir.address(gen.ctx)}, {start}")
        return Place(base, "kernel")
    return where.at(field.offset)


def load_scalar(gen: Emitter, where: Place, type_: Type) -> Operand:
    """A scalar at a place, of its LLVM type; zero where it cannot be read."""
    llvm = gen.llvm_type(type_)
    if where.space == "bpf":
        return gen.ir.load(llvm, pointer_to(gen, where), align=type_.align)
    if where.space == "ctx":
        return gen.ir.load(llvm, pointer_to(gen, where), volatile=True)
    if where.tracked:
        return _load_tracked(gen, where, llvm)
    slot = gen.alloc(type_.size, type_.size)
    read(gen, slot, type_.size, address_of(gen, where), where.space, where.span)
    return gen.ir.load(llvm, slot)


def _load_tracked(gen: Emitter, where: Place, llvm: str) -> Operand:
    """A plain load; the verifier makes a fault read zero (PROBE_MEM). Since 6.4 it wants some
    pointers (``skb->sk``) compared with NULL first, so those that aren't arguments are."""
    pointer = gen.ir.pointer(where.base)
    if not where.nullable:
        return gen.ir.load(llvm, gen.ir.offset(pointer, where.offset))
    here, then, end = (gen.ir.fresh(stem) for stem in ("null", "load", "loaded"))
    is_null = gen.ir.compare("eq", "ptr", pointer, "null")
    gen.ir.jump(here)
    gen.ir.label(here)
    gen.ir.branch(is_null, end, then)
    gen.ir.label(then)
    loaded = gen.ir.load(llvm, gen.ir.offset(pointer, where.offset))
    gen.ir.label(end)
    return gen.ir.op(f"phi {llvm} [ 0, %{here} ], [ {loaded}, %{then} ]")


def address(gen: Emitter, expr: tree.Expr) -> Operand:
    """A pointer to the value of ``expr`` in BPF memory."""
    if not expr.type.is_scalar:
        where = gen.place(expr)
        if where.space == "bpf":
            return pointer_to(gen, where)
        dest = gen.alloc(expr.type.size, expr.type.align)
        copy_place(gen, dest, where, expr.type)
        return dest
    dest = gen.alloc(expr.type.size, expr.type.size)
    store(gen, expr, dest)
    return dest


def copy_place(gen: Emitter, dest: Operand, where: Place, type_: Type) -> None:
    """Copy the value at a place, in any space, to BPF memory."""
    if where.space == "bpf":
        copy(gen, dest, pointer_to(gen, where), type_.size, type_.align)
    elif where.space == "ctx" and isinstance(type_, Struct) and type_.keyword == "args":
        _copy_slots(gen, dest, where, type_)
    else:
        read(gen, dest, type_.size, address_of(gen, where), where.space, where.span)


def _copy_slots(gen: Emitter, dest: Operand, where: Place, args: Struct) -> None:
    """The context, word by word: it may only be read through its own pointer."""
    for offset in range(0, args.size, 8):
        gen.ir.store("i64", load_slot(gen, where.at(offset)), gen.ir.offset(dest, offset))


def store(gen: Emitter, expr: tree.Expr, dest: Operand, *, canonical: bool = False) -> None:
    """Evaluate ``expr`` and write its bytes to ``dest``; see :meth:`Emitter.store`."""
    type_ = expr.type
    if type_.is_scalar:
        gen.ir.store(gen.llvm_type(type_), gen.value(expr), dest, align=type_.align)
    elif isinstance(expr, tree.StringLiteral):
        store_bytes(gen, dest, expr.value, type_.size)
    elif isinstance(expr, tree.TupleExpr):
        _store_tuple(gen, expr, dest, canonical)
    elif isinstance(expr, tree.Call):
        if canonical:
            zero(gen, dest, type_.size, type_.align)
        outer, gen.span = gen.span, expr.span
        implementation(expr).emit_into(expr, gen, dest)
        gen.span = outer
    elif isinstance(type_, String):
        _store_string(gen, expr, dest, canonical)
    elif isinstance(expr, tree.Cast) and isinstance(type_, Tuple):
        _convert_tuple(gen, gen.place(expr.operand), expr.operand.type, type_, dest)
    else:
        copy_place(gen, dest, gen.place(expr), type_)


def store_bytes(gen: Emitter, dest: Operand, data: bytes, size: int) -> None:
    """Write constant bytes, zeros behind them up to ``size``, as the largest words that fit."""
    used = min(len(data) + 1, size)
    padded = data[: size - 1] + bytes(8)
    zero_from = (used + 7) // 8 * 8
    at = 0
    while at < min(zero_from, size):
        width = 8
        while at + width > size:
            width //= 2
        word = int.from_bytes(padded[at : at + width].ljust(width, b"\0"), "little")
        gen.ir.store(
            f"i{8 * width}", signed_constant(word, width), gen.ir.offset(dest, at), align=1
        )
        at += width
    if at < size:
        zero(gen, gen.ir.offset(dest, at), size - at, 1)


def signed_constant(value: int, size: int) -> Operand:
    """A constant as LLVM writes it: within the signed range of ``size`` bytes."""
    bits = 8 * size
    value &= (1 << bits) - 1
    return str(value - (1 << bits) if value >> (bits - 1) else value)


def _store_string(gen: Emitter, expr: tree.Expr, dest: Operand, canonical: bool) -> None:
    """A string of any origin, cut or padded to ``expr.type``."""
    size = expr.type.size
    source = expr
    while isinstance(source, tree.Cast) and isinstance(source.operand.type, String):
        source = source.operand
    if isinstance(source, tree.StringLiteral):
        store_bytes(gen, dest, source.value, size)
        return
    where = gen.place(source)
    if canonical or source.type.size != size or where.space != "bpf":
        zero(gen, dest, size, 1)
        # A char array's string may fill all its bytes: then the helper writes its NUL behind
        # them, or, where there is no room, over the last of them, which is put back.
        length = min(size, source.type.size + 1)
        got = read_string(gen, dest, length, address_of(gen, where), where.space, where.span)
        if length == source.type.size and where.space == "bpf":
            with gen.if_(gen.ir.compare("eq", "i64", got, str(length))):
                last = gen.ir.load("i8", pointer_to(gen, where.at(length - 1)), align=1)
                gen.ir.store("i8", last, gen.ir.offset(dest, length - 1), align=1)
    else:
        copy(gen, dest, pointer_to(gen, where), size)


def _store_tuple(gen: Emitter, expr: tree.TupleExpr, dest: Operand, canonical: bool) -> None:
    type_ = expr.type
    assert isinstance(type_, Tuple)
    if sum(e.size for e in type_.elements) != type_.size:
        zero(gen, dest, type_.size, type_.align)
    for element, offset in zip(expr.elements, type_.offsets, strict=True):
        store(gen, element, gen.ir.offset(dest, offset), canonical=canonical)


def _convert_tuple(gen: Emitter, where: Place, from_: Type, to: Tuple, dest: Operand) -> None:
    """A tuple copied into one of wider elements."""
    assert isinstance(from_, Tuple)
    zero(gen, dest, to.size, to.align)
    pairs = zip(from_.elements, from_.offsets, to.elements, to.offsets, strict=True)
    for source, at, target, offset in pairs:
        here, there = where.at(at), gen.ir.offset(dest, offset)
        if isinstance(target, Tuple):
            _convert_tuple(gen, here, source, target, there)
        elif target.is_scalar:
            loaded = load_scalar(gen, here, source)
            signed = getattr(source, "signed", False)
            value = gen.ir.resize(loaded, 8 * source.size, 8 * target.size, signed)
            gen.ir.store(gen.llvm_type(target), value, there)
        elif isinstance(target, String):
            length = min(source.size + 1, target.size)
            read_string(gen, there, length, address_of(gen, here), here.space)
        else:
            copy_place(gen, there, here, target)


def deref(gen: Emitter, pointer: tree.Expr) -> Place:
    """The place that a pointer expression points to."""
    type_ = pointer.type
    assert isinstance(type_, Pointer)
    value = gen.value(pointer)
    space = gen.context.space if type_.space == "unknown" else type_.space
    if space in ("bpf", "ctx"):
        return Place(gen.ir.pointer(value), space)
    return Place(value, space, 0, type_.tracked, not _is_argument(pointer), pointer.span)


def _is_argument(pointer: tree.Expr) -> bool:
    """Whether a pointer is an argument of the traced function itself, read in place."""
    return isinstance(pointer, tree.FieldAccess) and isinstance(pointer.object, tree.Args)
