# SPDX-License-Identifier: Apache-2.0
"""Why the kernel says no: capabilities, lockdown, limits, namespaces."""

from __future__ import annotations

from kcap.kernel.release import release
from kcap.records import dataclass

UNPRIVILEGED = "/proc/sys/kernel/unprivileged_bpf_disabled"

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYSLOG = 34
CAP_PERFMON = 38
CAP_BPF = 39

_NAMES = {
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE",
    CAP_SYSLOG: "CAP_SYSLOG",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_BPF: "CAP_BPF",
}


@dataclass(slots=True, frozen=True)
class Check:
    """One thing that tracing needs.

    :param name: what was checked.
    :param ok: whether it is fulfilled; None if that can't be told.
    :param why: what it is needed for.
    :param hint: how to fulfil it.
    """

    name: str
    ok: bool | None
    why: str
    hint: str


def effective_capabilities(status: str = "/proc/self/status") -> int | None:
    """This process' effective capabilities as a bit mask; None if /proc can't be read."""
    text = _read(status)
    for line in text.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None


def missing_capabilities(mask: int) -> tuple[str, ...]:
    """Capabilities that tracing programs need and a mask lacks.

    CAP_SYS_ADMIN covers the others; since 5.8 CAP_BPF and CAP_PERFMON are enough.
    """
    if mask >> CAP_SYS_ADMIN & 1:
        return ()
    return tuple(_NAMES[c] for c in (CAP_BPF, CAP_PERFMON) if not mask >> c & 1)


def lockdown(path: str = "/sys/kernel/security/lockdown") -> str:
    """The lockdown mode: ``none``, ``integrity``, ``confidentiality``; empty if unknown."""
    text = _read(path)
    return text.partition("[")[2].partition("]")[0]


def checks() -> tuple[Check, ...]:
    """All that tracing needs, one by one."""
    mask = effective_capabilities()
    missing = missing_capabilities(mask) if mask is not None else ()
    mode = lockdown()
    initial = in_initial_user_namespace()
    return (
        Check(
            "capabilities",
            None if mask is None else not missing,
            "loading tracing programs and opening perf events",
            _capability_hint(missing),
        ),
        Check(
            "user namespace",
            initial,
            "capabilities count in the initial user namespace only",
            "run outside of rootless containers",
        ),
        Check(
            "lockdown",
            None if not mode else mode != "confidentiality",
            "lockdown=confidentiality forbids programs to read kernel memory",
            "boot with lockdown=integrity, or without lockdown",
        ),
    )


def explain() -> str | None:
    """A hint for EPERM or EACCES: that of the first check that fails, or None."""
    for check in checks():
        if check.ok is False:
            return check.hint
    return _memlock_hint()


def in_initial_user_namespace(path: str = "/proc/self/uid_map") -> bool | None:
    """Whether this process is in the initial user namespace, whose map is the identity."""
    text = _read(path)
    return text.split() == ["0", "0", "4294967295"] if text else None


def raise_memlock_limit() -> bool:
    """Raise RLIMIT_MEMLOCK as far as allowed.

    Kernels before 5.11 account maps and programs against it and answer EPERM; later ones charge
    the memory cgroup.

    :return: whether the limit is higher than before.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return False
    try:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except (ValueError, OSError):  # no CAP_SYS_RESOURCE: up to the hard limit is allowed
        if hard in (soft, resource.RLIM_INFINITY):
            return False
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return True


def _memlock_hint() -> str | None:
    """What to do about RLIMIT_MEMLOCK where BPF counts against it: before 5.11, which can't be
    asked of the kernel."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if release() >= (5, 11) or limit == resource.RLIM_INFINITY:
        return None
    return (
        f"raise the limit of locked memory, {limit >> 10} KiB (ulimit -l unlimited): before Linux "
        "5.11 maps and programs count against it; CAP_SYS_RESOURCE lets kcap do that itself"
    )


def _capability_hint(missing: tuple[str, ...]) -> str:
    names = " and ".join(missing or ("CAP_BPF", "CAP_PERFMON"))
    hint = f"run as root (sudo), or give the process {names} (CAP_SYS_ADMIN before Linux 5.8)"
    value = _read(UNPRIVILEGED).strip()
    if "CAP_BPF" in missing and value not in ("", "0"):
        hint += f"; kernel.unprivileged_bpf_disabled is {value}: bpf(2) is for those who have them"
    return hint


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # absent or hidden: the caller answers "can't tell"
        return ""
