# SPDX-License-Identifier: Apache-2.0
"""Messages of bpftrace and other tools, explained in the same terms as the verifier's.

What people paste into issue trackers; the wording of several versions.
"""

from __future__ import annotations

from kcap.diagnose.families import Family

MESSAGES: tuple[Family, ...] = (
    Family(
        "helper-not-allowed",
        r"skboutput can ?not be used with ['\"]?(?P<probe>\w+)",
        "skboutput() can't be used in {probe} probes",
        "it needs the helper bpf_skb_output, which only fentry, fexit and raw tracepoints may call",
        "kcap fix rewrites a kprobe as fentry and a tracepoint as rawtracepoint",
    ),
    Family(
        "no-libpcap",
        r"Failed to create pcap file",
        "this bpftrace can't write captures",
        "it was built without libpcap, as the packages of Debian and Ubuntu are",
        "run the script with kcap, which writes pcap and pcapng itself",
    ),
    Family(
        "not-traceable",
        r"(?P<function>[\w.]+) is not traceable",
        "{function} can't be traced",
        "it does not exist on this kernel, the compiler inlined it, or it is marked notrace",
        "see kcap explain --function {function}",
    ),
    Family(
        "no-match",
        r"No matches for (?P<probe>\w+) (?P<target>\S+?)\.?$",
        "there is no {probe} {target} on this machine",
        "functions and events come and go with the kernel's version, configuration and modules",
        "list what there is: kcap -l '{probe}:*'",
    ),
    Family(
        "attach",
        r"(Unable to attach probe: |Error attaching probe: ?'?)(?P<probe>[^\s']+)",
        "{probe} can't be attached",
        "the function does not exist on this kernel, was inlined, or may not be probed",
        "see kcap explain --function with its name; kcap -l lists what there is",
    ),
    Family(
        "attach-offset",
        r"(in the middle of an instruction|Invalid or incomplete multibyte)",
        "the probe's offset is inside of an instruction",
        "a kprobe replaces a whole instruction",
        "look where instructions begin: objdump -d of the kernel image",
    ),
    Family(
        "unknown-type",
        r"(Cannot resolve unknown type|Unknown struct/union:) ['\"]?(struct |union )?(?P<type>\w+)",
        "there is no type {type}",
        "types come from BTF; those of modules only when it is clear which module is meant",
        "name the module in the probe (kprobe:MODULE:FUNCTION), or load it",
    ),
    Family(
        "field",
        r"(Struct/union of type|no field|does not contain a field)[^\n]*?"
        r"['\"](?P<field>\w+)['\"]?",
        "there is no field {field}",
        "structs change with the kernel's version",
        "see its fields: kcap -lv 'struct NAME'",
    ),
    Family(
        "args-in-kprobe",
        r"[Tt]he args builtin can only be used|args.* not (available|supported) .*kprobe",
        "args does not exist in this probe",
        "kprobes know registers only: arg0, arg1, …",
        "use fentry, whose arguments have names, or argN with a cast",
    ),
    Family(
        "stack",
        r"BPF stack limit( of \d+ bytes)? is exceeded",
        "the program needs more stack than the 512 bytes that BPF has",
        "strings, structs and tuples that are kept in variables stand on the stack",
        "use shorter strings (config max_strlen), fewer variables of struct type, or maps",
    ),
    Family(
        "builtin-memcpy",
        r"call to built-in function '(?P<name>mem\w+)' is not supported",
        "the program copies more at once than BPF can",
        "LLVM made a call of {name}(), and there is no C library in the kernel",
        "use shorter strings or arrays",
    ),
    Family(
        "root",
        r"(only supports running as the root user|must be run as root)",
        "tracing takes privileges",
        "loading programs takes CAP_BPF and CAP_PERFMON",
        "run as root; kcap doctor tells what is missing",
    ),
    Family(
        "log-too-long",
        r"No space left on device|Error code: -28",
        "the verifier's log did not fit",
        "the kernel says so when the buffer for the log is too small, whatever else is wrong",
        "run the script with kcap, or raise BPFTRACE_LOG_SIZE",
    ),
    Family(
        "too-many-probes",
        r"(trying to (attach to|generate more than)|Can't attach to) (?P<count>\d+) "
        r"(probes|BPF programs)",
        "the wildcards stand for too many probes: the limit is {count}",
        "each takes memory and time to attach",
        "use narrower wildcards, or raise BPFTRACE_MAX_PROBES (BPFTRACE_MAX_BPF_PROGS)",
    ),
    Family(
        "begin-trigger",
        r"Could not resolve symbol: /proc/self/exe:(BEGIN|END)_trigger",
        "this bpftrace was stripped, and can't run BEGIN",
        "it put a probe on a function of its own, whose name stripping removed",
        "run the script with kcap, which needs no such function",
    ),
    Family(
        "resolve",
        r"Could not resolve (symbol|address):? (?P<symbol>\S+?)\.?( |$)",
        "{symbol} is in no symbol table that can be read",
        "the program was stripped, or the function has another name there",
        "list its functions: kcap -l 'uprobe:PATH:*'",
    ),
    Family(
        "lost-events",
        r"Lost (?P<count>\d+) events",
        "{count} events were lost",
        "the script prints faster than the output is written",
        "print less (count in maps), filter earlier, or raise BPFTRACE_PERF_RB_PAGES",
    ),
    Family(
        "map-full",
        r"Map full; can't update element",
        "a map has no room for more keys",
        "a map holds 4096 keys unless told otherwise",
        "set config max_map_keys, or declare the map: let @x = hash(100000)",
    ),
    Family(
        "memlock",
        r"(RLIMIT_MEMLOCK|couldn't get RLIMIT|Error creating map)",
        "a map could not be created",
        "before Linux 5.11 maps count against RLIMIT_MEMLOCK",
        "ulimit -l unlimited; kcap raises it itself",
    ),
)
