# SPDX-License-Identifier: Apache-2.0
"""Which of the headers that a script includes are read.

Hardly any machine has kernel headers, and where the kernel has BTF they aren't needed: types come
from BTF, and the constants of user-space headers come with kcap. So a header that the kernel, the C
library or bcc has is no error when it is missing, and isn't read when it is there; those of other
libraries and of the user are read, and have to be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.lang.source import Span

if TYPE_CHECKING:
    from kcap.lang.diagnostic import Diagnostics
    from kcap.sema.kerneltypes import KernelTypes


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KERNEL_DIRECTORIES = _words("""
    acpi asm asm-generic clocksource config crypto cxl drm dt-bindings generated keys kunit kvm
    linux math-emu media memory misc mtd net pcmcia ras rdma regmap rv scsi soc sound target trace
    uapi ufs vdso video xen
    arch block certs drivers fs include init io_uring ipc kernel lib mm security virt
""")
"""First parts of the paths of kernel headers: below ``include/`` of its source, and at its top."""

LIBRARY_DIRECTORIES = _words("""
    arpa bits gnu netash netatalk netax25 neteconet netinet netipx netiucv netpacket netrom netrose
    nfs protocols rpc rpcsvc sys
    bcc bpf
""")
"""First parts of the paths of headers of the C library, bcc and libbpf."""

LIBRARY_HEADERS = _words("""
    a.out.h aio.h aliases.h alloca.h ar.h argp.h argz.h assert.h byteswap.h complex.h cpio.h crypt.h
    ctype.h dirent.h dlfcn.h elf.h endian.h envz.h err.h errno.h error.h execinfo.h fcntl.h
    features.h fenv.h float.h fmtmsg.h fnmatch.h fpu_control.h fstab.h fts.h ftw.h gconv.h getopt.h
    glob.h gnu-versions.h grp.h gshadow.h iconv.h ieee754.h ifaddrs.h inttypes.h iso646.h langinfo.h
    lastlog.h libgen.h libintl.h limits.h link.h locale.h malloc.h math.h mcheck.h memory.h mntent.h
    monetary.h mqueue.h netdb.h nl_types.h nss.h obstack.h paths.h poll.h printf.h proc_service.h
    pthread.h pty.h pwd.h re_comp.h regex.h regexp.h resolv.h sched.h search.h semaphore.h setjmp.h
    sgtty.h shadow.h signal.h spawn.h stab.h stdalign.h stdarg.h stdatomic.h stdbool.h
    stdc-predef.h stddef.h stdint.h stdio.h stdio_ext.h stdlib.h stdnoreturn.h string.h strings.h
    stropts.h syscall.h sysexits.h syslog.h tar.h termio.h termios.h tgmath.h thread_db.h threads.h
    time.h ttyent.h uchar.h ucontext.h ulimit.h unistd.h utime.h utmp.h utmpx.h values.h varargs.h
    wait.h wchar.h wctype.h wordexp.h
    vmlinux.h
""")
"""Headers at the top of the C library, and the one that bpftool makes of BTF."""

_MACHINE = os.uname().machine
_KERNEL_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}
SYSTEM_DIRECTORIES = (
    "/usr/local/include",
    f"/usr/include/{_MACHINE}-linux-gnu",
    "/usr/include",
)
"""Where the headers of libraries are installed."""

COMPILER_DIRECTORY = "/kcap-include"
COMPILER_HEADERS = {
    "float.h": "",
    "limits.h": (
        "#define _GCC_LIMITS_H_\n#include_next <limits.h>\n#define CHAR_BIT __CHAR_BIT__\n"
        "#define SCHAR_MAX __SCHAR_MAX__\n#define SHRT_MAX __SHRT_MAX__\n"
        "#define INT_MAX __INT_MAX__\n#define LONG_MAX __LONG_MAX__\n"
        "#define LLONG_MAX __LONG_LONG_MAX__\n#define UCHAR_MAX (SCHAR_MAX * 2 + 1)\n"
        "#define USHRT_MAX (SHRT_MAX * 2 + 1)\n#define UINT_MAX (INT_MAX * 2U + 1)\n"
        "#define ULONG_MAX (LONG_MAX * 2UL + 1)\n#define ULLONG_MAX (LLONG_MAX * 2ULL + 1)\n"
        "#define SCHAR_MIN (-SCHAR_MAX - 1)\n#define SHRT_MIN (-SHRT_MAX - 1)\n"
        "#define INT_MIN (-INT_MAX - 1)\n#define LONG_MIN (-LONG_MAX - 1)\n"
        "#define LLONG_MIN (-LLONG_MAX - 1)\n#define CHAR_MIN SCHAR_MIN\n"
        "#define CHAR_MAX SCHAR_MAX\n"
    ),
    "stdarg.h": (
        "typedef __builtin_va_list va_list;\ntypedef __builtin_va_list __gnuc_va_list;\n"
        "#define va_start __builtin_va_start\n#define va_end __builtin_va_end\n"
        "#define va_arg __builtin_va_arg\n#define va_copy __builtin_va_copy\n"
    ),
    "stdbool.h": "#define bool _Bool\n#define true 1\n#define false 0\n",
    "stddef.h": (
        "typedef __SIZE_TYPE__ size_t;\ntypedef __PTRDIFF_TYPE__ ptrdiff_t;\n"
        "typedef __WCHAR_TYPE__ wchar_t;\n#define NULL ((void *)0)\n"
        "#define offsetof(type, member) __builtin_offsetof(type, member)\n"
    ),
}
"""What a compiler brings and libclang doesn't, for the headers of libraries: name -> text."""


def usable_headers(
    definitions: Sequence[ast.CDefinition],
    types: KernelTypes,
    diagnostics: Diagnostics,
    include_directories: Iterable[str] = (),
) -> dict[ast.CDefinition, str]:
    """The ``#include``s that are to be read, each with the directory that it is found from.

    :param diagnostics: gets an error for a header that has to be there and is not, and a warning
        for one of the kernel's when there is no BTF either.
    """
    found: dict[ast.CDefinition, str] = {}
    given = [*include_directories, *_environment_directories(), *kernel_directories()]
    for definition in definitions:
        if definition.kind == "include" and definition.value:
            directory = _directory(definition, given)
            if directory is not None:
                found[definition] = directory
            elif not _is_known(definition.value):
                _missing(definition, diagnostics)
            elif types.btf is None and definition.value[1:-1] not in LIBRARY_HEADERS:
                diagnostics.warning(
                    "missing-header",
                    f"{definition.value[1:-1]} is not read, and the kernel has no BTF: its types "
                    "are not known",
                    definition.span,
                )
    return found


def _environment_directories() -> list[str]:
    """Directories that clang is told of in the environment."""
    paths = [os.environ.get(name, "") for name in ("CPATH", "C_INCLUDE_PATH")]
    return [directory for path in paths for directory in path.split(":") if directory]


def kernel_directories() -> list[str]:
    """Where the headers of a kernel's source are that the environment names, and those that its
    build made (by default in the same place)."""
    source = os.environ.get("BPFTRACE_KERNEL_SOURCE", "")
    if not source:
        return []
    build = os.environ.get("BPFTRACE_KERNEL_BUILD", "") or source
    arch = f"arch/{_KERNEL_ARCHITECTURES.get(_MACHINE, _MACHINE)}/include"
    below = [arch, f"{arch}/generated", "include", f"{arch}/uapi", f"{arch}/generated/uapi"]
    below += ["include/uapi", "include/generated/uapi"]
    roots = dict.fromkeys([source, build])
    return [f"{root}/{path}" for path in below for root in roots]


def kernel_arguments() -> list[str]:
    """What a compiler has to be told when it reads the headers of a kernel's source."""
    directories = kernel_directories()
    configuration = (f"{directory}/linux/kconfig.h" for directory in directories)
    found = next(filter(os.path.isfile, configuration), None)
    arguments = ["-D__KERNEL__", "-D__BPF_TRACING__", '-DKBUILD_MODNAME="kcap"']
    arguments += [f"-I{directory}" for directory in directories]
    return arguments + (["-include", found] if found is not None else [])


def _is_known(value: str) -> bool:
    """Whether a header is the kernel's, the C library's or bcc's.

    :param value: the header in its quotes or angle brackets.
    """
    first, *rest = value[1:-1].split("/")
    if not rest:
        return value[0] == "<" and first in LIBRARY_HEADERS
    return first in KERNEL_DIRECTORIES or (value[0] == "<" and first in LIBRARY_DIRECTORIES)


def _directory(definition: ast.CDefinition, given: list[str]) -> str | None:
    """The directory in which a header is found that is to be read."""
    assert definition.value is not None
    name = definition.value[1:-1]
    directories = list(given)
    if definition.value[0] == '"':
        directories.insert(0, os.path.dirname(definition.span.source.name) or ".")
    if not _is_known(f"<{name}>"):
        directories.extend(SYSTEM_DIRECTORIES)
    for directory in directories:
        if os.path.isfile(os.path.join(directory, name)):
            return directory
    return None


def _missing(definition: ast.CDefinition, diagnostics: Diagnostics) -> None:
    assert definition.value is not None
    name = definition.value[1:-1]
    span = definition.value_span or definition.span
    help_, edits = ["give its directory with -I"], []
    first, slash, rest = name.partition("/")
    near = _near(first) if slash else ""
    if near:
        help_.insert(0, f"did you mean {near}/{rest}?")
        edits = [Edit(Span(span.source, span.start + 1, span.start + 1 + len(first)), near)]
    diagnostics.error(
        "missing-header",
        f"'{name}' file not found",
        span,
        help=help_,
        edits=edits,
    )


def _near(directory: str) -> str:
    """The known directory that one is a misspelling of, or ''."""
    from kcap.symbols.nearest import nearest

    if len(directory) < 4:
        return ""
    return next(iter(nearest(directory, KERNEL_DIRECTORIES | LIBRARY_DIRECTORIES, 1)), "")
