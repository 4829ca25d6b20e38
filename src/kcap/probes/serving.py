# SPDX-License-Identifier: Apache-2.0
"""How fentry and fexit serve many functions: the ways there are, and which one is taken.

The kernel wants a program for each function, and takes a grace period of RCU for each link that is
closed, one after another (unregister_ftrace_direct holds a lock meanwhile): hundreds of functions
take minutes to detach. Where many functions are meant, one program and one link serve them all:

- ``tracing_multi`` (BPF_TRACE_FENTRY_MULTI), where the kernel has it;
- ``kprobe_multi``, whose programs see the function's registers instead of its arguments: as good
  where the block only wants integers and memory, and no function with more arguments than there
  are registers for.

These two know no types: pointers are read as any memory of the kernel's. A block that calls a
helper which wants typed pointers (``skboutput()``, ``path()``) is loaded for each function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

from kcap import btf as b
from kcap.functions import registers
from kcap.kernel.helpers import Helper
from kcap.probes import args
from kcap.probes.base import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.probes.base import ProbeType
    from kcap.probes.btf_targets import BtfTarget
    from kcap.probes.kprobe import KprobeTarget
    from kcap.probes.system import System
    from kcap.sema.probe import ProbeContext

T = TypeVar("T")
Way = Literal["each", "tracing_multi", "kprobe_multi"]

MANY: Final = 16
"""From how many functions on a kprobe_multi link is worth its dearer events."""

FEW: Final = 32
"""To how many kprobes whose block names ``probe`` a program of its own is loaded for each: an event
costs a tenth less than if it asks which of them it is, and the kernel tells what each takes. For
that, 27 are attached and detached in 0.8 s instead of 0.1 s (6.12, instructions counted)."""

_NAMES: Final = frozenset(("probe", "func"))
"""Builtins that differ between the targets of a wildcard."""

_TYPED_HELPERS: Final = frozenset({Helper.skb_output, Helper.d_path})
"""Helpers that take nothing but pointers whose BTF type the verifier knows."""


def choose(uses: Collection[str], count: int, returns: bool, system: System) -> Way:
    """How a wildcard's functions are served.

    :param uses: what the block names.
    :param count: how many functions there are.
    :param returns: at their return, where the registers of the arguments are gone.
    """
    if count < 2 or _wants_types(uses):
        return "each"
    if system.offers("tracing_multi"):
        return "tracing_multi"
    numbers = [int(use[3:]) for use in uses if use[:3] == "arg" and use[3:].isdigit()]
    far = any(number >= len(registers.current().arguments) for number in numbers)
    gone = returns and ("args" in uses or numbers)
    if count < MANY or far or gone or not system.offers("kprobe_multi"):
        return "each"
    return "kprobe_multi"


def share_names(
    context: ProbeContext,
    uses: Collection[str],
    names: Sequence[str],
    index: Literal["cookie", "load"],
) -> None:
    """Let one compiled program tell ``probe`` and ``func`` of many targets.

    :param uses: what the block names; without the two builtins there is nothing to do.
    :param names: the probes, one for each of the context's targets.
    :param index: how the program learns which target it is.
    """
    if _NAMES.isdisjoint(uses) or len(names) < 2:
        return
    context.extra["target_index"] = index
    context.extra["target_indices"] = {t: at for at, t in enumerate(context.targets)}
    context.extra["target_names"] = list(names)


def must_split(uses: Collection[str], count: int = 2) -> bool:
    """Whether each target gets a context of its own: its name has to be known at compile time, or
    there is just the one.

    :param uses: what the block names.
    :param count: how many targets there are.
    """
    return not _NAMES.isdisjoint(uses) and ("comptime" in uses or count == 1)


def index_of(context: ProbeContext, target: object) -> int:
    """The number that a program or a link is given for a target."""
    indices: dict[object, int] = context.extra.get("target_indices", {})
    return indices.get(target, 0)


def in_registers(btf: b.Btf, proto: b.FuncProto) -> bool:
    """Whether all arguments of a function are passed in registers, one each."""
    fits = len(proto.params) <= len(registers.current().arguments)
    return fits and all(
        not isinstance(b.resolve(btf, param.type_id), b.Composite | b.Float)
        for param in proto.params
    )


def register_slots() -> tuple[int, ...]:
    """Where the context of a kprobe has the arguments, in bytes from its start."""
    known = registers.current()
    return tuple(known.offsets[name] for name in known.arguments)


def all_slots() -> frozenset[int]:
    """The slots of arguments and returned value, none of which may be loaded as they are."""
    return frozenset(range(0, (args.MAX_ARGS + 1) * args.SLOT, args.SLOT))


def cookie_of(context: ProbeContext, target: object) -> int:
    """The attach cookie of a target; 0 where the program asks for none."""
    return index_of(context, target) if _asks_for_cookies(context) else 0


def loaded_for_each(context: ProbeContext) -> bool:
    """Whether a program that needs no target to be loaded is loaded for each all the same."""
    return context.extra.get("target_index") == "load"


def each_load(kind: ProbeType, context: ProbeContext) -> list[Load]:
    """How the program of a context is loaded for each of its targets.

    :param kind: what names the targets.
    """
    return [
        Load(
            kind.target_name(context, target),
            (target,),
            context.program_type,
            context.attach_type,
            index=index_of(context, target),
            function=getattr(target, "name", ""),
            alone=True,
        )
        for target in context.targets
    ]


def _wants_types(uses: Collection[str]) -> bool:
    """Whether a block calls a helper that takes typed pointers only."""
    from kcap.functions.registry import all_functions

    known = all_functions()
    return any(not _TYPED_HELPERS.isdisjoint(known[use].helpers) for use in uses if use in known)


def attach_by_registers(
    context: ProbeContext,
    targets: Sequence[KprobeTarget] | Sequence[BtfTarget],
    program: Program,
    *,
    is_return: bool,
    session: bool = False,
) -> Link:
    """Attach a program to many kernel functions by a kprobe_multi or kprobe_session link.

    By their places where :func:`find_places` has found them, else by their names.

    :raises AttachError: the kernel refuses; one of the functions may be to blame.
    """
    from kcap.kernel.links import attach_kprobe_multi

    functions: Sequence[str] | Sequence[int]
    cookies: Sequence[int] = ()
    if "places" in context.extra:
        places = dict(zip(context.targets, context.extra["places"], strict=True))
        functions = [places[target] for target in targets]
    else:  # the kernel wants each name once, and takes the first function that has it
        indices = {target.name: index_of(context, target) for target in targets}
        functions = list(indices)
        cookies = list(indices.values()) if _asks_for_cookies(context) else ()
    return attach_kprobe_multi(
        program.fileno(),
        functions,
        context.name,
        is_return=is_return,
        cookies=cookies,
        session=session,
    )


def find_places(context: ProbeContext, system: System) -> None:
    """Find out where the targets of a context are, if that is of use and the kernel lists it.

    Cookies go with a function's own address, which is not the one that ftrace knows: who asks for
    them is attached by names.
    """
    known = "places" in context.extra or _asks_for_cookies(context)
    if known or system.functions is None or not system.lists_addresses:
        return
    places = system.functions.places_of((t.name, t.module) for t in context.targets)
    if places is not None:
        context.extra["places"] = places


def _asks_for_cookies(context: ProbeContext) -> bool:
    """Whether the program learns from the attach cookie which target it is."""
    return context.extra.get("target_index") == "cookie"


def attach_many(
    context: ProbeContext,
    targets: Sequence[T],
    attach: Callable[[Sequence[T]], Link],
    system: System,
    by: Callable[[T], object] = lambda target: None,
) -> list[Link]:
    """Attach one program to many functions at once.

    The kernel takes all or none: a set that it refuses is halved until what it refuses is alone,
    and left out, noted in ``system.skipped``.

    :param attach: attaches the program to some of the functions.
    :param by: equal for those that can be attached to at once; by default all can.
    :raises AttachError: the kernel refuses all, or one of those that were named one by one.
    """
    from kcap.kernel.errors import AttachError
    from kcap.kernel.links import close_all

    together: dict[object, list[T]] = {}
    for target in targets:
        together.setdefault(by(target), []).append(target)
    links: list[Link] = []
    waiting: list[Sequence[T]] = [*reversed(together.values())]
    first: AttachError | None = None
    done = 0
    while waiting:
        some = waiting.pop()
        try:
            links.append(attach(some))
            done += len(some)
            system.progress("attaching", done, len(targets))
        except AttachError as error:
            first = first or error
            if len(some) > 1:
                half = len(some) // 2
                waiting += [some[half:], some[:half]]
            elif context.extra.get("expanded"):
                system.skipped.append(error)
            else:
                close_all(links)
                raise
        except BaseException:
            close_all(links)
            raise
    if first is not None and not links:
        raise first
    return links
