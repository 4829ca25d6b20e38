# SPDX-License-Identifier: Apache-2.0
"""What the running kernel can do, found out by trying.

Every question has three answers: True, False, and None when it can't be told (most often for want
of rights). Only the first two are remembered. Versions are not asked: distributions backport, and
leave options out.
"""

from __future__ import annotations

import errno
import os
from struct import pack
from typing import TYPE_CHECKING

from kcap.kernel import asm, uapi
from kcap.kernel.errors import SyscallError, VerifierError
from kcap.kernel.helpers import Helper
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.kernel.release import release
from kcap.kernel.spec import FunctionSpec, MapSpec, ProgramSpec
from kcap.kernel.syscall import ENOTSUPP, Buffer, bpf

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.btf import Btf

PROGRAM_ARGUMENTS = 5
"""How many arguments a function of a BPF program may have (MAX_BPF_FUNC_REG_ARGS)."""

_answers: dict[tuple[object, ...], bool] = {}

# What the verifier says of a helper number it does not know, or not for the program's type:
# check_helper_call in kernel/bpf/verifier.c ("invalid func", "unknown func" up to 6.7, "program of
# this type cannot use helper" since).
_NOT_ALLOWED = ("invalid func ", "unknown func ", "program of this type cannot use helper ")

# Functions that TRACING programs can be loaded for on any kernel with BPF trampolines, and the
# function that stands for an iterator.
_TARGETS = ("bpf_fentry_test1", "vfs_read", "ip_rcv")
_MULTI = (uapi.BPF_TRACE_FENTRY_MULTI, uapi.BPF_TRACE_FEXIT_MULTI)
_ITERATORS = ("bpf_iter_task", "bpf_iter_bpf_map")


def _remember(key: tuple[object, ...], ask: Callable[[], bool | None]) -> bool | None:
    known = _answers.get(key)
    if known is not None:
        return known
    answer = ask()
    if answer is not None:
        _answers[key] = answer
    return answer


def forget() -> None:
    """Forget all answers (for tests, and after rights have changed)."""
    _answers.clear()


def helper(
    number: int, program_type: int, attach_type: int = 0, btf: Btf | None = None
) -> bool | None:
    """Whether programs of a type may call a helper.

    :param number: ``Helper.*``.
    :param program_type: BPF_PROG_TYPE_*.
    :param attach_type: expected_attach_type, where helpers depend on it (TRACING).
    :param btf: the kernel's types; needed for TRACING.
    """

    def ask() -> bool | None:
        target = _tracing_target(program_type, attach_type, btf)
        if target is None:
            return None
        code = asm.call(number) + asm.mov_imm(asm.R0, 0) + asm.exit_()
        spec = ProgramSpec("probe_helper", program_type, code, attach_type, attach_btf_id=target)
        try:
            Program.load(spec, {}).close()
        except VerifierError as error:
            return not any(line.startswith(_NOT_ALLOWED) for line in error.log)
        except SyscallError as error:
            return _unless_denied(error)
        return True

    return _remember(("helper", number, program_type, attach_type), ask)


def _tracing_target(program_type: int, attach_type: int, btf: Btf | None) -> int | None:
    """Id to load a TRACING program for; 0 for other types; None if there is no way to tell."""
    if program_type != uapi.BPF_PROG_TYPE_TRACING or attach_type in _MULTI:
        return 0
    if btf is None:
        return None
    from kcap.btf import Func, Typedef

    if attach_type == uapi.BPF_TRACE_RAW_TP:
        for name in ("sched_switch", "kfree_skb"):
            typedef = btf.find(f"btf_trace_{name}", Typedef)
            if typedef is not None:
                return typedef.id
        return None
    for name in _ITERATORS if attach_type == uapi.BPF_TRACE_ITER else _TARGETS:
        function = btf.find(name, Func)
        if function is not None:
            return function.id
    return None


def program_type(kind: int, attach_type: int = 0, btf: Btf | None = None) -> bool | None:
    """Whether programs of a type can be loaded.

    :param kind: BPF_PROG_TYPE_*.
    :param attach_type: expected_attach_type.
    :param btf: the kernel's types; needed for TRACING.
    """

    def ask() -> bool | None:
        target = _tracing_target(kind, attach_type, btf)
        if target is None:
            return None
        code = asm.mov_imm(asm.R0, 0) + asm.exit_()
        try:
            Program.load(
                ProgramSpec("probe_type", kind, code, attach_type, attach_btf_id=target), {}
            ).close()
        except SyscallError as error:
            return _unless_denied(error)
        return True

    return _remember(("program", kind, attach_type), ask)


def map_type(kind: int) -> bool | None:
    """Whether maps of a type (BPF_MAP_TYPE_*) can be created."""
    key, value, entries, flags = 4, 4, 1, 0
    if kind == uapi.BPF_MAP_TYPE_RINGBUF:
        key, value, entries = 0, 0, 4096
    elif kind == uapi.BPF_MAP_TYPE_STACK_TRACE:
        value = 8
    elif kind in (uapi.BPF_MAP_TYPE_QUEUE, uapi.BPF_MAP_TYPE_STACK, uapi.BPF_MAP_TYPE_BLOOM_FILTER):
        key = 0

    def ask() -> bool | None:
        try:
            Map.create(MapSpec("probe_map", kind, key, value, entries, flags)).close()
        except SyscallError as error:
            return _unless_denied(error)
        return True

    return _remember(("map", kind), ask)


def ring_buffer() -> bool | None:
    """BPF_MAP_TYPE_RINGBUF (5.8)."""
    return map_type(uapi.BPF_MAP_TYPE_RINGBUF)


def loop() -> bool | None:
    """bpf_loop (5.17), by loading a program with a callback."""
    return _callback(Helper.loop)


def for_each_map_elem() -> bool | None:
    """bpf_for_each_map_elem (5.13), by loading a program with a callback."""
    return _callback(Helper.for_each_map_elem)


def _callback(number: int) -> bool | None:
    """Load a program that passes a callback to a helper."""

    def ask() -> bool | None:
        array = MapSpec("probe_each", uapi.BPF_MAP_TYPE_ARRAY, 4, 8, 1)
        try:
            with Map.create(array) as each:
                Program.load(_callback_program(number, each.fileno()), {}).close()
        except SyscallError as error:
            return _unless_denied(error)
        return True

    return _remember(("callback", number), ask)


def _callback_program(number: int, map_fd: int) -> ProgramSpec:
    # bpf_loop(1, f, NULL, 0); bpf_for_each_map_elem(map, f, NULL, 0)
    first = (
        asm.load_imm64(asm.R1, map_fd, uapi.BPF_PSEUDO_MAP_FD)
        if number == Helper.for_each_map_elem
        else asm.load_imm64(asm.R1, 1)
    )
    # the callback begins at instruction 9; its load is the third instruction
    code = (
        first
        + asm.load_imm64(asm.R2, 9 - 2 - 1, uapi.BPF_PSEUDO_FUNC)
        + asm.mov_imm(asm.R3, 0)
        + asm.mov_imm(asm.R4, 0)
        + asm.call(number)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    functions = (FunctionSpec("probe_callback", 0), FunctionSpec("callback", 9))
    return ProgramSpec("probe_callback", uapi.BPF_PROG_TYPE_KPROBE, code, functions=functions)


def perf_link() -> bool | None:
    """BPF_LINK_CREATE for perf events (5.15): attach cookies of kprobes, uprobes, tracepoints.

    The kernel checks the program, then the event: EBADF for a wrong event says that it knows.
    """

    def ask() -> bool | None:
        return _link_error(0, uapi.BPF_PERF_EVENT, 0xFFFFFFFF, b"", (errno.EBADF,))

    return _remember(("perf_link",), ask)


def kprobe_multi() -> bool | None:
    """kprobe_multi links (5.18, CONFIG_FPROBE)."""
    return _remember(("kprobe_multi",), lambda: _takes_names(uapi.BPF_TRACE_KPROBE_MULTI))


def kprobe_session() -> bool | None:
    """kprobe_session links (6.10): one program at entry and return."""
    return _remember(("kprobe_session",), lambda: _takes_names(uapi.BPF_TRACE_KPROBE_SESSION))


def _takes_names(kind: int) -> bool | None:
    """Whether there are links of a kind that takes names of functions: one that no function has
    gives ESRCH then, and attaches nothing."""
    name = Buffer(b"kcap no such function\0")
    names = Buffer(pack("<Q", name.address))
    data = pack("<IIQQQ", 0, 1, names.address, 0, 0)
    return _link_error(kind, kind, 0, data, (errno.ESRCH, errno.ENOENT))


def tracing_multi() -> bool | None:
    """fentry and fexit of many functions by one program and link (7.2).

    Only for BPF_TRACE_FENTRY_MULTI the kernel takes a TRACING program without a target.
    """
    return program_type(uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY_MULTI)


def uprobe_multi() -> bool | None:
    """uprobe_multi links (6.6).

    A path that is no file (the root directory) gives EBADF where they exist.
    """

    def ask() -> bool | None:
        path, offsets = Buffer(b"/\0"), Buffer(pack("<Q", 0))
        data = pack("<QQQQIIII", path.address, offsets.address, 0, 0, 1, 0, 0, 0)
        kind = uapi.BPF_TRACE_UPROBE_MULTI
        return _link_error(kind, kind, 0, data, (errno.EBADF,))

    return _remember(("uprobe_multi",), ask)


def uprobe_multi_of_process() -> bool:
    """Whether a uprobe_multi link for a process sees all of its threads, not its first one only:
    since 6.10 (commit 46ba0e49b642), which can't be asked for otherwise than by the version."""
    return release() >= (6, 10)


def _link_error(
    expected: int, attach_type: int, target: int, data: bytes, known: tuple[int, ...]
) -> bool | None:
    """Try a BPF_LINK_CREATE that can't succeed; whether its error shows that it is known."""
    code = asm.mov_imm(asm.R0, 0) + asm.exit_()
    spec = ProgramSpec("probe_link", uapi.BPF_PROG_TYPE_KPROBE, code, expected)
    try:
        program = Program.load(spec, {})
    except SyscallError as error:
        return _unless_denied(error)
    with program:
        attr = Buffer(pack("<IIII", program.fileno(), target, attach_type, 0) + data)
        try:
            os.close(bpf(uapi.BPF_LINK_CREATE, attr))
        except OSError as error:
            if error.errno in known:
                return True
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP):
                return False
            return None
    return True


def tracing_cookie(btf: Btf) -> bool:
    """Attach cookies for fentry, fexit and rawtracepoint (5.19).

    From the kernel's types, not by trying (attaching would be the only way): ``union bpf_attr``
    has ``link_create.tracing.cookie``.
    """
    from kcap.btf import Composite, Union, find_member, strip_modifiers

    found = btf.find("bpf_attr", Union)
    for name in ("link_create", "tracing", "cookie"):
        member = find_member(btf, found, name) if found is not None else None
        if member is None:
            return False
        inner = strip_modifiers(btf, member.member.type_id)
        found = inner if isinstance(inner, Composite) else None  # type: ignore[assignment]
    return True


def untyped_function(program: int, type_id: int) -> bool | None:
    """Whether the kernel takes a function of a BPF program for one of five integers, whatever its
    BTF says: the verifier found that not to fit (``unreliable`` in struct bpf_func_info_aux). The
    returned value then stands behind five slots, which only a program at its return may look at.

    :param program: the id of the program that it is in.
    :param type_id: of the function, with fewer than five arguments, in the program's BTF.
    """

    def ask() -> bool | None:
        code = asm.load(asm.R0, asm.R1, 8 * PROGRAM_ARGUMENTS) + asm.mov_imm(asm.R0, 0)
        spec = ProgramSpec(
            "probe_untyped",
            uapi.BPF_PROG_TYPE_TRACING,
            code + asm.exit_(),
            uapi.BPF_TRACE_FEXIT,
            attach_btf_id=type_id,
            attach_program=program,
        )
        try:
            Program.load(spec, {}).close()
        except VerifierError:
            return False
        except SyscallError as error:
            return _unless_denied(error)
        return True

    return _remember(("untyped function", program, type_id), ask)


def _unless_denied(error: SyscallError) -> bool | None:
    """The answer to a failed try: False, or None where rights or memory may be the reason."""
    if error.errno in (errno.EPERM, errno.EACCES, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return None
    return False
