# SPDX-License-Identifier: Apache-2.0
"""What a machine can do, point by point: each with why it matters and how to get it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from kcap.kernel import permissions, uapi
from kcap.kernel.helpers import Helper
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kcap.btf import Btf
    from kcap.probes.system import System

OLDEST = (5, 5)
"""Before 5.5 there is no bpf_skb_output, no fentry, and no probe_read_kernel."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that was looked at.

    :param group: the heading that it stands under.
    :param name: what was looked at.
    :param ok: whether it is there; None if that can't be told.
    :param found: what was found, in a few words.
    :param why: what it is needed for.
    :param how: how to get it.
    :param needed: packet capture does not work without it.
    """

    group: str
    name: str
    ok: bool | None
    found: str
    why: str
    how: str
    needed: bool = False

    def as_data(self) -> dict[str, Any]:
        """The point as plain data for ``json.dumps``."""
        return {name: getattr(self, name) for name in self.__slots__}


class Features(Protocol):
    """What is asked of ``kcap.kernel.features``."""

    def program_type(self, kind: int, attach_type: int = 0, btf: Btf | None = None) -> bool | None:
        """Whether programs of a type can be loaded."""
        ...

    def helper(
        self, number: int, program_type: int, attach_type: int = 0, btf: Btf | None = None
    ) -> bool | None:
        """Whether programs of a type may call a helper."""
        ...

    def map_type(self, kind: int) -> bool | None:
        """Whether maps of a type can be created."""
        ...

    def loop(self) -> bool | None:
        """bpf_loop."""
        ...

    def for_each_map_elem(self) -> bool | None:
        """bpf_for_each_map_elem."""
        ...

    def perf_link(self) -> bool | None:
        """Links for perf events."""
        ...

    def kprobe_multi(self) -> bool | None:
        """kprobe_multi links."""
        ...

    def uprobe_multi(self) -> bool | None:
        """uprobe_multi links."""
        ...


class Doctor:
    """Looks at a machine.

    :param system: the machine as probes see it.
    :param features: asks the kernel by trying.
    :param release: as uname -r prints it.
    :param root: what stands before paths of sysfs and procfs (for tests).
    """

    def __init__(
        self, system: System, features: Features, release: str | None = None, root: str = ""
    ) -> None:
        self._system = system
        self._features = features
        self._release = release if release is not None else os.uname().release
        self._root = root

    def points(self) -> list[Point]:
        """Everything, in the order it is shown."""
        return [
            *self._kernel(),
            *self._rights(),
            *self._sources(),
            *self._programs(),
            *self._helpers(),
            *self._settings(),
        ]

    # The points

    def _kernel(self) -> Iterator[Point]:
        from kcap.diagnose.helpertable import release_of

        yield Point(
            "kernel", "version", release_of(self._release) >= OLDEST, self._release,
            "packets are captured by a helper that is there since Linux 5.5",
            "use a newer kernel; kcap vm run tries things in a guest", needed=True,
        )  # fmt: skip
        machine = self._system.arch
        yield Point(
            "kernel", "architecture", machine in ("x86_64", "aarch64"), machine,
            "registers and calling conventions are known for x86_64 and aarch64",
            "none: kcap does not know this one", needed=True,
        )  # fmt: skip
        jit = self._read("/proc/sys/net/core/bpf_jit_enable")
        yield Point(
            "kernel", "JIT", None if not jit else jit != "0", _setting(jit),
            "programs run several times faster, and fentry needs it",
            "sysctl net.core.bpf_jit_enable=1",
        )  # fmt: skip

    def _rights(self) -> Iterator[Point]:
        for check in permissions.checks():
            # What can't be told here shows in whether programs load.
            yield Point(
                "rights", check.name, check.ok, _word(check.ok), check.why, check.hint,
                needed=check.ok is not None,
            )  # fmt: skip
        unprivileged = self._read("/proc/sys/kernel/unprivileged_bpf_disabled")
        yield Point(
            "rights", "unprivileged_bpf_disabled", True, _setting(unprivileged),
            "only says what others than root may do: no tracing in any case", "leave it on",
        )  # fmt: skip

    def _sources(self) -> Iterator[Point]:
        btf = self._system.btf
        modules = len(self._system.btf_modules)
        tracefs = self._system.tracefs
        yield Point(
            "kernel's own data", "BTF", btf is not None,
            f"vmlinux and {modules} modules" if btf is not None else "none",
            "types of arguments and fields; fentry, fexit and packet capture need it",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y", needed=True,
        )  # fmt: skip
        yield Point(
            "kernel's own data", "tracefs", tracefs is not None,
            tracefs.path if tracefs is not None else "not readable",
            "names of functions that can be traced, and tracepoints with their fields",
            "run as root; mount -t tracefs nodev /sys/kernel/tracing",
        )  # fmt: skip
        functions = self._system.functions
        count = len(functions.names) if functions is not None else 0
        yield Point(
            "kernel's own data", "ftrace", None if functions is None else count > 0,
            f"{count} functions" if count else "no list of functions",
            "fentry, fexit and kprobes attach to functions that ftrace knows",
            "run as root; use a kernel built with CONFIG_FUNCTION_TRACER=y",
        )  # fmt: skip
        enabled = self._read("/proc/sys/kernel/ftrace_enabled")
        yield Point(
            "kernel's own data", "ftrace_enabled", None if not enabled else enabled != "0",
            _setting(enabled), "attaching fails while it is off", "sysctl kernel.ftrace_enabled=1",
        )  # fmt: skip
        for name in ("kprobe", "uprobe"):
            kind = self._read(f"/sys/bus/event_source/devices/{name}/type")
            yield Point(
                "kernel's own data", f"{name}s", bool(kind), "there" if kind else "missing",
                f"{name} and {_returning(name)}",
                f"use a kernel built with CONFIG_{name.upper()}_EVENTS=y",
            )  # fmt: skip

    def _programs(self) -> Iterator[Point]:
        from kcap.diagnose.programkinds import KINDS

        btf = self._system.btf
        for kind in KINDS:
            answer = self._features.program_type(kind.type, kind.attach_type, btf)
            yield Point(
                "programs", kind.key, answer, _word(answer),
                f"{', '.join(kind.probes)} ({kind.text})",
                "use a newer kernel, or one that is built with BPF and BTF",
                needed=kind.key == "fentry",
            )  # fmt: skip
        links: tuple[tuple[str, Callable[[], bool | None], str, str], ...] = (
            ("perf links", self._features.perf_link, "get_attach_cookie in kprobes", "5.15"),
            ("kprobe_multi", self._features.kprobe_multi, "kprobes on many functions", "5.18"),
            ("uprobe_multi", self._features.uprobe_multi, "uprobes on many functions", "6.6"),
        )
        for name, ask, why, since in links:
            answer = ask()
            yield Point(
                "programs", name, answer, _word(answer), f"{why} at once, quickly",
                f"use Linux {since} or newer; without it they are attached one by one",
            )  # fmt: skip

    def _helpers(self) -> Iterator[Point]:
        fentry = (uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY)
        answer = self._features.helper(Helper.skb_output, *fentry, self._system.btf)
        yield Point(
            "helpers", "packet capture", answer, _word(answer),
            "bpf_skb_output copies a whole packet, fragments too",
            "use Linux 5.5 or newer, with BTF and the right to load programs", needed=True,
        )  # fmt: skip
        ring = self._features.map_type(uapi.BPF_MAP_TYPE_RINGBUF)
        perf = self._features.map_type(uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY)
        yield Point(
            "helpers", "perf rings", perf, _word(perf), "packets reach user space through them",
            "use a kernel built with CONFIG_PERF_EVENTS=y", needed=True,
        )  # fmt: skip
        yield Point(
            "helpers", "BPF ring buffer", ring, _word(ring), "printf() and other events",
            "use Linux 5.8 or newer",
        )  # fmt: skip
        for name, answer, why, since in (
            ("bpf_loop", self._features.loop(), "loops over ranges", "5.17"),
            (
                "bpf_for_each_map_elem",
                self._features.for_each_map_elem(),
                "loops over maps",
                "5.13",
            ),
        ):
            yield Point("helpers", name, answer, _word(answer), why, f"use Linux {since} or newer")

    def _settings(self) -> Iterator[Point]:
        for name, why, how in (
            (
                "perf_event_paranoid",
                "from 2 on only privileged users may open perf events; root may always",
                "no need to change it for root",
            ),
            (
                "perf_event_mlock_kb",
                "memory for rings that users without privileges may lock",
                "no need to change it for root",
            ),
            (
                "perf_event_max_sample_rate",
                "profile: can't sample faster than this",
                "sysctl kernel.perf_event_max_sample_rate=100000",
            ),
            (
                "kptr_restrict",
                "2 hides kernel addresses from everyone, so that symbols can't be named",
                "sysctl kernel.kptr_restrict=1",
            ),
        ):
            value = self._read(f"/proc/sys/kernel/{name}")
            ok = None if not value else not (name == "kptr_restrict" and value == "2")
            yield Point("settings", name, ok, _setting(value), why, how)
        yield self._memlock()

    def _memlock(self) -> Point:
        import resource

        from kcap.diagnose.helpertable import release_of

        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        unlimited = soft == resource.RLIM_INFINITY
        matters = release_of(self._release) < (5, 11)
        return Point(
            "settings", "RLIMIT_MEMLOCK", True,
            "unlimited" if unlimited else f"{soft // 1024} KiB",
            "before Linux 5.11 maps and programs count against it; kcap raises it itself"
            if matters else "matters before Linux 5.11 only",
            "ulimit -l unlimited",
        )  # fmt: skip

    def _read(self, path: str) -> str:
        try:
            with open(f"{self._root}{path}", encoding="utf-8") as file:
                return file.read().strip()
        except OSError:  # absent or hidden: the point says that it can't be told
            return ""


def _word(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "can't tell"}[answer]


def _setting(value: str) -> str:
    return value or "can't tell"


def _returning(name: str) -> str:
    return f"{name[0]}ret{name[1:]}"


def capture_works(points: list[Point]) -> bool | None:
    """Whether packets can be captured: False if something that is needed is missing, None if that
    can't be told."""
    answers = [point.ok for point in points if point.needed]
    if False in answers:
        return False
    return None if None in answers else True
