# SPDX-License-Identifier: Apache-2.0
"""Functions that print by a format: ``printf()``, ``errorf()``, ``warnf()``, ``cat()``,
``system()``, ``debugf()``; and ``join()``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kcap.codegen.function import Function, Site
from kcap.functions.base import made
from kcap.functions.events import Message, Printf, TextPrinted
from kcap.functions.format import Format, FormatError, accepts, parse, type_word
from kcap.sema import tree
from kcap.sema.types import VOID, Aggregate, Array, Pointer, Type, Unresolved

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.function import Runtime
    from kcap.lang import ast
    from kcap.lang.source import Span
    from kcap.sema.function import CallSite, Sema
    from kcap.sema.types import Buffer_, Tuple


class FormatSite(Site):
    """A place that prints by a format.

    :param format: the format with the types of its arguments.
    :param span: the call.
    """

    def __init__(self, format_: Format, span: Span) -> None:
        self.format = format_
        self.span = span
        self._compiled: Any = None

    @property
    def payload(self) -> Tuple:  # type: ignore[override]
        """The types of the arguments."""
        return self.format.payload

    def receive(self, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        if self._compiled is None:
            self._compiled = self.format.compile(runtime.environment)
        text = self._compiled(data, offset)
        return self.printed(text, data, offset, runtime)

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        return self.printed(self.format.format(values, runtime.environment), b"", 0, runtime)

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        """The events for a formatted text.

        :param data: where the payload stands, at ``offset``; empty if it isn't at hand.
        """
        raise NotImplementedError


class PrintfSite(FormatSite):
    """A ``printf()``."""

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        raw = bytes(data[offset : offset + self.format.payload.size])
        return (Printf(text, self.format, raw),)


class MessageSite(FormatSite):
    """An ``errorf()`` or ``warnf()``."""

    severity: ClassVar[Literal["error", "warning"]]

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        return (Message(self.severity, text, self.span),)


class ErrorfSite(MessageSite):
    """An ``errorf()``."""

    severity = "error"


class WarnfSite(MessageSite):
    """A ``warnf()``."""

    severity = "warning"


class CatSite(FormatSite):
    """A ``cat()``: user space reads the file."""

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        limit = runtime.environment.config.max_cat_bytes
        try:
            with open(text.encode("utf-8", "surrogateescape"), "rb") as file:
                content = file.read(limit)
        except OSError as error:
            reason = f"failed to open file '{text}' ({error.strerror})"
            return (Message("error", reason, self.span),)
        return (TextPrinted("cat", content.decode("utf-8", "surrogateescape")),)


class SystemSite(FormatSite):
    """A ``system()``: user space runs the command and waits for it."""

    def printed(self, text: str, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        import subprocess

        done = subprocess.run(
            ["/bin/sh", "-c", text.encode("utf-8", "surrogateescape")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        return (TextPrinted("syscall", done.stdout.decode("utf-8", "surrogateescape")),)


class FormatFunction(Function):
    """A function whose arguments are a constant format and what it prints."""

    arity = (1, None)
    site: ClassVar[type[FormatSite]]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if self.unsafe:
            require_unsafe(self, call, sema)
        text = sema.string_literal(call.args[0], f"the format of {self.name}()")
        values = [printable(sema, node) for node in call.args[1:]]
        self._match(text, call, values, sema)
        format_ = Format(text, [value.type for value in values])
        return made(self, call, VOID, *values, data=self.site(format_, call.span))

    def _match(self, text: str, call: CallSite, values: list[tree.Expr], sema: Sema) -> None:
        """Every conversion has its argument, of a type that it takes."""
        node = call.args[0]
        try:
            conversions = [part for part in parse(text) if not isinstance(part, str)]
        except FormatError as error:
            raise sema.fail("format", node.span, f"{self.name}: {error}") from error
        if len(conversions) != len(values):
            few = len(values) < len(conversions)
            raise sema.fail(
                "format-arguments",
                call.span,
                f"{self.name}: {'Not enough' if few else 'Too many'} arguments for format string "
                f"({len(values)} supplied, {len(conversions)} expected)",
                labels=[(node.span, f"{len(conversions)} conversions here")],
            )
        for conversion, value, written in zip(conversions, values, call.args[1:], strict=True):
            if isinstance(value.type, Unresolved) or accepts(conversion, value.type):
                continue
            raise sema.fail(
                "format-type",
                written.span,
                f"{self.name}: {conversion} specifier expects a value of type "
                f"{conversion.expects} ({type_word(value.type)} supplied)",
                label=f"this has type {value.type}",
                help=_advice(value.type),
            )

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.event(call.data, call.args)
        return ""


def printable(sema: Sema, node: ast.Expr) -> tree.Expr:
    """An argument to print: what can be read as an integer is, the rest stays as it is."""
    expr = sema.rvalue(node)
    if isinstance(expr.type, Aggregate) and expr.type.castable is not None:
        return sema.convert(expr, expr.type.castable, "a printed value")
    return expr


def _advice(type_: Type) -> tuple[str, ...]:
    if isinstance(type_, Pointer):
        return ("use str() to read the string that it points to, or %p for the address",)
    if isinstance(type_, Array):
        return ("use buf() with %r for bytes, or print one element",)
    if type_word(type_) == "integer":
        return ("use %d for signed, %u for unsigned, %lld and %llu for 64-bit integers",)
    if type_word(type_) == "string":
        return ("use %s for strings",)
    return ()


def require_unsafe(function: Function, call: CallSite, sema: Sema) -> None:
    """Refuse an unsafe function unless ``--unsafe`` was given."""
    if not getattr(sema, "unsafe", False):
        raise sema.fail(
            "unsafe",
            call.span,
            f"{function.name}() is unsafe. To use you need the --unsafe flag",
            help=("add --unsafe to the command line",),
        )


class PrintfFunction(FormatFunction):
    name = "printf"
    signatures = ("void printf(const string fmt, args...)",)
    summary = "Print by a format; user space does the formatting."
    site = PrintfSite


class Errorf(FormatFunction):
    name = "errorf"
    signatures = ("void errorf(const string fmt, args...)",)
    summary = "Print an error message with the place in the script."
    site = ErrorfSite


class Warnf(FormatFunction):
    name = "warnf"
    signatures = ("void warnf(const string fmt, args...)",)
    summary = "Print a warning with the place in the script."
    site = WarnfSite


class Cat(FormatFunction):
    name = "cat"
    signatures = ("void cat(string namefmt, [...args])",)
    summary = "Print the contents of a file."
    site = CatSite


class System(FormatFunction):
    name = "system"
    signatures = ("void system(string namefmt, [...args])",)
    summary = "Run a shell command and print its standard output."
    unsafe = True
    site = SystemSite


FUNCTIONS: tuple[type[Function], ...] = (PrintfFunction, Errorf, Warnf, Cat, System)
