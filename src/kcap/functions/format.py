# SPDX-License-Identifier: Apache-2.0
"""printf format strings: parsing, checking against types, and formatting events fast.

A conversion is C's (``%-8.3lld``), plus ``%r``, ``%rx``, ``%rh`` for buffers and ``%gr`` for GFP
flags. The length modifier cuts integers as C does: ``%d`` prints the low 32 bits.

Formatting an event is one ``struct.Struct`` and one Python %-format wherever the types allow it
(540 ns against 1565 ns for decoding value by value, see docs/architecture.md).

Widths and precisions of text count bytes, as in C. A format that has one works on text in which
each character stands for a byte (Latin-1), and decodes what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any

from kcap.functions import display
from kcap.functions.gfp import gfp_text
from kcap.records import dataclass
from kcap.sema import types

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment

FLAGS = frozenset("-+ #0'")
LENGTH_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "j": 64, "z": 64, "t": 64, "q": 64}
INTEGER_CONVERSIONS = frozenset("diuxXoc")
SIGNED_CONVERSIONS = frozenset("di")
_CODES = {(8, True): "b", (16, True): "h", (32, True): "i", (64, True): "q"}
_CODES |= {(bits, False): code.upper() for (bits, _), code in _CODES.items()}
#: Characters that ``%c`` prints; bytes over 127 are surrogates, so that they come out as they are.
_CHARACTERS = tuple(bytes([b]).decode("utf-8", "surrogateescape") for b in range(256))


class FormatError(ValueError):
    """A format string that can't be parsed.

    :param start: where the offending conversion starts, characters into the format.
    :param end: where it ends.
    """

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion of a format.

    :param flags: ``-``, ``+``, space, ``#``, ``0``.
    :param width: digits, or ''.
    :param precision: ``.`` and digits, or ''.
    :param length: ``hh``, ``h``, ``l``, ``ll``, ``j``, ``z``, ``t`` or ''.
    :param kind: ``d i u x X o c s p r rx rh gr``.
    :param start: where it stands in the format.
    :param end: behind its last character.
    """

    flags: str
    width: str
    precision: str
    length: str
    kind: str
    start: int
    end: int

    @property
    def bits(self) -> int:
        """The width in bits that the length modifier cuts integers to."""
        return 8 if self.kind == "c" else LENGTH_BITS[self.length]

    @property
    def alternate(self) -> bool:
        """Whether it puts a prefix before the digits."""
        return self.kind in "oxX" and "#" in self.flags

    @property
    def counts_bytes(self) -> bool:
        """Whether it pads or cuts text."""
        numeric = self.kind in INTEGER_CONVERSIONS or self.kind == "p"
        return not numeric and bool(self.width or self.precision)

    @property
    def expects(self) -> str:
        """The type that it takes, in the words of messages."""
        if self.kind in INTEGER_CONVERSIONS or self.kind == "gr":
            return "integer"
        return {"s": "string", "p": "pointer"}.get(self.kind, "buffer")

    def __str__(self) -> str:
        return f"%{self.flags}{self.width}{self.precision}{self.length}{self.kind}"


def parse(text: str) -> list[str | Conversion]:
    """The literal parts (``%%`` already one ``%``) and conversions of a format, in order.

    :raises FormatError: for an unknown or cut-off conversion.
    """
    parts: list[str | Conversion] = []
    literal, at = "", 0
    while (found := text.find("%", at)) >= 0:
        literal += text[at:found]
        conversion = _conversion(text, found)
        at = conversion.end
        if conversion.kind == "%":
            literal += "%"
            continue
        if literal:
            parts.append(literal)
        parts.append(conversion)
        literal = ""
    literal += text[at:]
    if literal:
        parts.append(literal)
    return parts


def _conversion(text: str, start: int) -> Conversion:
    at = start + 1
    flags, at = _take(text, at, FLAGS)
    width, at = _take(text, at, frozenset("0123456789"))
    precision = ""
    if text[at : at + 1] == ".":
        digits, at = _take(text, at + 1, frozenset("0123456789"))
        precision = f".{digits or 0}"
    length, at = _take(text, at, frozenset("hljztqL"))
    kind = text[at : at + 1]
    if text[at : at + 2] in ("rx", "rh", "gr"):
        kind = text[at : at + 2]
    known = kind in INTEGER_CONVERSIONS or kind in ("s", "p", "r", "rx", "rh", "gr", "%")
    if not kind or not known or length not in LENGTH_BITS:
        end = at + bool(text[at : at + 1].strip())
        raise FormatError(f"Unknown format string token: {text[start:end]}", start, end)
    return Conversion(flags, width, precision, length, kind, start, at + len(kind))


def _take(text: str, at: int, allowed: frozenset[str]) -> tuple[str, int]:
    start = at
    while at < len(text) and text[at] in allowed:
        at += 1
    return text[start:at], at


def accepts(conversion: Conversion, type_: types.Type) -> bool:
    """Whether the conversion can print a value of the type."""
    kind = conversion.kind
    if kind == "p":
        return isinstance(type_, types.Pointer | types.Integer)
    if kind in INTEGER_CONVERSIONS or kind == "gr":
        return isinstance(type_, types.Integer | types.Boolean | types.Enum | types.Pointer) or (
            isinstance(type_, types.Aggregate) and type_.castable is not None
        )
    if kind == "s":
        return not isinstance(type_, types.Integer | types.Pointer | types.Void)
    return isinstance(type_, types.Buffer)


def type_word(type_: types.Type) -> str:
    """The kind of a type, in the words of messages: 'integer', 'string', 'tuple'…"""
    if isinstance(type_, types.Integer | types.Enum):
        return "integer"
    if isinstance(type_, types.Boolean):
        return "bool"
    if isinstance(type_, types.Void):
        return "none"
    if isinstance(type_, types.Struct):
        return "record" if type_.keyword == "args" else type_.keyword
    return type(type_).__name__.lower()


class Format:
    """A format with the types of its arguments, ready to format events.

    :param text: the format string as the script has it.
    :param arguments: the arguments' types; they fit the conversions (see :func:`accepts`).
    """

    __slots__ = ("_counts_bytes", "_formatters", "conversions", "payload", "template", "text")

    def __init__(self, text: str, arguments: list[types.Type]) -> None:
        parts = parse(text)
        self.text = text
        self.payload = types.Tuple(tuple(arguments))
        self.conversions = [p for p in parts if isinstance(p, Conversion)]
        self._counts_bytes = any(c.counts_bytes for c in self.conversions)
        pieces = []
        remaining = iter(arguments)
        for part in parts:
            if isinstance(part, str):
                pieces.append(part.replace("%", "%%"))
            else:
                pieces.append(_template(part, next(remaining)))
        self.template = "".join(pieces)
        if self._counts_bytes:
            self.template = _bytewise(self.template)
        self._formatters = [
            _formatter(c, t) for c, t in zip(self.conversions, arguments, strict=True)
        ]

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`."""
        return self.text, list(self.payload.elements)

    def format(self, values: tuple[Any, ...], environment: Environment) -> str:
        """The text for decoded values."""
        shown = [f(v, environment) for f, v in zip(self._formatters, values, strict=True)]
        if not self._counts_bytes:
            return self.template % tuple(shown)
        return _text(self.template % tuple(map(_bytewise, shown)))

    def compile(self, environment: Environment) -> Callable[[types.Buffer_, int], str]:
        """A function that formats the payload at ``data[offset:]``."""
        if not self.conversions:
            constant = self.template % ()
            return lambda _data, _offset: constant
        readers = self._readers()
        unpack = _struct(readers, 0, self.payload.size).unpack_from
        template = self.template
        fixes = [(i, r.fix) for i, r in enumerate(readers) if r.fix is not None]
        if not fixes:
            return lambda data, offset: template % unpack(data, offset)
        if all(fix is _cut_nul for _, fix in fixes) and not _may_be_cut(self, environment):
            strings = [i for i, _ in fixes]
            if self._counts_bytes:
                return _decoded(_string_formatter(template, unpack, strings, "latin-1", "strict"))
            return _string_formatter(template, unpack, strings, "utf-8", "surrogateescape")
        fixes = self._in_bytes(fixes)

        def formatted(data: types.Buffer_, offset: int) -> str:
            values = list(unpack(data, offset))
            for index, fix in fixes:
                values[index] = fix(values[index], environment)
            return template % tuple(values)

        return _decoded(formatted) if self._counts_bytes else formatted

    def compile_many(
        self, environment: Environment, before: int, stride: int
    ) -> Callable[[types.Buffer_], list[str]]:
        """A function that formats payloads which stand one after the other: the texts.

        :param before: bytes in front of each payload.
        :param stride: bytes from one payload to the next.
        """
        template = self.template
        if not self.conversions:
            constant = template % ()
            return lambda data: [constant] * (len(data) // stride)
        readers = self._readers()
        unpack = _struct(readers, before, stride).iter_unpack
        fixes = [(i, r.fix) for i, r in enumerate(readers) if r.fix is not None]
        if not fixes:
            return lambda data: [template % values for values in unpack(data)]
        known = [(i, _Known(fix, environment)) for i, fix in self._in_bytes(fixes)]

        def formatted(data: types.Buffer_) -> list[str]:
            columns: list[Iterable[Any]] = list(zip(*unpack(data), strict=True))
            for index, fixed in known:
                columns[index] = fixed.all(columns[index])
            return [template % values for values in zip(*columns, strict=True)]

        if self._counts_bytes:
            return lambda data: list(map(_text, formatted(data)))
        return formatted

    def _in_bytes(self, fixes: list[tuple[int, Formatter]]) -> list[tuple[int, Formatter]]:
        """Fixes whose text is such as the template wants it."""
        if not self._counts_bytes:
            return fixes
        return [(i, _fixed_in_bytes(fix)) for i, fix in fixes]

    def _readers(self) -> list[_Reader]:
        offsets = self.payload.offsets
        parts = zip(self.conversions, self.payload.elements, offsets, strict=True)
        return [_reader(*part) for part in parts]


class _Known(dict[Any, Any]):
    """What a fix makes of values, remembered while one run of records is formatted."""

    def __init__(self, fix: Formatter, environment: Environment) -> None:
        self._fix, self._environment = fix, environment

    def __missing__(self, value: Any) -> Any:
        found = self[value] = self._fix(value, self._environment)
        return found

    def all(self, values: Iterable[Any]) -> list[Any]:
        """What it makes of each of the values."""
        self.clear()
        return list(map(self.__getitem__, values))


def _bytewise(value: Any) -> Any:
    """Text with a character for each of its bytes; numbers as they are."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


def _fixed_in_bytes(fix: Formatter) -> Formatter:
    return lambda raw, environment: _bytewise(fix(raw, environment))


def _text(bytewise: str) -> str:
    """The text whose bytes are such characters."""
    if bytewise.isascii():
        return bytewise
    return bytewise.encode("latin-1").decode("utf-8", "surrogateescape")


def _decoded(
    formatter: Callable[[types.Buffer_, int], str],
) -> Callable[[types.Buffer_, int], str]:
    return lambda data, offset: _text(formatter(data, offset))


def _string_formatter(
    template: str,
    unpack: Callable[[types.Buffer_, int], tuple[Any, ...]],
    strings: list[int],
    encoding: str,
    errors: str,
) -> Callable[[types.Buffer_, int], str]:
    if len(strings) == 1:
        index = strings[0]

        def one(data: types.Buffer_, offset: int) -> str:
            values = list(unpack(data, offset))
            values[index] = values[index].partition(b"\0")[0].decode(encoding, errors)
            return template % tuple(values)

        return one

    def several(data: types.Buffer_, offset: int) -> str:
        values = list(unpack(data, offset))
        for i in strings:
            values[i] = values[i].partition(b"\0")[0].decode(encoding, errors)
        return template % tuple(values)

    return several


def _may_be_cut(format_: Format, environment: Environment) -> bool:
    limit = environment.config.max_strlen + 1
    return any(isinstance(t, types.String) and t.length == limit for t in format_.payload.elements)


def _template(conversion: Conversion, type_: types.Type) -> str:
    """The conversion as Python's %-format has it."""
    kind = conversion.kind
    flags = conversion.flags.replace("'", "")
    if conversion.alternate:
        return "%s"
    if kind in INTEGER_CONVERSIONS and kind != "c":
        code = "d" if kind in ("i", "u") else kind
        flags = flags.replace("+", "").replace(" ", "") if kind in "uxXo" else flags
        return f"%{flags}{conversion.width}{conversion.precision}{code}"
    flags = "-" if "-" in flags else ""
    precision = conversion.precision if kind == "s" else ""
    return f"%{flags}{conversion.width}{precision}s"


Formatter = Callable[[Any, "Environment"], Any]


def _formatter(conversion: Conversion, type_: types.Type) -> Formatter:
    """What turns a decoded value into what the template wants."""
    kind, bits = conversion.kind, conversion.bits
    if kind == "c":
        return lambda value, _: _CHARACTERS[value & 0xFF]
    if kind == "p":
        return lambda value, _: f"0x{value & 0xFFFF_FFFF_FFFF_FFFF:x}" if value else "0"
    if kind == "gr":
        return lambda value, _: gfp_text(value)
    if kind == "rx":
        return lambda value, _: "".join([f"\\x{b:02x}" for b in value])
    if kind == "rh":
        return lambda value, _: value.hex(" ")
    if kind in INTEGER_CONVERSIONS:
        cut = partial(_cut_integer, bits, kind in SIGNED_CONVERSIONS)
        if conversion.alternate:
            return lambda value, _: _alternate(conversion, cut(value))
        return lambda value, _: cut(value)
    return lambda value, environment: display.text(type_, value, environment)


def _alternate(conversion: Conversion, value: int) -> str:
    """An integer by ``%#x`` or ``%#o``, where Python's way differs from C's: 0 has no prefix."""
    prefix = {"o": "0", "x": "0x", "X": "0X"}[conversion.kind] if value else ""
    digits = format(value, conversion.kind).zfill(int(conversion.precision[1:] or 0))
    width = int(conversion.width or 0)
    if "-" in conversion.flags:
        return f"{prefix}{digits}".ljust(width)
    if "0" in conversion.flags:
        digits = digits.zfill(width - len(prefix))
    return f"{prefix}{digits}".rjust(width)


def _cut_integer(bits: int, signed: bool, value: int) -> int:
    value = int(value) & ((1 << bits) - 1)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


@dataclass(slots=True)
class _Reader:
    """How one argument is read: a struct code of ``size`` bytes at ``offset``, and what is left
    to do with the value."""

    code: str
    offset: int
    size: int
    fix: Formatter | None


def _reader(conversion: Conversion, type_: types.Type, offset: int) -> _Reader:
    integer = type_.integer if isinstance(type_, types.Enum) else type_
    kind = conversion.kind
    plain = kind in INTEGER_CONVERSIONS and not conversion.alternate
    if plain and kind != "c" and isinstance(integer, types.Integer | types.Pointer | types.Boolean):
        wide, signed = 8 * integer.size, bool(getattr(integer, "signed", False))
        wants_sign = kind in SIGNED_CONVERSIONS
        bits = min(conversion.bits, wide)
        if wide >= conversion.bits:
            return _Reader(_CODES[bits, wants_sign], offset, bits // 8, None)
        if wants_sign or not signed:
            return _Reader(_CODES[wide, signed], offset, wide // 8, None)
    if isinstance(type_, types.String) and kind == "s":
        return _Reader(f"{type_.length}s", offset, type_.length, _cut_nul)
    formatter, decode = _formatter(conversion, type_), type_.decode
    return _Reader(
        f"{type_.size}s", offset, type_.size, lambda raw, env: formatter(decode(raw), env)
    )


def _cut_nul(raw: bytes, environment: Environment) -> str:
    text = raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return environment.cut(text, len(raw))


def _struct(readers: list[_Reader], before: int, size: int) -> Struct:
    """One unpacker for all; values that are read in part leave a gap.

    :param before: bytes to leave out first.
    :param size: bytes of the whole.
    """
    code, at = f"<{before}x", 0
    for reader in readers:
        if reader.offset > at:
            code += f"{reader.offset - at}x"
        code += reader.code
        at = reader.offset + reader.size
    return Struct(f"{code}{size - before - at}x")
