# SPDX-License-Identifier: Apache-2.0
"""Which functions and tracepoints take a packet, and as which argument: found from BTF."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf.layout import tracepoint_prototype
from kcap.errors import UsageError
from kcap.probes.args import refusal
from kcap.probes.names import Pattern
from kcap.probes.renames import successors
from kcap.probes.traceable import KERNEL
from kcap.records import dataclass
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from kcap.btf import Btf
    from kcap.probes.system import System

_PREFIX = "btf_trace_"
_MODIFIERS = (b.Const, b.Volatile, b.Typedef)
#: How a place may be written, and the probe type that it is captured with.
PROVIDERS = {
    "fentry": "fentry",
    "f": "fentry",
    "kprobe": "kprobe",
    "k": "kprobe",
    "rawtracepoint": "rawtracepoint",
    "rt": "rawtracepoint",
    "tracepoint": "rawtracepoint",
    "t": "rawtracepoint",
}
#: Probe types at a function's return, when its packet may be gone.
_RETURNS = frozenset({"fexit", "fr", "kretfunc", "kretprobe", "kr"})


@dataclass(frozen=True, slots=True)
class SkbPoint:
    """A place where packets can be captured.

    :param provider: the probe type: fentry, rawtracepoint or kprobe.
    :param name: the function or the event.
    :param argument: the name of the parameter that is the sk_buff.
    :param index: its number, from 0.
    :param module: where it is; KERNEL for the kernel itself.
    """

    provider: str
    name: str
    argument: str
    index: int
    module: str = KERNEL

    @property
    def probe(self) -> str:
        """The probe as a script writes it."""
        if self.module != KERNEL and self.provider != "kprobe":
            return f"{self.provider}:{self.module}:{self.name}"
        return f"{self.provider}:{self.name}"

    @property
    def skb(self) -> str:
        """The sk_buff as a script writes it."""
        if self.provider == "kprobe":
            return f"((struct sk_buff *)arg{self.index})"
        return f"args.{self.argument}"


def find_point(text: str, system: System) -> SkbPoint:
    """The place that a user means.

    :param text: a function (``ip_rcv``), a tracepoint (``net:netif_receive_skb``), or either with
        its probe type before it (``kprobe:ip_rcv``, ``rawtracepoint:kfree_skb``).
    :raises UsageError: there is none, or no sk_buff among its arguments.
    """
    if system.btf is None:
        raise UsageError(
            "the kernel has no BTF, so nobody knows which functions take packets",
            hint="it needs CONFIG_DEBUG_INFO_BTF=y (/sys/kernel/btf/vmlinux)",
        )
    first, colon, rest = text.partition(":")
    provider, module = PROVIDERS.get(first, ""), ""
    if colon and first in _RETURNS:
        raise UsageError(
            f"{text} is where a function returns: its packet may be gone by then",
            hint=f"take {rest}, where it begins",
        )
    if colon and provider:
        module, _, name = rest.rpartition(":")
    else:
        name = rest or first
        provider = "rawtracepoint" if colon else "fentry"
    if "*" in name:
        raise UsageError(
            f"{text} is a pattern: packets are captured at places that are named",
            hint=f"kcap capture --list '{name}' shows those that match",
        )
    if provider == "rawtracepoint":
        return _tracepoint(text, name, system)
    return _function(provider, name, system, text.removesuffix(name), module)


def _function(provider: str, name: str, system: System, written: str, where: str) -> SkbPoint:
    """The place at a function.

    :param written: what the user wrote before the name.
    :param where: the module that it is in, '' for any.
    """
    seen = False
    for module in (KERNEL, *system.btf_modules):
        if where not in ("", module):
            continue
        btf = system.module_btf(module)
        for function in btf.find_all(name, b.Func) if btf is not None else ():
            assert btf is not None
            seen = True
            found = _skb_parameter(btf, btf.prototype(function))
            if found is not None:
                _check_traceable(name, system)
                if provider == "fentry" and (reason := refusal(btf, btf.prototype(function))):
                    raise UsageError(
                        f"{name}() cannot be traced by fentry: {reason}",
                        hint=f"kprobe:{name} takes the linear part of its packets",
                    )
                return SkbPoint(provider, name, found[1], found[0], module)
    if seen:
        raise UsageError(
            f"{name}() takes no packet: none of its arguments is a struct sk_buff *",
            hint="kcap capture --list shows the functions that do",
        )
    owner = f"module {where}" if where not in ("", KERNEL) else "the kernel"
    raise UsageError(
        f"there is no function {name} in {owner}'s BTF",
        hint=_instead(name, system, events=False, written=written),
    )


def _check_traceable(name: str, system: System) -> None:
    functions = system.functions
    if functions is not None and name not in functions:
        known = _successor(name, {point.name for point in list_functions("*", system)})
        raise UsageError(
            f"{name}() cannot be traced: it is not among the kernel's traceable functions",
            hint=known
            or "it was inlined everywhere, or is marked notrace; take a function that calls it",
        )


def _successor(name: str, functions: Container[str]) -> str:
    """A hint with the function that does the work of one that this kernel does not have; or ''.

    :param functions: where packets can be captured.
    """
    known = ((other, note) for other, note in successors(name) if other in functions)
    return next((f"take {other}: {note}" for other, note in known), "")


def _tracepoint(text: str, name: str, system: System) -> SkbPoint:
    for module in (KERNEL, *system.btf_modules):
        btf = system.module_btf(module)
        proto = tracepoint_prototype(btf, name) if btf is not None else None
        if btf is None or proto is None:
            continue
        found = _skb_parameter(btf, proto)
        if found is None:
            raise UsageError(
                f"tracepoint {text} passes no packet: none of its arguments is a struct sk_buff *",
                hint="kcap capture --list shows those that do",
            )
        return SkbPoint("rawtracepoint", name, found[1], found[0], module)
    raise UsageError(
        f"there is no tracepoint {text}",
        hint=_instead(name, system, events=True, written=text.removesuffix(name)),
    )


def _instead(name: str, system: System, *, events: bool, written: str) -> str:
    """The hint where there is no place of a name: the one that may have been meant.

    :param events: it was to be a tracepoint, not a function.
    :param written: what the user wrote before the name.
    """
    names: dict[bool, list[str]] = {True: [], False: []}
    for point in list_points("*", system):
        names[point.provider == "rawtracepoint"].append(point.name)
    if name in names[False] and (events or written):
        return f"there is a function: {name}"
    if name in names[True]:
        return f"there is a tracepoint: rawtracepoint:{name}"
    if not events and (known := _successor(name, names[False])):
        return known
    if near := nearest(name, names[events]):
        return f"did you mean {', '.join(written + each for each in near)}?"
    return "kcap capture --list shows what there is"


def list_points(pattern: str, system: System) -> Iterator[SkbPoint]:
    """Every place where packets can be captured: functions first, then tracepoints.

    :param pattern: for the name, with ``*``.
    """
    yield from list_functions(pattern, system)
    wanted = Pattern(pattern or "*")
    for module, btf in _all_btf(system):
        for name in _events(btf, btf.prototypes_taking("sk_buff")):
            proto = tracepoint_prototype(btf, name) if wanted.matches(name) else None
            parameter = _skb_parameter(btf, proto) if proto is not None else None
            if parameter is not None:
                yield SkbPoint("rawtracepoint", name, parameter[1], parameter[0], module)


def list_places(text: str, system: System) -> Iterator[SkbPoint]:
    """Every place that a user's pattern matches.

    :param text: for the name (``ip_*``), with the subsystem of tracepoints or a probe type before
        it if wanted (``net:*``, ``fentry:tcp_*``).
    """
    before, colon, pattern = text.rpartition(":")
    provider = PROVIDERS.get(before.partition(":")[0], "rawtracepoint")
    for point in list_points(pattern, system):
        event = point.provider == "rawtracepoint"
        if not colon or event == (provider == "rawtracepoint"):
            yield point


def list_functions(pattern: str, system: System) -> Iterator[SkbPoint]:
    """Every traceable function that takes a packet, those of the kernel itself first: by kprobe
    where the kernel refuses fentry.

    :param pattern: for the name, with ``*``.
    """
    wanted = Pattern(pattern or "*")
    functions = system.functions
    for module, btf in _all_btf(system):
        taking = btf.prototypes_taking("sk_buff")
        for name, proto in btf.functions_with(taking):
            if not wanted.matches(name) or name.startswith(("__traceiter_", "__probestub_")):
                continue
            if functions is None or name in functions:
                found = btf.type(proto)
                assert isinstance(found, b.FuncProto)
                provider = "kprobe" if refusal(btf, found) else "fentry"
                yield SkbPoint(provider, name, *_parameter(found, taking[proto]), module)


@cache
def _purposes() -> list[tuple[str, str]]:
    from importlib.resources import files

    text = files("kcap.session").joinpath("skb_purposes.tsv").read_text(encoding="utf-8")
    rows = (line.partition("\t") for line in text.splitlines() if line[:1] not in ("", "#"))
    return [(pattern, purpose) for pattern, _, purpose in rows]


def purpose(name: str) -> str:
    """What a function or tracepoint with packets is for, in a few words; '' if not known."""
    return next((said for pattern, said in _purposes() if fnmatchcase(name, pattern)), "")


def _all_btf(system: System) -> Iterator[tuple[str, Btf]]:
    """The types of the kernel and of its modules, by name."""
    for module in (KERNEL, *system.btf_modules):
        btf = system.module_btf(module)
        if btf is not None:
            yield module, btf


def _parameter(proto: b.FuncProto, index: int) -> tuple[str, int]:
    """Name and number of a parameter, as SkbPoint has them."""
    return proto.params[index].name or f"arg{index}", index


def _events(btf: Btf, taking: Container[int]) -> Iterator[str]:
    """The names of tracepoints whose prototypes are among some."""
    for type_id, full in btf.named(b.Typedef):
        if full.startswith(_PREFIX):
            typedef = btf.type(type_id)
            assert isinstance(typedef, b.Typedef)
            pointer = btf.type(typedef.type_id)
            if isinstance(pointer, b.Ptr) and pointer.type_id in taking:
                yield full.removeprefix(_PREFIX)


def _skb_parameter(btf: Btf, proto: b.FuncProto) -> tuple[int, str] | None:
    """The first parameter that is a pointer to an sk_buff: its number and its name."""
    for index, param in enumerate(proto.params):
        if _is_skb(btf, param.type_id):
            return index, param.name or f"arg{index}"
    return None


def _is_skb(btf: Btf, type_id: int) -> bool:
    pointer = _plain(btf, type_id)
    if not isinstance(pointer, b.Ptr):
        return False
    target = _plain(btf, pointer.type_id)
    return isinstance(target, b.Struct) and target.name == "sk_buff"


def _plain(btf: Btf, type_id: int) -> b.Type | None:
    """A type without const, volatile and typedefs; None for void."""
    while type_id:
        found = btf.type(type_id)
        if not isinstance(found, _MODIFIERS):
            return found
        type_id = found.type_id
    return None
