# SPDX-License-Identifier: Apache-2.0
"""Loading programs for, and attaching them to, places in files: what uprobe, uretprobe and usdt
share.

One program serves all places that it can serve alike, ``probe`` included: it learns from the attach
cookie which probe has fired (Linux 5.15), or is loaded for each probe before that. One link serves
all places in a file where the kernel has uprobe_multi (6.6), else each has a link of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kcap.kernel import uapi
from kcap.probes import serving
from kcap.probes.base import Load
from kcap.records import dataclass
from kcap.symbols.archive import split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.probes.base import ProbeType
    from kcap.probes.system import System
    from kcap.sema.probe import ProbeContext


@dataclass(frozen=True, slots=True)
class UserPlace:
    """A place that a program is to be attached to.

    :param path: the file, or one in an archive.
    :param offset: bytes from its start.
    :param target: which of the context's targets it belongs to.
    :param semaphore: the offset of the counter that switches a USDT probe on, or 0.
    """

    path: str
    offset: int
    target: object
    semaphore: int = 0


def share_names(
    context: ProbeContext, uses: Collection[str], names: Sequence[str], system: System
) -> None:
    """Let the program of a context tell ``probe`` of its targets; see
    :func:`kcap.probes.serving.share_names`."""
    index: Literal["cookie", "load"] = "cookie" if system.offers("perf_link") else "load"
    serving.share_names(context, uses, names, index)


def loads(kind: ProbeType, context: ProbeContext, places: int, system: System) -> list[Load]:
    """How the program of a context is loaded.

    :param kind: what names its targets.
    :param places: how many it is attached to.
    """
    if serving.loaded_for_each(context):
        return serving.each_load(kind, context)
    multi = places > 1 and system.has("uprobe_multi")
    if system.pid is not None:
        multi = multi and system.has("uprobe_multi_of_process")
    attach_type = uapi.BPF_TRACE_UPROBE_MULTI if multi else context.attach_type
    return [Load(context.name, tuple(context.targets), context.program_type, attach_type)]


def attach(
    context: ProbeContext,
    loaded: Sequence[tuple[Load, Program]],
    places: Iterable[UserPlace],
    system: System,
    *,
    is_return: bool = False,
) -> list[Link]:
    """Attach the programs of a context.

    :param loaded: as :func:`loads` said.
    :param places: those of all targets.
    :param is_return: at the return of the functions that begin there.
    :raises AttachError: the kernel refuses.
    """
    programs = {target: program.fileno() for load, program in loaded for target in load.targets}
    multi = loaded[0][0].expected_attach_type == uapi.BPF_TRACE_UPROBE_MULTI
    wanted = list(dict.fromkeys(places))
    attach_some = _attach_file if multi else _attach_one

    def attach_together(some: Sequence[UserPlace]) -> Link:
        return attach_some(context, programs[some[0].target], some, system.pid, is_return)

    def together(place: UserPlace) -> object:
        return place.path if multi else place

    return serving.attach_many(context, wanted, attach_together, system, together)


def _attach_file(
    context: ProbeContext, fd: int, places: Sequence[UserPlace], pid: int | None, is_return: bool
) -> Link:
    """Attach a program to places in one file by one link."""
    from kcap.kernel.links import attach_uprobe_multi

    semaphores = [place.semaphore for place in places]
    return attach_uprobe_multi(
        fd,
        split(places[0].path)[0],
        [place.offset for place in places],
        context.name,
        is_return=is_return,
        pid=pid or 0,
        ref_ctr_offsets=semaphores if any(semaphores) else (),
        cookies=[serving.cookie_of(context, place.target) for place in places],
    )


def _attach_one(
    context: ProbeContext, fd: int, places: Sequence[UserPlace], pid: int | None, is_return: bool
) -> Link:
    """Attach a program to the only one of some places."""
    from kcap.kernel.links import attach_uprobe

    (place,) = places
    return attach_uprobe(
        fd,
        split(place.path)[0],
        place.offset,
        is_return=is_return,
        pid=pid if pid is not None else -1,
        ref_ctr_offset=place.semaphore,
        cookie=serving.cookie_of(context, place.target),
    )
