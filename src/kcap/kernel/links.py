# SPDX-License-Identifier: Apache-2.0
"""Attaching programs.

Each function attaches one program and returns a Link, whose closing detaches it. Nothing stays
behind in the kernel: no names in tracefs, and what is open goes with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.kernel import cpus, perf_events, uapi
from kcap.kernel.errors import AttachError, SyscallError, syscall_error
from kcap.kernel.syscall import ENOTSUPP, Buffer, bpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_CLOSERS = 8
_TICK = 0.2  # seconds


class Link(Closing):
    """An attached program.

    :param fds: file descriptors that keep it attached, which this object then owns.
    :param what: the probe, for messages.
    :param events: those among them that are perf events.
    """

    def __init__(self, fds: Sequence[int], what: str, events: Sequence[int] = ()) -> None:
        self._fds = list(fds)
        self._events = list(events)
        self.what = what

    @property
    def filenos(self) -> tuple[int, ...]:
        """The file descriptors; empty when closed."""
        return tuple(self._fds)

    @property
    def bpf_links(self) -> tuple[int, ...]:
        """Those descriptors that are links of the kernel's own kind; perf events are none."""
        return tuple(fd for fd in self._fds if fd not in self._events)

    def disable(self) -> None:
        """Stop perf events from firing, which is quick; others only stop by closing."""
        for fd in self._events:
            with suppress(OSError):  # closing follows in any case
                fcntl.ioctl(fd, uapi.PERF_EVENT_IOC_DISABLE, 0)

    def close(self) -> None:
        """Detach; doing it twice is harmless."""
        fds, self._fds, self._events = self._fds, [], []
        for fd in fds:
            os.close(fd)


def close_all(links: Iterable[Link], left: Callable[[int], None] | None = None) -> None:
    """Detach many links at once.

    Detaching waits for a grace period of RCU for every link; several threads wait together. (Those
    of fentry wait in turn even so: ftrace holds a lock meanwhile, a fifth of a second each.)

    :param left: called several times a second with how many are still to be detached.
    """
    waiting = list(links)
    for link in waiting:
        link.disable()
    if len(waiting) < 3:
        for link in waiting:
            link.close()
        return
    from threading import Thread

    def work() -> None:
        while True:
            try:
                link = waiting.pop()
            except IndexError:
                return
            link.close()

    threads = [Thread(target=work) for _ in range(min(_CLOSERS, len(waiting)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_TICK)
            if left is not None:
                left(len(waiting))


def attach_tracing(program: int, what: str, cookie: int = 0, attach_type: int = 0) -> Link:
    """Attach a TRACING program (fentry, fexit, tp_btf) to the target it was loaded for.

    :param program: its file descriptor.
    :param what: the probe, for messages.
    :param cookie: what bpf_get_attach_cookie returns; other than 0 needs Linux 5.19.
    :param attach_type: the program's expected_attach_type; only used with a cookie.
    :raises AttachError: the kernel refused.
    """
    try:
        if cookie:
            attr = pack("<IIIIIxxxxQ", program, 0, attach_type, 0, 0, cookie)
            return Link([bpf(uapi.BPF_LINK_CREATE, Buffer(attr))], what)
        # The older command works on all kernels; 5.10 refuses BPF_LINK_CREATE for these.
        return Link([_raw_tracepoint_open(program, 0)], what)
    except OSError as error:
        hint = None
        if error.errno == errno.E2BIG:
            hint = "a function takes at most 38 such programs (BPF_MAX_TRAMP_LINKS)"
        elif error.errno == errno.EBUSY:
            hint = "the function is patched by something else (live patching): use a kprobe"
        elif cookie and error.errno == errno.EINVAL:
            hint = "attach cookies for fentry, fexit and rawtracepoint need Linux 5.19 or later"
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error


def attach_tracing_multi(
    program: int, btf_ids: Sequence[int], what: str, attach_type: int, cookies: Sequence[int] = ()
) -> Link:
    """Attach a TRACING program (expected_attach_type FENTRY_MULTI, FEXIT_MULTI) to many functions.

    :param btf_ids: the functions in the BTF that the program was loaded for.
    :param attach_type: the program's expected_attach_type.
    :param cookies: what bpf_get_attach_cookie returns, one for each function, or none.
    :raises AttachError: the kernel refused; one of the functions may be to blame.
    """
    if cookies and len(cookies) != len(btf_ids):
        raise ValueError(f"{len(cookies)} cookies for {len(btf_ids)} functions")
    ids = Buffer(pack(f"<{len(btf_ids)}I", *btf_ids))
    values = Buffer(pack(f"<{len(cookies)}Q", *cookies))
    attr = pack(
        "<IIIIQQII",
        *(program, 0, attach_type, 0),
        *(ids.address, values.address if cookies else 0, len(btf_ids), 0),
    )
    try:
        return Link([bpf(uapi.BPF_LINK_CREATE, Buffer(attr))], what)
    except OSError as error:
        raise syscall_error(f"attach to {what}", error, AttachError) from error


def attach_raw_tracepoint(program: int, name: str) -> Link:
    """Attach a RAW_TRACEPOINT program to a tracepoint by name (``kfree_skb``).

    :raises AttachError: no such tracepoint, or refused.
    """
    text = Buffer(name.encode() + b"\0")
    try:
        return Link([_raw_tracepoint_open(program, text.address)], f"rawtracepoint:{name}")
    except OSError as error:
        hint = "list them: kcap -l 'rawtracepoint:*'" if error.errno == errno.ENOENT else None
        what = f"attach to rawtracepoint:{name}"
        raise syscall_error(what, error, AttachError, hint) from error


def _raw_tracepoint_open(program: int, name: int) -> int:
    return bpf(uapi.BPF_RAW_TRACEPOINT_OPEN, Buffer(pack("<QII", name, program, 0)))


def attach_kprobe(
    program: int,
    symbol: str | int,
    offset: int = 0,
    *,
    is_return: bool = False,
    cookie: int = 0,
    linked: bool = False,
    what: str = "",
) -> Link:
    """Attach a KPROBE program to a kernel function.

    :param symbol: a function (``module:function`` for a module's own), or an address.
    :param offset: bytes behind it.
    :param is_return: at the function's return.
    :param cookie: what bpf_get_attach_cookie returns; other than 0 needs Linux 5.15.
    :param linked: by a BPF link, which knows what the kprobe missed; needs Linux 5.15.
    :param what: the probe, for messages; by default made of the function.
    :raises AttachError: no such function, one that may not be probed, or refused.
    """
    where = symbol if isinstance(symbol, str) else f"{symbol:#x}"
    what = what or f"{'kretprobe' if is_return else 'kprobe'}:{where}"
    what += f"+{offset}" if offset else ""
    try:
        event = perf_events.kprobe_event(symbol, offset, is_return)
    except OSError as error:
        raise syscall_error(
            f"attach to {what}", error, AttachError, _kprobe_hint(error.errno)
        ) from error
    return attach_event(program, [event], what, cookie, linked=linked)


def _kprobe_hint(number: int | None) -> str | None:
    if number == errno.ENOENT:
        return "the kernel has no such function (it may be inlined, or its module not loaded)"
    if number == errno.EINVAL:
        return "no probe may be there: it is on the kprobe blacklist, or splits an instruction"
    if number == errno.EADDRNOTAVAIL:
        return "the name is ambiguous: several functions have it"
    return None


def attach_uprobe(
    program: int,
    path: str,
    offset: int,
    *,
    is_return: bool = False,
    pid: int = -1,
    ref_ctr_offset: int = 0,
    cookie: int = 0,
) -> Link:
    """Attach a KPROBE program to a place in an executable or library.

    :param offset: bytes from the start of the file.
    :param pid: only in this process; -1 for all, those started later included.
    :param ref_ctr_offset: file offset of a USDT semaphore, which the kernel then counts up.
    :raises AttachError: not a file that can be probed, or refused.
    """
    what = f"{'uretprobe' if is_return else 'uprobe'}:{path}:{offset:#x}"
    try:
        event = perf_events.uprobe_event(path, offset, is_return, pid, ref_ctr_offset)
    except OSError as error:
        raise syscall_error(f"attach to {what}", error, AttachError) from error
    return attach_event(program, [event], what, cookie)


def attach_tracepoint(program: int, event_id: int, what: str, cookie: int = 0) -> Link:
    """Attach a TRACEPOINT program.

    :param event_id: from tracefs (``kcap.kernel.tracefs.event_id``).
    :param what: ``tracepoint:category:name``, for messages.
    :raises AttachError: the kernel refused.
    """
    # sample_period 1: every hit; the event has no ring, so that nothing is sampled.
    attr = perf_events.attribute(uapi.PERF_TYPE_TRACEPOINT, event_id, period=1)
    try:
        event = perf_events.open_event(attr)
    except OSError as error:
        raise syscall_error(f"attach to {what}", error, AttachError) from error
    return attach_event(program, [event], what, cookie)


def attach_sampling(
    program: int,
    kind: int,
    config: int,
    what: str,
    *,
    period: int = 0,
    frequency: int = 0,
    pid: int = -1,
    on_cpus: Sequence[int] | None = None,
    cookie: int = 0,
) -> Link:
    """Attach a PERF_EVENT program to a software or hardware event, or a clock.

    :param kind: PERF_TYPE_SOFTWARE, PERF_TYPE_HARDWARE, ...
    :param config: PERF_COUNT_*.
    :param period: every so many events (nanoseconds for the clocks); or give
    :param frequency: so many times a second.
    :param pid: only in this process; -1 for all.
    :param on_cpus: the CPUs, by default all that are online.
    :raises AttachError: the event is not there (virtual machines often have no hardware events),
        or refused.
    """
    flags = perf_events.FREQUENCY if frequency else 0
    attr = perf_events.attribute(kind, config, period=frequency or period, flags=flags)
    return _attach_on_cpus(program, attr, what, pid, on_cpus, cookie)


def attach_watchpoint(
    program: int, address: int, length: int, access: int, what: str, pid: int = -1
) -> Link:
    """Attach a PERF_EVENT program to a hardware breakpoint.

    :param address: in the kernel, or in the process ``pid``.
    :param length: 1, 2, 4 or 8 bytes.
    :param access: HW_BREAKPOINT_R, _W, _X or-ed.
    :raises AttachError: no breakpoint register is free, or refused.
    """
    attr = perf_events.attribute(
        uapi.PERF_TYPE_BREAKPOINT,
        period=1,
        bp_type=access,
        config1=address,
        config2=length,
    )
    return _attach_on_cpus(program, attr, what, pid, [-1] if pid >= 0 else None, 0)


def _attach_on_cpus(
    program: int, attr: Buffer, what: str, pid: int, on_cpus: Sequence[int] | None, cookie: int
) -> Link:
    events: list[int] = []
    try:
        for cpu in cpus.online() if on_cpus is None else on_cpus:
            events.append(perf_events.open_event(attr, pid, cpu))
    except OSError as error:
        _close(events)
        hint = None
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
            hint = (
                "this machine does not have the event (virtual machines often lack hardware events)"
            )
        elif error.errno == errno.ENOSPC:
            hint = "all breakpoint registers are taken (x86-64 has 4)"
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error
    except SyscallError:
        _close(events)
        raise
    return attach_event(program, events, what, cookie)


def attach_event(
    program: int, events: Sequence[int], what: str, cookie: int = 0, *, linked: bool = False
) -> Link:
    """Attach a program to open perf events, which the link then owns; they are closed on failure.

    :param cookie: what bpf_get_attach_cookie returns.
    :param linked: by BPF links (5.15 and later), as also a cookie other than 0 needs them.
    :raises AttachError: the kernel refused.
    """
    links: list[int] = []
    try:
        for event in events:
            if cookie or linked:
                attr = pack("<IIIIQ", program, event, uapi.BPF_PERF_EVENT, 0, cookie)
                links.append(bpf(uapi.BPF_LINK_CREATE, Buffer(attr)))
            else:
                fcntl.ioctl(event, uapi.PERF_EVENT_IOC_SET_BPF, program)
        for event in events:
            fcntl.ioctl(event, uapi.PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        _close([*links, *events])
        hint = None
        if cookie and error.errno == errno.EINVAL:
            hint = "attach cookies for perf events need Linux 5.15"
        elif error.errno == errno.E2BIG:
            hint = "too many programs are attached to this event (64 at most)"
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error
    return Link([*links, *events], what, events)


def attach_kprobe_multi(
    program: int,
    functions: Sequence[str] | Sequence[int],
    what: str,
    *,
    is_return: bool = False,
    cookies: Sequence[int] = (),
    session: bool = False,
) -> Link:
    """Attach a KPROBE program (expected_attach_type KPROBE_MULTI) to many functions (5.18).

    :param functions: names; all must be in available_filter_functions. Or addresses: those of
        available_filter_functions_addrs (6.5) or the functions' own, with cookies only these. They
        spare the kernel a walk over all of its symbols.
    :param cookies: one for each function, or none.
    :param session: at entry and return, the entry deciding about the return (6.10).
    :raises AttachError: not supported (EOPNOTSUPP without CONFIG_FPROBE), a name that is no
        traceable function (ESRCH), an address where none is (EINVAL), or refused.
    """
    if cookies and len(cookies) != len(functions):
        raise ValueError(f"{len(cookies)} cookies for {len(functions)} functions")
    names = [Buffer(each.encode() + b"\0") for each in functions if isinstance(each, str)]
    at = [each for each in functions if isinstance(each, int)] or [n.address for n in names]
    pointers = Buffer(pack(f"<{len(at)}Q", *at))
    where = (pointers.address, 0) if names else (0, pointers.address)
    values = Buffer(pack(f"<{len(cookies)}Q", *cookies))
    flags = uapi.BPF_F_KPROBE_MULTI_RETURN if is_return else 0
    kind = uapi.BPF_TRACE_KPROBE_SESSION if session else uapi.BPF_TRACE_KPROBE_MULTI
    attr = pack(
        "<IIIIIIQQQ",
        *(program, 0, kind, 0, flags, len(at)),
        *(*where, values.address if cookies else 0),
    )
    try:
        return Link([bpf(uapi.BPF_LINK_CREATE, Buffer(attr))], what)
    except OSError as error:
        hint = None
        if error.errno in (errno.EOPNOTSUPP, ENOTSUPP, errno.EINVAL):
            hint = "this kernel has no kprobe_multi (5.18 and CONFIG_FPROBE=y): attach one by one"
        elif error.errno == errno.ESRCH:
            hint = "one of the functions can't be traced: see available_filter_functions in tracefs"
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error


def attach_uprobe_multi(
    program: int,
    path: str,
    offsets: Sequence[int],
    what: str,
    *,
    is_return: bool = False,
    pid: int = 0,
    ref_ctr_offsets: Sequence[int] = (),
    cookies: Sequence[int] = (),
) -> Link:
    """Attach a KPROBE program (expected_attach_type UPROBE_MULTI) to many places (6.6).

    :param path: the executable or library.
    :param offsets: bytes from the start of the file.
    :param pid: only in this process; 0 for all.
    :param ref_ctr_offsets: semaphores' offsets, one for each place, or none.
    :param cookies: one for each place, or none.
    :raises AttachError: not supported, or refused.
    """
    name = Buffer(path.encode() + b"\0")
    lists = [Buffer(pack(f"<{len(v)}Q", *v)) for v in (offsets, ref_ctr_offsets, cookies)]
    addresses = [b.address if b.size else 0 for b in lists]
    flags = uapi.BPF_F_UPROBE_MULTI_RETURN if is_return else 0
    attr = pack(
        "<IIIIQQQQIIII",
        *(program, 0, uapi.BPF_TRACE_UPROBE_MULTI, 0, name.address, *addresses),
        *(len(offsets), flags, pid, 0),
    )
    try:
        return Link([bpf(uapi.BPF_LINK_CREATE, Buffer(attr))], what)
    except OSError as error:
        hint = "uprobe_multi needs Linux 6.6" if error.errno == errno.EINVAL else None
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error


class IteratorLink(Link):
    """An attached iterator program (``iter:task``).

    :ivar pinned: the file that it is pinned to, or ''.
    """

    pinned = ""

    def pin(self, path: str) -> None:
        """Give the link a name in a BPF file system: it stays there, reading it runs the program.

        :raises AttachError: the kernel refused.
        """
        name = Buffer(os.fsencode(path) + b"\0")
        try:
            bpf(uapi.BPF_OBJ_PIN, Buffer(pack("<QII", name.address, self.filenos[0], 0)))
        except OSError as error:
            hint = None
            if error.errno == errno.EEXIST:
                hint = f"it is there already: rm {path}"
            elif error.errno in (errno.EPERM, errno.ENOENT):
                hint = "is there a BPF file system? mount -t bpf bpf /sys/fs/bpf"
            raise syscall_error(f"pin {self.what} to {path}", error, AttachError, hint) from error
        self.pinned = path

    def __enter__(self) -> IteratorLink:
        return self

    def open(self) -> int:
        """A file descriptor; reading it runs the program and gives what it wrote.

        :raises AttachError: the kernel refused.
        """
        attr = Buffer(pack("<II", self.filenos[0], 0))
        try:
            return bpf(uapi.BPF_ITER_CREATE, attr)
        except OSError as error:
            raise syscall_error(f"run {self.what}", error, AttachError) from error


def attach_iterator(program: int, what: str, info: bytes = b"") -> IteratorLink:
    """Attach an iterator program to the target it was loaded for (5.8).

    :param info: ``union bpf_iter_link_info`` where the iterator takes parameters (a map, a task).
    :raises AttachError: the kernel refused.
    """
    data = Buffer(info)
    address = data.address if info else 0
    attr = pack("<IIIIQII", program, 0, uapi.BPF_TRACE_ITER, 0, address, len(info), 0)
    try:
        return IteratorLink([bpf(uapi.BPF_LINK_CREATE, Buffer(attr))], what)
    except OSError as error:
        hint = None
        if error.errno in (errno.EINVAL, errno.EBADF):
            hint = (
                "iterators over the contents of a map or a cgroup want one to be named: use others"
            )
        raise syscall_error(f"attach to {what}", error, AttachError, hint) from error


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
