# SPDX-License-Identifier: Apache-2.0
"""Compiling ``skboutput()`` for a small kernel, and running it on the skbs of these tests."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from functools import cache

from kcap.btf import Btf
from kcap.btf import types as b
from kcap.btf.build import BtfBuilder
from kcap.codegen.compile import Compiled, compile_script
from kcap.codegen.module import Features
from kcap.functions import packet_site
from kcap.functions.registry import all_functions
from kcap.lang import ast
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext
from support.bpf_machine import Machine, Memory
from unit.packet import skb_samples as s

TRACING, FENTRY = 26, 24
SKB, DEVICE, NET, HEAD = (0xFFFF_8880_0000_0000 + n * 0x100_0000 for n in range(4))

#: sk_buff as below: dev, sk, head, data, len, data_len, mark, skb_iif, protocol, mac_header,
#: network_header, queue_mapping, vlan_proto, vlan_tci, vlan_present.
_SK_BUFF = struct.Struct("<QQQQIIIIHHHHHHB3x")
#: net_device: name, ifindex, type, hard_header_len, nd_net.net.
_NET_DEVICE = struct.Struct("<16siHHQ")


def kernel_btf(*, vlan_all: bool) -> Btf:
    """sk_buff, net_device and net with the members that matter, as from 6.2 on or before."""
    builder = BtfBuilder()
    char = builder.integer("char", 1, b.INT_SIGNED)
    u8 = builder.integer("unsigned char", 1)
    u16 = builder.integer("short unsigned int", 2)
    u32 = builder.integer("unsigned int", 4)
    int_ = builder.integer("int", 4, b.INT_SIGNED)
    name = builder.array(char, u32, 16)
    namespace = builder.struct("ns_common", 8, [b.Member("inum", u32, 32)])
    net = builder.pointer(builder.struct("net", 16, [b.Member("ns", namespace, 64)]))
    possible = builder.struct("possible_net_t", 8, [b.Member("net", net, 0)])
    device = builder.struct(
        "net_device",
        32,
        [
            b.Member("name", name, 0),
            b.Member("ifindex", int_, 128),
            b.Member("type", u16, 160),
            b.Member("hard_header_len", u16, 176),
            b.Member("nd_net", possible, 192),
        ],
    )
    sock = builder.pointer(builder.struct("sock", 8, []))
    bytes_ = builder.pointer(u8)
    members = [
        b.Member("dev", builder.pointer(device), 0),
        b.Member("sk", sock, 64),
        b.Member("head", bytes_, 128),
        b.Member("data", bytes_, 192),
        b.Member("len", u32, 256),
        b.Member("data_len", u32, 288),
        b.Member("mark", u32, 320),
        b.Member("skb_iif", int_, 352),
        b.Member("protocol", u16, 384),
        b.Member("mac_header", u16, 400),
        b.Member("network_header", u16, 416),
        b.Member("queue_mapping", u16, 432),
    ]
    tag = [b.Member("vlan_proto", u16, 0), b.Member("vlan_tci", u16, 16)]
    if vlan_all:
        pair = builder.struct("", 4, tag)
        union = builder.union("", 4, [b.Member("vlan_all", u32, 0), b.Member("", pair, 0)])
        members.append(b.Member("", union, 448))
    else:
        members += [b.Member("vlan_proto", u16, 448), b.Member("vlan_tci", u16, 464)]
        members.append(b.Member("vlan_present", u8, 480, 1))
    skb = builder.pointer(builder.struct("sk_buff", _SK_BUFF.size, members))
    builder.func("ip_rcv", builder.func_proto(int_, [b.Param("skb", skb)]))
    return Btf.from_bytes(builder.to_bytes(), name="small")


class Resolver:
    """Every probe is an fentry of a function that takes what ip_rcv takes."""

    def __init__(self, types: KernelTypes) -> None:
        self._types = types

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        return contexts

    def resolve(self, attach_point: ast.AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        btf = self._types.btf
        assert btf is not None
        function = attach_point.parts[-1].text
        context = ProbeContext("fentry", f"fentry:{function}", TRACING, FENTRY, arguments="slots")
        context.function = function
        prototype = btf.prototype(btf.get("ip_rcv", b.Func))
        context.args = self._types.arguments(btf, prototype, "ip_rcv", f"fentry_{function}")
        return [context]


@cache
def compiled(length: str, offset: int, vlan_all: bool, function: str = "skboutput") -> Compiled:
    """skboutput() with these arguments."""
    text = f'fentry:ip_rcv {{ {function}("a.pcap", args.skb, {length}, {offset}) }}'
    return compile_text(text, vlan_all=vlan_all)


def compile_text(text: str, *, vlan_all: bool) -> Compiled:
    """A script of fentry probes.

    :param vlan_all: whether the kernel's sk_buff has that member. Where it doesn't (up to 6.1) the
        program uses whole registers only, too (before 6.12).
    """
    types = KernelTypes(kernel_btf(vlan_all=vlan_all))
    script = analyze(
        parse(Source("test", text)),
        functions=all_functions(),
        probes=Resolver(types),
        types=types,
        config=Config(),
    )
    return compile_script(script, Features(subregisters=vlan_all))


def machine_for(
    skb: s.Skb,
    *,
    length: str = "args.skb.len",
    offset: int = 0,
    vlan_all: bool = True,
    made: Compiled | None = None,
    linear: int | None = None,
) -> Machine:
    """A machine with the program and the skb in memory; run it with the slot SKB.

    :param made: the program; by default skboutput() with the arguments that are given.
    :param linear: bytes of the packet that are not in fragments; all by default.
    """
    made = made or compiled(length, offset, vlan_all)
    in_fragments = 0 if linear is None else max(skb.len - linear, 0)
    memory = Memory()
    memory.add(HEAD, skb.head[: len(skb.head) - in_fragments])
    tag = skb.vlan or ((0, 0) if vlan_all else (0x8100, 0x1FFF))  # a stale tag stays, up to 6.1
    memory.add(
        SKB,
        _SK_BUFF.pack(
            DEVICE if skb.dev else 0, 1 if skb.sk else 0, HEAD, HEAD + skb.data, skb.len,
            in_fragments, skb.mark, skb.skb_iif, s.swap(skb.protocol), skb.mac, skb.network,
            skb.queue, s.swap(tag[0]), tag[1], skb.vlan is not None,
        ),
    )  # fmt: skip
    if skb.dev:
        dev = skb.dev
        name = dev.name.encode()
        memory.add(DEVICE, _NET_DEVICE.pack(name, dev.ifindex, dev.type, dev.hard_header_len, NET))
        memory.add(NET, struct.pack("<8xII", 0, dev.netns))
    machine = Machine(made.programs[0].spec, made.maps, memory)
    machine.skbs[SKB] = (skb.len, skb.head[skb.data :])
    if packet_site.REALTIME_MAP in machine.values:
        offset_value = s.REALTIME_OFFSET.to_bytes(8, "little")
        memory.write(machine.values[packet_site.REALTIME_MAP], offset_value)
    machine.mono_ns, machine.cpu, machine.pid, machine.tid = 1_000_000_123, 3, 4242, 4243
    machine.comm = b"curl"
    return machine
