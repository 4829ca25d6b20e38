# SPDX-License-Identifier: Apache-2.0
"""``skbfilter()``: whether a packet matches a pcap-filter expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.function import Function
from kcap.functions.base import made, type_name
from kcap.functions.classic_bpf import translate
from kcap.functions.pcap_filter import FilterError, LibraryMissingError, compile_filter
from kcap.functions.skb_frame import Frame
from kcap.functions.skb_place import SkbFields
from kcap.kernel.helpers import Helper
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.source import Source, Span
from kcap.sema.types import BOOL, Pointer, Struct

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema import tree
    from kcap.sema.function import CallSite, Sema

#: Functions that are called with data at the MAC header before any header is set.
_AT_MAC = frozenset({"eth_type_trans"})

_SEE_MANUAL = "the expressions are those of tcpdump: see pcap-filter(7)"
_BY_PLACE = (
    "which way a packet goes is told by the place: net:netif_receive_skb receives, "
    "net:net_dev_start_xmit sends"
)


class SkbFilter(Function):
    """Whether a packet matches an expression, as tcpdump would say of the captured frame."""

    name = "skbfilter"
    lasting = False  # libpcap looks names of hosts and ports up
    signatures = ("bool skbfilter(struct sk_buff *skb, const string expression)",)
    summary = "Whether the packet that an sk_buff holds matches a pcap-filter expression."
    arity = (2, 2)
    helpers = frozenset({Helper.probe_read_kernel})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        skb_node, filter_node = call.args
        skb = sema.expr(skb_node)
        type_ = skb.type
        target = type_.target if isinstance(type_, Pointer) else None
        if not isinstance(target, Struct) or target.name != "sk_buff":
            raise sema.fail(
                "argument-type",
                skb_node.span,
                f"skbfilter() needs a pointer to struct sk_buff ({type_name(type_)} provided)",
                label=f"this is of type {type_}",
                help=("pass the argument of the traced function, such as args.skb",),
            )
        text = sema.string_literal(filter_node, "the expression of skbfilter()")
        try:
            program = compile_filter(text)
        except FilterError as error:
            raise self._wrong(error, text, filter_node, sema) from error
        except LibraryMissingError as error:
            help_ = (error.hint,) if error.hint else ()
            raise sema.fail("no-libpcap", call.span, str(error), help=help_) from error
        return made(self, call, BOOL, skb, data=(program, SkbFields.of(target)))

    def _wrong(self, error: FilterError, text: str, node: ast.Expr, sema: Sema) -> Exception:
        """The diagnostic for an expression, pointing into the literal where it has no escapes."""
        span = node.span
        if span.text == f'"{text}"':
            start = span.start + 1
            span = Span(span.source, start + error.start, start + error.end)
        found = wrong_filter(error, text, span)
        return sema.fail(found.code, span, found.title, label=found.label, help=found.help)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        (skb,) = call.args
        program, fields = call.data
        ir = gen.ir
        result = ir.alloca(8)
        ir.store("i8", "0", result)
        address = gen.value(skb)
        at_mac = gen.context.function in _AT_MAC
        with gen.if_(ir.compare("ne", "i64", address, "0")):
            frame = Frame(gen, fields, address, skb.type, at_mac=at_mac)
            frame.build()
            matches = translate(gen, program, frame)
            ir.store("i8", ir.resize(matches, 1, 8, False), result)
            with gen.if_(frame.out_of_reach()):
                gen.count_lost("filter", gen.context.name)
        return ir.load("i8", result)


def check_filter(text: str) -> None:
    """See whether libpcap takes an expression that stands in no script.

    :param text: the expression.
    :raises ScriptError: it doesn't, with the place in the expression.
    :raises LibraryMissingError: there is no libpcap.
    """
    try:
        compile_filter(text)
    except FilterError as error:
        span = Span(Source("filter", text), error.start, error.end)
        raise ScriptError([wrong_filter(error, text, span)]) from error


def wrong_filter(error: FilterError, text: str, span: Span) -> Diagnostic:
    """What is wrong with an expression.

    :param text: the expression.
    :param span: where the error is.
    """
    return Diagnostic(
        "packet-filter",
        "error",
        f"libpcap does not take this packet filter: {error}",
        span,
        "something is missing here" if error.start == len(text) else "",
        help=(_BY_PLACE if "bound" in text[error.start : error.end] else _SEE_MANUAL,),
    )


FUNCTIONS = (SkbFilter,)
