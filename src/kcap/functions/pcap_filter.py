# SPDX-License-Identifier: Apache-2.0
"""Compiling pcap-filter expressions with libpcap, to classic BPF.

libpcap is loaded through ctypes, and only when a filter is used: kcap runs without it otherwise.
Sources: pcap_compile(3PCAP), pcap-filter(7), ``pcap/bpf.h`` of libpcap.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final, NamedTuple

from kcap.errors import KcapError

#: What the library is called: Debian and its kin keep the old number, others follow upstream.
LIBRARIES: Final = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
DLT_EN10MB: Final = 1
SNAPLEN: Final = 262144
_NETMASK_UNKNOWN: Final = 0xFFFFFFFF
#: BPF_LD | BPF_ABS, and SKF_AD_OFF of include/uapi/linux/filter.h: offsets from there on mean no
#: byte but what Linux knows beside it ("inbound" becomes a load of SKF_AD_PKTTYPE).
_LD_ABS: Final = 0x20
_JUMP: Final = 0x05  # BPF_JMP | BPF_JA
_AD_OFF: Final = 0xFFFFF000
#: What may stand behind a beginning for it to be an expression: see :func:`_where_it_breaks`.
_ENDINGS: Final = ("", " 80", " 10.0.0.1", " tcp", " 1-2", " 0:0:0:0:0:0", " = 1", "]=1", " 1]=1")


class Instruction(NamedTuple):
    """One instruction of classic BPF (``struct bpf_insn``).

    :param code: class, size, mode and operation.
    :param jt: instructions to skip where a comparison holds; ``jf`` where not.
    :param k: the constant, 32 bits unsigned.
    """

    code: int
    jt: int
    jf: int
    k: int


class LibraryMissingError(KcapError):
    """libpcap is not installed, or cannot be loaded."""


class FilterError(KcapError):
    """libpcap does not take an expression.

    :param message: what it says.
    :param start: where in the expression, characters from its start.
    :param end: the end of that, not included; both are the expression's ends where nobody knows.
    """

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


class _Insn(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class BpfProgram(ctypes.Structure):
    """``struct bpf_program``."""

    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.POINTER(_Insn)))


@cache
def library() -> Any:
    """libpcap, with the types of what is used of it.

    :raises LibraryMissingError: it is not installed.
    """
    reasons = []
    for name in LIBRARIES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
            continue
        program = ctypes.POINTER(BpfProgram)
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        pcap.pcap_compile.argtypes = (
            *(ctypes.c_void_p, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32),
        )
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_geterr.argtypes = (ctypes.c_void_p,)
        pcap.pcap_freecode.argtypes = (program,)
        pcap.pcap_close.argtypes = (ctypes.c_void_p,)
        return pcap
    raise LibraryMissingError(
        f"packet filters are compiled by libpcap, which cannot be loaded: {reasons[0]}",
        hint="install it: apt install libpcap0.8 (Debian, Ubuntu), dnf install libpcap (Fedora)",
    )


@cache
def compile_filter(text: str, link_type: int = DLT_EN10MB) -> tuple[Instruction, ...]:
    """Compile an expression for packets that start with a link layer, optimised.

    Names of hosts are looked up now, by libpcap.

    :param text: the expression, as tcpdump takes it; the empty one accepts everything.
    :param link_type: a DLT_ number.
    :raises FilterError: libpcap does not take it.
    :raises LibraryMissingError: there is no libpcap.
    """
    if "\0" in text:
        at = text.index("\0")
        raise FilterError("a filter cannot have a NUL in it", at, at + 1)
    made, message = _compile(text, link_type)
    if made is None:
        start, end = _place(text, message, link_type)
        if message.startswith("can't parse filter expression: "):
            message = message.partition(": ")[2]
        raise FilterError(message, start, end)
    if any(each.code == _JUMP and each.k >= len(made) for each in made):
        at = max(text.find("protochain"), 0)
        message = "protochain makes a loop, which a filter in the kernel cannot have"
        raise FilterError(message, at, at + len("protochain"))
    if any(each.code & 0xE7 == _LD_ABS and each.k >= _AD_OFF for each in made):
        message = "part of this filter asks for what only a socket knows, not the packet"
        raise FilterError(message, 0, len(text))
    return made


def _compile(text: str, link_type: int) -> tuple[tuple[Instruction, ...] | None, str]:
    """The instructions, or None and what libpcap says."""
    pcap = library()
    handle = pcap.pcap_open_dead(link_type, SNAPLEN)
    if not handle:
        raise MemoryError("pcap_open_dead")
    program = BpfProgram()
    try:
        data = text.encode("utf-8", "surrogateescape")
        if pcap.pcap_compile(handle, ctypes.byref(program), data, 1, _NETMASK_UNKNOWN) != 0:
            return None, pcap.pcap_geterr(handle).decode("utf-8", "replace")
        made = tuple(
            Instruction(i.code, i.jt, i.jf, i.k) for i in program.bf_insns[: program.bf_len]
        )
        pcap.pcap_freecode(ctypes.byref(program))
        return made, ""
    finally:
        pcap.pcap_close(handle)


def _place(text: str, message: str, link_type: int) -> tuple[int, int]:
    """What part of the expression a message is about: libpcap does not say, but quotes words."""
    if "syntax error" in message:
        return _where_it_breaks(text, link_type)
    for quote in ("'", '"'):
        parts = message.split(quote)
        for word in parts[1::2]:
            if word and (at := text.find(word)) >= 0:
                return at, at + len(word)
    # "illegal token: $", "unknown ether protocol foo"
    for word in reversed(message.split()):
        at = text.find(word)
        if at >= 0 and (len(word) > 2 or not word.isalnum()):
            return at, at + len(word)
    return 0, len(text)


def _where_it_breaks(text: str, link_type: int) -> tuple[int, int]:
    """The first word behind which no ending makes an expression of what was read; the end of the
    text where every word may stand as it does and something is missing."""
    at = 0
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        at = text.index(word, at)
        end = at + len(word)
        if not _may_go_on(text[:end], link_type):
            return at, end
        at = end
    return len(text), len(text)


def _may_go_on(beginning: str, link_type: int) -> bool:
    close = ")" * (beginning.count("(") - beginning.count(")"))
    return any(
        "syntax error" not in _compile(beginning + ending + close, link_type)[1]
        for ending in _ENDINGS
    )
