# SPDX-License-Identifier: Apache-2.0
"""Opening perf events: what kprobes, uprobes, tracepoints, timers and counters are attached to.

``struct perf_event_attr`` is in include/uapi/linux/perf_event.h. The dynamic PMUs ``kprobe`` and
``uprobe`` (4.17 and later) say in sysfs which type number they have and which bit of ``config``
asks for a return probe.
"""

from __future__ import annotations

from functools import cache
from struct import pack

from kcap.kernel import uapi
from kcap.kernel.errors import SyscallError
from kcap.kernel.syscall import Buffer, perf_event_open

_PMUS = "/sys/bus/event_source/devices"
_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5 (4.8): all that is used here and no more

DISABLED = 1 << 0
FREQUENCY = 1 << 10
WATERMARK = 1 << 14
PRECISE_SHIFT = 15

_REF_CTR_OFFSET_SHIFT = 32  # PERF_UPROBE_REF_CTR_OFFSET_SHIFT in kernel/events/core.c


def attribute(
    kind: int,
    config: int = 0,
    *,
    period: int = 0,
    sample_type: int = 0,
    flags: int = 0,
    wakeup: int = 0,
    bp_type: int = 0,
    config1: int = 0,
    config2: int = 0,
) -> Buffer:
    """A perf_event_attr.

    :param kind: PERF_TYPE_* or a PMU's type number.
    :param period: sample_period, or sample_freq with FREQUENCY among the flags.
    :param flags: DISABLED, FREQUENCY, WATERMARK, ...
    :param wakeup: wakeup_events, or wakeup_watermark in bytes with WATERMARK.
    :param config1: the name's address for kprobe and uprobe; a breakpoint's address.
    :param config2: offset or address for kprobe, offset for uprobe; a breakpoint's length.
    """
    packed = pack(
        "<IIQQQQQIIQQ",
        *(kind, _ATTR_SIZE, config, period, sample_type, 0, flags),
        *(wakeup, bp_type, config1, config2),
    )
    return Buffer(packed.ljust(_ATTR_SIZE, b"\0"))


def open_event(attr: Buffer, pid: int = -1, cpu: int = 0) -> int:
    """Open an event; returns its file descriptor, closed on exec.

    :raises OSError: the kernel refused.
    """
    return perf_event_open(attr, pid, cpu, -1, uapi.PERF_FLAG_FD_CLOEXEC)


def pmu_type(name: str) -> int:
    """The type number of a PMU such as ``kprobe``.

    :raises SyscallError: the kernel has no such PMU.
    """
    return int(_pmu_file(name, "type"))


def return_probe_bit(name: str) -> int:
    """The ``config`` bit (as a mask) that makes a ``kprobe`` or ``uprobe`` event a return probe.

    :raises SyscallError: the kernel has no such PMU.
    """
    # "config:0"
    return 1 << int(_pmu_file(name, "format/retprobe").partition(":")[2])


@cache
def _pmu_file(pmu: str, name: str) -> str:
    path = f"{_PMUS}/{pmu}/{name}"
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        option = {"kprobe": "CONFIG_KPROBE_EVENTS", "uprobe": "CONFIG_UPROBE_EVENTS"}.get(pmu, "")
        raise SyscallError(
            f"the kernel has no PMU {pmu}: {path}: {error.strerror}",
            error.errno or 0,
            hint=f"use a kernel built with {option}=y" if option else None,
        ) from error


def kprobe_event(symbol: str | int, offset: int, is_return: bool) -> int:
    """Open a kprobe or kretprobe event; returns its file descriptor.

    :param symbol: a function's name (``module:function`` for a module's), or an address.
    :param offset: bytes behind the symbol; must be 0 with an address.
    :raises OSError: the kernel refused: ENOENT without such a symbol, EINVAL where no probe may be.
    """
    config = return_probe_bit("kprobe") if is_return else 0
    if isinstance(symbol, int):
        attr = attribute(pmu_type("kprobe"), config, config2=symbol)
        return open_event(attr)
    name = Buffer(symbol.encode() + b"\0")
    attr = attribute(pmu_type("kprobe"), config, config1=name.address, config2=offset)
    return open_event(attr)


def uprobe_event(path: str, offset: int, is_return: bool, pid: int, ref_ctr_offset: int) -> int:
    """Open a uprobe or uretprobe event; returns its file descriptor.

    :param path: the executable or library.
    :param offset: bytes from the start of the file.
    :param pid: only in this process; -1 for all.
    :param ref_ctr_offset: file offset of a USDT semaphore (4.20 and later), or 0.
    :raises OSError: the kernel refused.
    """
    config = return_probe_bit("uprobe") if is_return else 0
    config |= ref_ctr_offset << _REF_CTR_OFFSET_SHIFT
    name = Buffer(path.encode() + b"\0")
    attr = attribute(pmu_type("uprobe"), config, config1=name.address, config2=offset)
    return open_event(attr, pid, 0 if pid < 0 else -1)
