# SPDX-License-Identifier: Apache-2.0
"""``args`` and ``retval`` of functions, from their BTF prototypes.

The context of a BPF tracing program is an array of 8-byte slots, one for each argument, two for a
struct of up to 16 bytes that is passed by value (since 6.0), then, at fexit, one for the returned
value (btf_ctx_access in kernel/bpf/btf.c).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf import render
from kcap.records import dataclass
from kcap.sema.kerneltypes import struct_of
from kcap.sema.types import Field, Pointer, Struct, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kcap.btf import Btf
    from kcap.sema.kerneltypes import KernelTypes

SLOT = 8
"""Bytes of a slot."""

MAX_ARGS = 12
"""MAX_BPF_FUNC_ARGS of include/linux/bpf.h: functions with more can't be attached to."""

MAX_STRUCT = 16
"""Bytes of the largest struct by value that the trampoline takes (btf_distill_func_proto)."""


_BEHIND_CONTEXTS = {
    "__sk_buff": "sk_buff",
    "xdp_md": "xdp_buff",
    "bpf_sock_addr": "bpf_sock_addr_kern",
    "bpf_sock_ops": "bpf_sock_ops_kern",
    "bpf_sock": "sock",
    "sk_msg_md": "sk_msg",
    "sk_reuseport_md": "sk_reuseport_kern",
    "bpf_sk_lookup": "bpf_sk_lookup_kern",
    "bpf_perf_event_data": "bpf_perf_event_data_kern",
    "bpf_sysctl": "bpf_sysctl_kern",
    "bpf_sockopt": "bpf_sockopt_kern",
}
"""What a BPF program's context is declared as, and what the kernel passes (the program types of
include/linux/bpf_types.h); the verifier rewrites the program's own accesses."""


@dataclass(frozen=True, slots=True)
class Prototype:
    """What a tracing program sees of a function.

    :param args: the arguments.
    :param retval: the type of the returned value, or None for void.
    :param slots: how many slots the arguments take; the returned value stands in the next.
    :param helper_slots: bytes from the context's start to the slots that a program may not load.
    """

    args: Struct
    retval: Type | None
    slots: int
    helper_slots: frozenset[int] = frozenset()

    @property
    def key(self) -> object:
        """Equal for prototypes that one compiled program can serve."""
        return self.args.origin, str(self.retval), self.slots, self.helper_slots


def args_struct(name: str, fields: Sequence[Field], size: int) -> Struct:
    """The type of ``args`` from its fields; equal for equal fields.

    :param name: what messages call it.
    :param size: bytes of the context that the fields cover.
    """
    origin = tuple((f.name, f.offset, str(f.type), f.bit_size) for f in fields)
    return struct_of("args", name, size, origin, tuple(fields))


def slots_of(btf: Btf, param: b.Param) -> int:
    """How many slots an argument takes."""
    if isinstance(b.resolve(btf, param.type_id), b.Composite):
        return (b.size_of(btf, param.type_id) + SLOT - 1) // SLOT
    return 1


def prototype(
    types: KernelTypes,
    btf: Btf,
    proto: b.FuncProto,
    name: str,
    return_value: bool = True,
    vouched: bool = True,
    of_program: bool = False,
) -> Prototype:
    """The arguments and the returned value of a function as types of the language.

    :param btf: where ``proto`` is from.
    :param name: what messages call ``args``.
    :param return_value: False for tracepoints, which return nothing.
    :param vouched: whether the verifier knows the types of pointers.
    :param of_program: it is a function of a BPF program.
    """
    mark: Callable[[Type], Type] = track if vouched else _unchanged
    if of_program:
        mark = partial(_behind_context, types)
    fields, slot = [], 0
    by_helper = set()
    for index, param in enumerate(proto.params):
        taken = slots_of(btf, param)
        type_ = mark(types.from_btf(btf, param.type_id))
        name_ = param.name or f"arg{index}"
        fields.append(Field(name_, slot * SLOT, type_, slot=taken * SLOT))
        if not _may_load(btf, param.type_id):
            by_helper.add(slot * SLOT)
        slot += taken
    retval = None
    if return_value and not isinstance(b.resolve(btf, proto.return_type_id), b.Void):
        retval = mark(types.from_btf(btf, proto.return_type_id))
        if not _may_load(btf, proto.return_type_id):
            by_helper.add(slot * SLOT)
    args = args_struct(name, fields, slot * SLOT)
    return Prototype(args, retval, slot, frozenset(by_helper))


def _may_load(btf: Btf, type_id: int) -> bool:
    """Whether the verifier of every kernel takes a plain load of a slot of this type.

    Of pointers, btf_ctx_access of Linux 5.10 takes those to void and to one byte (behind one const
    at most, no typedef), and those to structs and unions. Later kernels take more.
    """
    pointer = b.resolve(btf, type_id)
    if not isinstance(pointer, b.Ptr):
        return True
    direct = btf.type(pointer.type_id)
    if isinstance(direct, b.Void):
        return True
    if isinstance(direct, b.Const):
        direct = btf.type(direct.type_id)
    if isinstance(direct, b.Int) and direct.size == 1:
        return True
    return isinstance(b.resolve(btf, pointer.type_id), b.Composite)


def track(type_: Type) -> Type:
    """A pointer to a struct, marked as one whose BTF type the verifier knows; others unchanged."""
    if isinstance(type_, Pointer) and isinstance(type_.target, Struct):
        return Pointer(type_.target, type_.space, tracked=True)
    return type_


def _unchanged(type_: Type) -> Type:
    return type_


def _behind_context(types: KernelTypes, type_: Type) -> Type:
    """A pointer to a BPF program's context as a pointer to what really is there; others
    unchanged."""
    if not (isinstance(type_, Pointer) and isinstance(type_.target, Struct)):
        return type_
    name = _BEHIND_CONTEXTS.get(type_.target.name)
    real = types.struct(name) if name is not None else None
    return Pointer(real, type_.space) if real is not None else type_


def refusal(btf: Btf, proto: b.FuncProto, *, structs: bool = True) -> str:
    """Why the kernel does not attach tracing programs to a function of this prototype, or ''.

    The rules of btf_distill_func_proto (kernel/bpf/btf.c).

    :param structs: whether the kernel takes structs by value of up to 16 bytes (6.0).
    """
    if proto.variadic:
        return "it takes a variable number of arguments"
    if len(proto.params) > MAX_ARGS:
        return f"it takes {len(proto.params)} arguments, more than the {MAX_ARGS} that BPF takes"
    for param in proto.params:
        if isinstance(b.resolve(btf, param.type_id), b.Composite):
            size = b.size_of(btf, param.type_id)
            if size > MAX_STRUCT:
                return f"its argument {param.name} is a struct of {size} bytes passed by value"
            if not structs:
                return f"its argument {param.name} is a struct passed by value (taken since 6.0)"
    if isinstance(b.resolve(btf, proto.return_type_id), b.Composite):
        return "it returns a struct by value"
    return ""


def listing(btf: Btf, params: Iterable[b.Param]) -> list[str]:
    """Arguments as ``-lv`` prints them: ``struct sock * sk``."""
    return [render.parameter(btf, param) for param in params]
