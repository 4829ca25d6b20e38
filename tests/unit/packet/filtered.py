# SPDX-License-Identifier: Apache-2.0
"""Compiling ``skbfilter()`` for a small kernel and running it; libpcap's interpreter beside it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest import mock

from kcap.codegen.compile import Compiled
from kcap.functions import skbfilter
from kcap.functions.pcap_filter import BpfProgram, Instruction, library
from kcap.packet.frame import Frame, finish
from kcap.packet.record import unpack
from unit.packet import skb_samples as s
from unit.packet.emitted import SKB, compile_text, machine_for


@cache
def compiled(expression: str, vlan_all: bool = True, function: str = "ip_rcv") -> Compiled:
    """A script that stores what skbfilter() says."""
    return _compile(expression, vlan_all, function)


@cache
def compiled_program(program: tuple[Instruction, ...]) -> Compiled:
    """The same for instructions that no expression has."""
    with mock.patch.object(skbfilter, "compile_filter", return_value=program):
        return _compile("ip", True, "ip_rcv")


def _compile(expression: str, vlan_all: bool, function: str) -> Compiled:
    quoted = expression.replace("\\", "\\\\")
    text = f'fentry:{function} {{ @hit = skbfilter(args.skb, "{quoted}") }}'
    return compile_text(text, vlan_all=vlan_all)


def matches(
    made: Compiled, skb: s.Skb, *, linear: int | None = None, vlan_all: bool = True
) -> bool:
    """What the program says of an skb.

    :param linear: bytes that are not in fragments; all by default.
    """
    machine = machine_for(skb, vlan_all=vlan_all, made=made, linear=linear)
    machine.run(SKB)
    return machine.element("AT_hit", bytes(8))[0] != 0


def frame_of(skb: s.Skb, function: str = "") -> Frame:
    """The frame that skboutput() writes of an skb."""
    sample = s.sample(skb)
    return finish(sample, unpack(sample), function)


class _Header(ctypes.Structure):
    """``struct pcap_pkthdr``."""

    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("caplen", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
    )


class Interpreter:
    """libpcap's own interpreter of classic BPF."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        insn: Any = BpfProgram._fields_[1][1]._type_
        self._insns = (insn * len(program))(*(tuple(each) for each in program))
        self._program = BpfProgram(len(program), self._insns)
        self._run = library().pcap_offline_filter
        self._run.argtypes = (
            *(ctypes.POINTER(BpfProgram), ctypes.POINTER(_Header), ctypes.c_char_p),
        )

    def __call__(self, data: bytes, length: int) -> bool:
        """Whether the filter accepts a packet.

        :param length: what its length was before it was cut.
        """
        header = _Header(0, 0, len(data), length)
        return bool(self._run(ctypes.byref(self._program), ctypes.byref(header), data))
