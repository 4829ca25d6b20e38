# SPDX-License-Identifier: Apache-2.0
"""What the verifier's messages mean: the pattern of each, its cause, and what to do.

The wordings are those of kernel/bpf/verifier.c and kernel/bpf/btf.c from 4.19 to 7.2; the real
logs of four kernels in ``tests/unit/diagnose/logs`` witness them. The first family that fits a
line counts, so special ones stand before general ones.
"""

from __future__ import annotations

import re
from functools import cache

from kcap.records import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A family of messages.

    :param code: the code of the diagnostic.
    :param pattern: a regular expression; its named groups may be used in the texts.
    :param title: what is wrong, in one line.
    :param cause: why the kernel refuses that.
    :param advice: what to do in the script.
    """

    code: str
    pattern: str
    title: str
    cause: str
    advice: str

    @property
    def compiled(self) -> re.Pattern[str]:
        """The pattern, compiled once."""
        return _compiled(self.pattern)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_TYPE = r"(?P<type>[\w|&() ]+?)"

HELPER_PATTERNS = (
    r"program of this type cannot use helper (?P<helper>\w+)#(?P<number>\d+)",
    r"unknown func (?P<helper>\w+)#(?P<number>\d+)",
    r"invalid func (?P<helper>\w+)#(?P<number>\d+)",
    r"func (?P<helper>\w+)#(?P<number>\d+) not supported for program type",
)
"""A helper that the program may not call: from 6.8 on; up to 6.7; where the kernel does not even
know a helper of that number; for bpf_get_func_ip."""

FAMILIES: tuple[Family, ...] = (
    Family(
        "helper-sleeps",
        r"(helper call might sleep in a non-sleepable prog|sleepable helper (?P<name>\w+)#)",
        "a helper that may sleep is called where sleeping is not allowed",
        "reading user memory that is not in RAM sleeps until it is, and most probes run where the "
        "kernel can't wait",
        "use str() or probe reads, which give up instead of waiting",
    ),
    Family(
        "helper-not-in-probe",
        r"helper call is not allowed in probe",
        "helper bpf_d_path not allowed in probe",
        "the kernel lists the functions in which the helper is safe (bpf_d_path: see "
        "btf_allowlist_d_path in kernel/trace/bpf_trace.c)",
        "attach to a function of that list, such as fentry:filp_close or fentry:vfs_getattr for "
        "path()",
    ),
    Family(
        "gpl",
        r"cannot call GPL-restricted function",
        "a helper is for programs under the GPL only",
        "the program was loaded with another licence",
        'set license = "GPL" in the script\'s config block',
    ),
    Family(
        "stack",
        r"combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large",
        "the program needs {size} bytes of stack, and BPF has 512",
        "all functions that are called one from another share 512 bytes",
        "use shorter strings (config max_strlen), fewer variables of struct type, or maps",
    ),
    Family(
        "stack",
        r"(invalid stack off=(?P<off>-?\d+) size=(?P<size>\d+)"
        r"|invalid write to stack R\d+ off=(?P<off2>-?\d+))",
        "the program writes beyond its stack of 512 bytes",
        "strings, structs and tuples that are kept in variables stand on the stack",
        "use shorter strings (config max_strlen), fewer variables of struct type, or maps",
    ),
    Family(
        "uninitialized",
        r"(invalid (indirect )?read from stack|invalid read from stack)",
        "the program reads stack memory that it has not written",
        "older kernels want every byte of the stack to be written before it is read",
        "this should not come from a script: please report it with the script and the log (-v)",
    ),
    Family(
        "uninitialized",
        r"R(?P<register>\d+) !read_ok",
        "the program reads register r{register} before it has a value",
        "registers have no value at the start, and calls leave r1 to r5 without one",
        "this should not come from a script: please report it with the script and the log (-v)",
    ),
    Family(
        "too-complex",
        r"BPF program is too large\. Processed (?P<count>\d+) insn",
        "the program is too complex: the verifier gave up after {count} instructions",
        "the verifier follows every path; loops count with every round, and each if doubles paths",
        "make loops shorter, unroll less, put filters first, or split the script",
    ),
    Family(
        "too-complex",
        r"The sequence of (?P<count>\d+) jumps is too complex",
        "the program is too complex: more than {count} branches are open at once",
        "the verifier remembers every branch that it has not followed yet",
        "use fewer conditions in a row, or split the script",
    ),
    Family(
        "too-complex",
        r"(?P<what>program|BPF program) is too large",
        "the program has too many instructions",
        "a program may have 1,000,000 instructions, 4,096 without privileges",
        "split the script, or unroll less",
    ),
    Family(
        "loop",
        r"infinite loop detected at insn (?P<insn>\d+)",
        "a loop never ends",
        "the verifier came back to instruction {insn} with nothing changed",
        "let the condition of the loop depend on something that the loop changes",
    ),
    Family(
        "loop",
        r"(back-edge from insn (?P<insn>\d+) to (?P<target>\d+))",
        "the program has a loop, which this kernel does not take",
        "loops are allowed since Linux 5.3, and only for privileged users",
        "use unroll, or run as root",
    ),
    Family(
        "unreachable",
        r"unreachable insn (?P<insn>\d+)",
        "a part of the program can never run",
        "the verifier refuses code behind an unconditional jump or return",
        "remove what stands behind return; if nothing does, please report it",
    ),
    Family(
        "arguments",
        r"func '(?P<function>[\w.]+)' doesn't have (?P<number>\d+)-th argument",
        "{function} has fewer arguments than are read",
        "argument number {number} is not in the function's BTF",
        "see its arguments with kcap -lv 'fentry:{function}'",
    ),
    Family(
        "context",
        r"func '(?P<function>[\w.]+)' offset (?P<offset>\d+) is not multiple of 8",
        "an argument of {function} is read from the wrong place",
        "each argument stands in a slot of 8 bytes",
        "this should not come from a script: please report it with the script and the log (-v)",
    ),
    Family(
        "context",
        r"func '(?P<function>[\w.]+)' (arg(?P<number>\d+) )?(has |type )",
        "an argument of {function} can't be read like this",
        "the verifier takes arguments that are numbers or pointers to structs only",
        "read it as a number, or use kprobe and a cast",
    ),
    Family(
        "context",
        r"invalid bpf_context access off=(?P<off>\d+) size=(?P<size>\d+)",
        "the program reads {size} bytes at offset {off} of its context, where nothing is",
        "a probe's context holds its arguments or registers, and no more",
        "use arguments that the probe has: kcap -lv PROBE lists them",
    ),
    Family(
        "null-check",
        r"R(?P<register>\d+) invalid mem access '(?P<type>\w*_or_null_?\w*|\w*or_null\w*)'",
        "a pointer that may be NULL is followed without a check",
        "a look-up in a map, and some struct members, give NULL where there is nothing",
        "check it first: if ($p != 0) {{ … }}; from kcap itself, please report it",
    ),
    Family(
        "not-a-pointer",
        r"R(?P<register>\d+) invalid mem access '(?P<type>inv|scalar|unknown_value)'",
        "a number is followed as if it were a pointer",
        "the verifier only lets programs follow pointers whose type it knows; others have to be "
        "read with a helper (bpf_probe_read_kernel)",
        "cast it to a pointer of the right type, so that it is read with a helper",
    ),
    Family(
        "invalid-access",
        r"R(?P<register>\d+) invalid mem access '(?P<type>[^']*)'",
        "memory is read through a value of type {type}, which can't be followed",
        "each kind of pointer allows certain accesses only",
        "read it with a cast and a helper; from kcap itself, please report it",
    ),
    Family(
        "unbounded",
        r"(?P<register>R\d+) unbounded memory access",
        "a length or an index has no upper limit that the verifier can see",
        "every value that a size or an offset is made from has to be bounded",
        "limit it: $n & 0xff, or if ($n < 256) {{ … }}",
    ),
    Family(
        "unbounded",
        r"(?P<register>R\d+) min value is negative",
        "a length or an index may be negative",
        "the verifier follows the lowest value that it may have",
        "make it unsigned with a cast, or limit it: $n & 0xff",
    ),
    Family(
        "unbounded",
        r"math between (?P<type>\w+) pointer and register with unbounded",
        "an index has no limits that the verifier can see",
        "every value that is added to a pointer has to be bounded",
        "limit it: $n & 0xff, or if ($n < 256) {{ … }}",
    ),
    Family(
        "bounds",
        r"invalid access to map value, value_size=(?P<have>\d+) off=(?P<off>-?\d+) "
        r"size=(?P<size>\d+)",
        "the program accesses {size} bytes at offset {off} of a map's value of {have} bytes",
        "an index lies, or may lie, behind the end",
        "check the index before it is used",
    ),
    Family(
        "bounds",
        r"(?P<register>R\d+) (min|max) value is outside of the (allowed|array) (memory )?range",
        "an index may lie outside of the memory that it is for",
        "the verifier follows the lowest and highest value that it may have",
        "check it before it is used: if ($n < 8) {{ … }}",
    ),
    Family(
        "bounds",
        r"(access beyond struct (?P<struct>\w+) at off (?P<off>\d+) size (?P<size>\d+))",
        "the program reads {size} bytes at offset {off} of struct {struct}, behind its end",
        "the kernel's struct is smaller than the program thinks",
        "use the kernel's own type (BTF) instead of one that the script defines",
    ),
    Family(
        "bounds",
        r"invalid (access to (memory|packet)|zero-size read|zero-sized read)"
        r"|R\d+ invalid zero-sized read",
        "the program accesses memory outside of what it may, or none at all",
        "the length may be zero, or the access may go past the end",
        "check the length before it is used: if ($n > 0) {{ … }}",
    ),
    Family(
        "write",
        r"(only read is supported|cannot write into|write into map forbidden"
        r"|write to .* prohibited)",
        "the program writes into the kernel's memory",
        "tracing programs may read the kernel's structs, not change them",
        "keep values in variables or maps",
    ),
    Family(
        "pointer-arithmetic",
        r"(R(?P<register>\d+) (bitwise operator|pointer arithmetic|pointer comparison|partial copy)"
        r"|dereference of modified (ctx|\w+) ptr|variable (ctx|\w+) access|math between .* pointer"
        r"|pointer arithmetic on .* prohibited)",
        "the program computes with a pointer in a way that the verifier can't follow",
        "pointers whose type is known may only be followed, compared, or moved by constants",
        "cast it to uint64 first, compute, and cast it back",
    ),
    Family(
        "kfunc",
        r"calling (kernel function|invalid kernel function|kernel functions?) "
        r"?(?P<function>[\w.']*) ?(is not allowed|are not allowed|not allowed)",
        "the kernel function {function} may not be called by programs of this type",
        "only functions that the kernel offers to BPF (kfuncs) can be called, each by certain "
        "program types",
        "see kcap explain --function {function}",
    ),
    Family(
        "kfunc",
        r"(kernel btf_id (?P<id>\d+) is not a function|calling kernel function is not|"
        r"kernel function .* not (found|supported)|invalid kernel function call)",
        "the program calls a kernel function that this kernel does not have",
        "kfuncs come and go with the kernel's version and configuration",
        "use another function, or a kernel that has it",
    ),
    Family(
        "kfunc",
        r"BPF_CALL uses reserved fields",
        "the program calls a kernel function, which this kernel does not let BPF do",
        "kfuncs can be called since Linux 5.13",
        "use a newer kernel, or a script without the function",
    ),
    Family(
        "target",
        r"(Tracing programs must provide btf_id|attach_btf_id (?P<id>\d+) is (not|invalid).*"
        r"|attach_btf_id (?P<id2>\d+) is not a (function|struct|typedef).*"
        r"|FENTRY/FEXIT program can only be attached to.*)",
        "the program's target is not a function that can be traced",
        "fentry and fexit name a function by its id in the kernel's BTF",
        "use the function's name as kcap -l 'fentry:*' lists it",
    ),
    Family(
        "target",
        r"The address of function (?P<function>[\w.]+) cannot be found",
        "{function} can't be traced: it has no address of its own",
        "BTF has it, but the compiler inlined it or the linker dropped it",
        "trace a function that calls it: kcap -l 'fentry:*' lists those that can be traced",
    ),
    Family(
        "target",
        r"((?P<function>[\w.]+)\(\) is not modifiable|can't modify return codes"
        r"|Cannot (recursively )?attach|Attaching tracing programs to function '(?P<name>[\w.]+)' "
        r"is rejected)",
        "the kernel refuses to attach to this function",
        "functions that BPF itself runs through can't be traced by it",
        "trace a function that calls it, or that it calls",
    ),
    Family(
        "btf",
        r"(in-kernel BTF is malformed|btf_vmlinux is malformed|bpf verifier is misconfigured"
        r"|missing BTF|BTF (is )?(missing|not (found|available|supported))|no BTF|Invalid BTF"
        r"|support BTF|kernel BTF|func_info .*|missing btf func_info)",
        "the BTF that the program needs is missing or damaged",
        "types of the kernel (or of the program's own functions) can't be told",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
    ),
    Family(
        "permission",
        r"(Lockdown: \S+ .* is restricted|[Kk]ernel is locked down|kernel_lockdown\.7)",
        "the kernel is locked down",
        "lockdown in confidentiality mode forbids programs to read the kernel's memory, and "
        "kprobes; Secure Boot turns lockdown on in some distributions",
        "boot without lockdown, or with lockdown=integrity; kcap doctor tells the mode",
    ),
    Family(
        "permission",
        r"(Operation not permitted|Permission denied|EPERM|EACCES"
        r"|prohibited for !root|allowed for (root|CAP_BPF|CAP_SYS_ADMIN|CAP_PERFMON).*"
        r"|Bpf calls not allowed)",
        "the kernel does not let this process load the program",
        "loading tracing programs takes CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), no "
        "lockdown in confidentiality mode, and before 5.11 enough locked memory (RLIMIT_MEMLOCK)",
        "run as root; kcap doctor tells what is missing",
    ),
    Family(
        "control-flow",
        r"(jump out of range from insn (?P<insn>\d+)|last insn is not an exit or jmp"
        r"|jump into the middle of ldimm64|invalid BPF_LD_IMM|unknown opcode"
        r"|BPF_\w+ uses reserved)",
        "the program is malformed",
        "the verifier checks that every jump stays inside and every path ends in an exit",
        "this should not come from a script: please report it with the script and the log (-v)",
    ),
    Family(
        "result",
        r"At program exit the register R0 has",
        "the program returns a value that programs of this type may not return",
        "tracing programs return 0",
        "return nothing, or 0",
    ),
)
"""Families without those of helpers and register types, which need more than a text."""
