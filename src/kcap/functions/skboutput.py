# SPDX-License-Identifier: Apache-2.0
"""``skboutput()``: writing packets to capture files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen.function import Function
from kcap.functions import skb_emit
from kcap.functions.base import integer_argument, made, type_name
from kcap.functions.packet_site import PacketSite
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.types import INT64, UINT64, Enum, Pointer, Struct

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema


#: The type that says why a packet is dropped (include/net/dropreason-core.h, since 5.17).
_REASON = "skb_drop_reason"


class SkbOutput(Function):
    """Write the packet that an sk_buff holds to a capture file."""

    name = "skboutput"
    signatures = (
        "int64 skboutput(const string path, struct sk_buff *skb, uint64 length, "
        "const uint64 offset)",
    )
    summary = "Write the packet that an sk_buff holds to a pcap or pcapng file."
    arity = (4, 4)
    #: What could not be written is counted and reported, so nobody needs to look at the result.
    discardable = True
    helpers = frozenset({Helper.skb_output})
    instead = (
        "skboutput_linear() works in every probe: it writes the part of a packet that is not in "
        "fragments",
        "`kcap capture FUNCTION` captures packets at a function without a script",
    )
    #: Only the part of the packet that is not in fragments is sent.
    linear: ClassVar[bool] = False

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        path_node, skb_node, length_node, offset_node = call.args
        path = sema.string_literal(path_node, f"the path of {self.name}()")
        if not path:
            raise sema.fail(
                "argument-value", path_node.span, f"{self.name}() needs a file to write to"
            )
        skb = self._skb(skb_node, sema)
        length = integer_argument(self, sema, length_node, UINT64, "third argument")
        offset = integer_argument(self, sema, offset_node, UINT64, "fourth argument")
        fixed = offset.value if isinstance(offset, tree.IntegerLiteral) else None
        site = PacketSite(path, fixed, sema.context.name, self.linear)
        reason = self._reason(call, sema)
        if reason is None:
            return made(self, call, INT64, skb, length, offset, data=site)
        assert isinstance(reason.type, Enum)
        site.reasons = reason.type.values
        return made(self, call, INT64, skb, length, offset, reason, data=site)

    def _reason(self, call: CallSite, sema: Sema) -> tree.Expr | None:
        """``args.reason`` where the traced function or event is told why a packet is dropped."""
        args = sema.context.args
        found = args.find("reason") if args is not None else None
        if found is None or not isinstance(found.type, Enum) or found.type.name != _REASON:
            return None
        args_node = ast.Identifier(call.span, "args")
        return sema.expr(ast.FieldAccess(call.span, args_node, ast.Name(call.span, "reason")))

    def _skb(self, node: ast.Expr, sema: Sema) -> tree.Expr:
        skb = sema.expr(node)
        type_ = skb.type
        is_skb = (
            isinstance(type_, Pointer)
            and isinstance(type_.target, Struct)
            and type_.target.name == "sk_buff"
        )
        if not is_skb:
            raise sema.fail(
                "argument-type",
                node.span,
                f"{self.name}() needs a pointer to struct sk_buff ({type_name(type_)} provided)",
                label=f"this is of type {type_}",
                help=("pass the argument of the traced function, such as args.skb",),
            )
        tracing = sema.context.program_type == uapi.BPF_PROG_TYPE_TRACING
        if tracing and not self.linear and isinstance(type_, Pointer) and not type_.tracked:
            raise sema.fail(
                "untracked-skb",
                node.span,
                "skboutput() needs an sk_buff that the kernel's verifier can follow",
                label="its origin is lost to the verifier here",
                notes=(
                    "bpf_skb_output takes a pointer only if it comes from the probe's arguments "
                    "through struct members; one that went through a map, a cast of an integer "
                    "or arithmetic is a number to the verifier, which answers "
                    "'R1 type=scalar expected=ptr_'",
                ),
                help=("pass args.NAME of the probe itself, in the probe that has it",),
            )
        return skb

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return skb_emit.emit(gen, call.data, *call.args)


class SkbOutputLinear(SkbOutput):
    """The same where the kernel allows no bpf_skb_output: in a kprobe, in a tracepoint."""

    name = "skboutput_linear"
    signatures = (
        "int64 skboutput_linear(const string path, struct sk_buff *skb, uint64 length, "
        "const uint64 offset)",
    )
    summary = (
        "Write the part of a packet that is not in fragments to a pcap or pcapng file; "
        "works in every probe."
    )
    helpers = frozenset({Helper.perf_event_output, Helper.probe_read_kernel})
    linear = True


FUNCTIONS: tuple[type[SkbOutput], ...] = (SkbOutput, SkbOutputLinear)
