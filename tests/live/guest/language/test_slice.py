# SPDX-License-Identifier: Apache-2.0
"""The language on real kernels: what programs print is what C, Python or the kernel itself say.

One script with many programs runs once; each test looks at what one of them printed. Values come
into the programs as arguments of prctl(2) with an option that the kernel does not know, so that
nothing can be computed at compile time.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kcap.functions import events
from kcap.lang.diagnostic import ScriptError
from support.net import Network, wait_until
from support.tracing import Running, without_preempted

OPTION = 0x6B636170
_LIBC = ctypes.CDLL(None, use_errno=True)

#: Operands: (left, right) as signed 64-bit numbers.
OPERANDS = [
    (17, 5), (-17, 5), (17, -5), (-17, -5), (1, 63), (-1, 1), (2**62, 3), (-(2**63), 7),
    (0x0123456789ABCDEF, 0x7F00FF00FF00FF00), (0, 9), (255, 8), (-128, 2), (3_000_000_000, 1000),
    (5, 5),
]  # fmt: skip
CASE_OPERATORS, CASE_ONCE, CASE_AGGREGATE, CASE_PRINT, CASE_CPUS, CASE_WIDTHS = range(1, 7)
SAMPLES = (1, 2, 3, 8, 100, -4)


def signed(value: int, bits: int = 64) -> int:
    """Return a number as a signed one of so many bits sees it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def unsigned(value: int, bits: int = 64) -> int:
    """Return a number as an unsigned one of so many bits sees it."""
    return value & ((1 << bits) - 1)


def quotient(left: int, right: int) -> int:
    """Divide as C does: towards zero."""
    result = abs(left) // abs(right)
    return result if (left < 0) == (right < 0) else -result


#: Operators on signed numbers $a and $b, and on unsigned ones $u and $v: what C computes.
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "$a + $b": lambda a, b: signed(a + b),
    "$a - $b": lambda a, b: signed(a - b),
    "$a * $b": lambda a, b: signed(a * b),
    "$a / $b": quotient,
    "$a % $b": lambda a, b: a - b * quotient(a, b),
    "$u / $v": lambda a, b: signed(unsigned(a) // unsigned(b)),
    "$u % $v": lambda a, b: signed(unsigned(a) % unsigned(b)),
    "$a & $b": lambda a, b: a & b,
    "$a | $b": lambda a, b: a | b,
    "$a ^ $b": lambda a, b: a ^ b,
    "~$a": lambda a, b: ~a,
    "-$a": lambda a, b: signed(-a),
    "$a << ($b & 31)": lambda a, b: signed(a << (b & 31)),
    "$a >> ($b & 31)": lambda a, b: a >> (b & 31),
    "$u >> ($v & 31)": lambda a, b: signed(unsigned(a) >> (b & 31)),
    "$a < $b": lambda a, b: a < b,
    "$a <= $b": lambda a, b: a <= b,
    "$a > $b": lambda a, b: a > b,
    "$a >= $b": lambda a, b: a >= b,
    "$a == $b": lambda a, b: a == b,
    "$a != $b": lambda a, b: a != b,
    "$u < $v": lambda a, b: unsigned(a) < unsigned(b),
    "$u > $v": lambda a, b: unsigned(a) > unsigned(b),
    "$a && $b": lambda a, b: bool(a) and bool(b),
    "$a || $b": lambda a, b: bool(a) or bool(b),
    "!$a": lambda a, b: not a,
    "$a > 0 ? $b : -$b": lambda a, b: b if a > 0 else signed(-b),
}
#: Casts of a signed number to other widths.
CASTS: dict[str, Callable[[int], int]] = {
    "(int8)$a": lambda a: signed(a, 8),
    "(uint8)$a": lambda a: unsigned(a, 8),
    "(int16)$a": lambda a: signed(a, 16),
    "(uint16)$a": lambda a: unsigned(a, 16),
    "(int32)$a": lambda a: signed(a, 32),
    "(uint32)$a": lambda a: unsigned(a, 32),
    "(int8)$a >> 1": lambda a: signed(a, 8) >> 1,
    "(uint8)$a >> 1": lambda a: unsigned(a, 8) >> 1,
    "(int16)$a / (int16)7": lambda a: quotient(signed(a, 16), 7),
    "(int32)$a < (int32)0": lambda a: signed(a, 32) < 0,
}

FIELDS = [
    "{skb}->len", "{skb}->data_len", "{skb}->protocol", "{skb}->pkt_type", "{skb}->ip_summed",
    "{skb}->cloned", "{skb}->nohdr", "{skb}->mac_header", "{skb}->network_header", "{skb}->cb[0]",
    "{skb}->dev->ifindex", "{skb}->dev->mtu", "{skb}->dev->type", "{skb}->dev->addr_len",
    "{skb}->dev->nd_net.net->ns.inum", "(uint64){skb}->dev", "(uint64){skb}->head",
    "{skb}->truesize", "{skb}->users.refs.counter",
]  # fmt: skip


def only(case: int) -> str:
    """Return the predicate for a call of :func:`call` by this process."""
    return f"/pid == {os.getpid()} && args.option == {OPTION} && args.arg2 == {case}/"


PRCTL = "tracepoint:syscalls:sys_enter_prctl"


def labelled(label: str, expressions: list[str], prefix: str = "") -> str:
    """Return printfs of numbers, each with a name and its index."""
    return "\n".join(
        f'printf("{label}{index}{prefix} %lld\\n", (int64)({text}));'
        for index, text in enumerate(expressions)
    )


def script() -> str:
    """Return all programs."""
    operators = labelled("op", list(OPERATORS))
    casts = labelled("cast", list(CASTS))
    by_kprobe = labelled("kp", [f.format(skb="$skb") for f in FIELDS])
    by_fentry = labelled("fe", [f.format(skb="args.skb") for f in FIELDS])
    return f"""
config = {{ print_maps_on_exit = true; max_strlen = 128; }}
begin {{ printf("begun\\n"); @order = 1; }}
end {{ printf("ended %d\\n", @order); }}
interval:ms:100 {{ @ticks++; }}

{PRCTL} {only(CASE_OPERATORS)} {{
  $a = (int64)args.arg3; $b = (int64)args.arg4;
  $u = (uint64)args.arg3; $v = (uint64)args.arg4;
  printf("case %lld %lld\\n", $a, $b);
  {operators}
}}
{PRCTL} {only(CASE_WIDTHS)} {{
  $a = (int64)args.arg3;
  printf("width %lld\\n", $a);
  {casts}
}}

{PRCTL} {only(CASE_ONCE)} {{
  printf("builtins %d %d %d %d %s %d %llu\\n", pid, tid, uid, gid, comm, cpu, nsecs);
  printf("names %s|%s\\n", probe, comm == "main-thread" ? "same" : "other");
  printf("formats %5d|%-5d|%05d|%x|%#x|%c|%s|%10s|%-10s|%%|%lu\\n",
         42, 42, 42, 255, 255, 65, "text", "right", "left", (uint64)1);
  if (comm == "main-thread") {{ printf("equal yes\\n"); }} else {{ printf("equal no\\n"); }}
  if (comm != "main-thread") {{ printf("unequal yes\\n"); }} else {{ printf("unequal no\\n"); }}
  if (args.arg3 == 0) {{ printf("chain zero\\n"); }}
  else if (args.arg3 == 7) {{ printf("chain seven\\n"); }}
  else {{ printf("chain other\\n"); }}
  @strings["one"] = 1; @strings["two"] = 2;
  @tuples[1, "a"] = 10; @tuples[2, "b"] = 20; @tuples[-3, "c"] = -30;
  @nested[(1, (2, "x"))] = 5;
  @plain = -9;
  $t = (1, "two", (int8)-3);
  printf("tuple %d %s %d\\n", $t.0, $t.1, $t.2);
  @deleted[1] = 1; @deleted[2] = 2; delete(@deleted, 1);
  @cleared[1] = 1; @cleared[2] = 2; clear(@cleared);
  @zeroed[1] = 5; @zeroed[2] = 6; zero(@zeroed);
  $i = 0;
  while ($i < 5) {{
    $i++; if ($i == 2) {{ continue; }} if ($i == 4) {{ break; }}
    @while += $i;
  }}
  unroll(3) {{ @unrolled += 2; }}
  @post = 5; $old = @post++; $new = ++@post;
  printf("increments %d %d %d\\n", $old, $new, @post);
  $x = 10; $x += 5; $x -= 3; $x *= 2; $x /= 5; $x <<= 3; $x |= 1; $x ^= 2; $x &= 0xff; $x %= 20;
  printf("compound %d\\n", $x);
  printf("str %s|%s\\n", str(args.arg4), str(args.arg4, 5));
}}

{PRCTL} {only(CASE_AGGREGATE)} {{
  $a = (int64)args.arg3;
  @count = count(); @sum = sum($a); @min = min($a); @max = max($a); @avg = avg($a);
  @stats = stats($a); @hist = hist($a); @lhist = lhist($a, 0, 10, 2);
  @by[$a] = count(); @sums[$a > 2] = sum($a);
}}
{PRCTL} {only(CASE_PRINT)} {{
  @shown[1] = 11; @shown[2] = 22; print(@shown); print(@shown[2]); print((1, "t")); print(5);
  print("text"); clear(@shown);
}}
{PRCTL} / args.option == {OPTION} && args.arg2 == {CASE_CPUS} / {{
  @increments++; @counted = count();
}}

kprobe:icmp_rcv {{
  $skb = (struct sk_buff *)arg0;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  printf("ip %d %d %d %s %s %d\\n", $ip->version, $ip->ihl, $ip->protocol, ntop($ip->saddr),
         ntop($ip->daddr), bswap($ip->tot_len));
  printf("device %s %s\\n", $skb->dev->name, ((struct sk_buff *)arg0)->dev->name);
  printf("where %s %s\\n", probe, func);
  {by_kprobe}
}}
fentry:icmp_rcv {{
  printf("fdevice %s %s\\n", args.skb->dev->name, args.skb.dev.name);
  {by_fentry}
}}
kretprobe:icmp_rcv {{ printf("kret %d\\n", (int32)retval); }}
fexit:icmp_rcv {{ printf("fexit %d %d\\n", (int32)retval, args.skb != 0); }}
tracepoint:net:netif_receive_skb {{ printf("received %s %d\\n", str(args.name), args.len); }}
rawtracepoint:netif_receive_skb {{ printf("raw %s %d\\n", args.skb.dev.name, args.skb.len); }}
rawtracepoint:sys_enter /pid == {os.getpid()}/ {{
  if (args.id == 157 && ((struct pt_regs *)args.regs)->di == {OPTION}) {{
    printf("rawsys %d\\n", ((struct pt_regs *)args.regs)->si);
  }}
}}
tracepoint:syscalls:sys_enter_openat /tid == {threading.get_native_id()}/ {{
  printf("open %s\\n", str(args.filename));
}}
tracepoint:syscalls:sys_exit_openat /tid == {threading.get_native_id()}/ {{
  printf("opened %d\\n", args.ret);
}}
"""


def call(case: int, first: int = 0, second: int = 0) -> None:
    """Call prctl(2) with an unknown option: the programs see the numbers, the kernel refuses."""
    arguments = (OPTION, case, first & (2**64 - 1), second & (2**64 - 1), 0)
    _LIBC.prctl(*(ctypes.c_ulong(one) for one in arguments))


@dataclass
class Ran:
    """What the script printed, and what was true meanwhile."""

    text: str = ""
    messages: str = ""
    lines: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    events: list[object] = field(default_factory=list)

    def number(self, name: str, index: int = 0) -> int:
        """Return the number in a labelled line."""
        return int(self.lines[name][index])


@pytest.fixture(scope="module")
def ran(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    path = tmp_path_factory.mktemp("slice") / "opened-by-the-test"
    path.write_text("x")
    made = Ran()
    with Running(script()) as running:
        act(made, network, path)
        wait_until(lambda: printed(running, "fexit ") >= 2 and ticks(running) >= 3)
        running.stop()
    made.text, made.messages, made.events = running.text, running.messages, running.events
    for line in made.text.splitlines():
        name, _, rest = line.partition(" ")
        made.lines.setdefault(name, []).append(rest)
    for line in made.text.splitlines():
        if line.startswith("@") and ": " in line:
            name, _, value = line.partition(": ")
            made.maps[name] = value
    return made


def act(made: Ran, network: Network, path: Path) -> None:
    """Do what the programs look at."""
    for left, right in OPERANDS:
        call(CASE_OPERATORS, left, right)
        call(CASE_WIDTHS, left)
    text = ctypes.create_string_buffer(b"a string of user space")
    own_name = Path("/proc/thread-self/comm")
    before = own_name.read_text().strip()
    own_name.write_text("main-thread")
    made.facts["tid"] = threading.get_native_id()
    made.facts["before"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    call(CASE_ONCE, 7, ctypes.addressof(text))
    made.facts["after"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for sample in SAMPLES:
        call(CASE_AGGREGATE, sample)
    call(CASE_PRINT)
    own_name.write_text(before)

    def call_often() -> None:
        for _ in range(500):
            call(CASE_CPUS)

    everywhere(call_often)
    made.facts["ifindex"] = network.b.ifindex()
    network.ping(b"0123456789")
    descriptor = os.open(path, os.O_RDONLY)
    made.facts["descriptor"], made.facts["path"] = descriptor, str(path)
    os.close(descriptor)


def printed(running: Running, beginning: str) -> int:
    """How many lines begin so, up to now."""
    lines = (event.text for event in running.events if isinstance(event, events.Printf))
    return sum(line.startswith(beginning) for line in lines)


def ticks(running: Running) -> int:
    """How often the interval has come."""
    trace = running.trace
    return sum(count for _, count in trace.runtime.read_map(trace.checked.script.maps["@ticks"]))


def everywhere(work: Callable[[], object]) -> None:
    """Do something on every CPU at once."""

    def on(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        work()

    threads = [threading.Thread(target=on, args=(cpu,)) for cpu in os.sched_getaffinity(0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_nothing_was_lost_or_warned_of(ran: Ran) -> None:
    # What the script looks at is not among what was missed, or its counts would be wrong below.
    assert without_preempted(ran.messages) == []
    assert not any(isinstance(event, events.Lost) for event in ran.events)


def test_begin_comes_first_and_end_last(ran: Ran) -> None:
    printed = [event.text for event in ran.events if isinstance(event, events.Printf)]
    assert printed[0] == "begun\n"
    assert printed[-1] == "ended 1\n"


@pytest.mark.parametrize("index", range(len(OPERATORS)), ids=list(OPERATORS))
def test_operators_compute_what_c_does(ran: Ran, index: int) -> None:
    compute = list(OPERATORS.values())[index]
    assert [tuple(map(int, line.split())) for line in ran.lines["case"]] == OPERANDS
    found = [int(line) for line in ran.lines[f"op{index}"]]
    assert found == [int(compute(left, right)) for left, right in OPERANDS]


@pytest.mark.parametrize("index", range(len(CASTS)), ids=list(CASTS))
def test_casts_to_other_widths_compute_what_c_does(ran: Ran, index: int) -> None:
    compute = list(CASTS.values())[index]
    found = [int(line) for line in ran.lines[f"cast{index}"]]
    assert found == [int(compute(left)) for left, _ in OPERANDS]


def test_builtins_are_true(ran: Ran) -> None:
    pid, tid, uid, gid, comm, cpu, nsecs = ran.lines["builtins"][0].split()
    assert (int(pid), int(tid), int(uid), int(gid)) == (os.getpid(), ran.facts["tid"], 0, 0)
    assert comm == "main-thread"
    assert int(cpu) in range(os.cpu_count() or 1)
    before, after = ran.facts["before"], ran.facts["after"]
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert before <= int(nsecs) <= after


def test_strings_compare(ran: Ran) -> None:
    assert ran.lines["names"] == [f"{PRCTL}|same"]
    assert ran.lines["equal"] == ["yes"]
    assert ran.lines["unequal"] == ["no"]


def test_formats_are_those_of_printf(ran: Ran) -> None:
    formatted = "   42|42   |00042|ff|0xff|A|text|     right|left      |%|1"
    assert ran.lines["formats"] == [formatted]


def test_else_if(ran: Ran) -> None:
    assert ran.lines["chain"] == ["seven"]


def test_strings_are_read_from_user_space(ran: Ran) -> None:
    assert ran.lines["str"] == ["a string of user space|a st"], "the length counts the NUL"


def test_maps_have_keys_of_strings_and_tuples(ran: Ran) -> None:
    assert ran.maps["@strings[one]"] == "1"
    assert ran.maps["@strings[two]"] == "2"
    assert ran.maps["@tuples[1, a]"] == "10"
    assert ran.maps["@tuples[-3, c]"] == "-30"
    assert ran.maps["@nested[1, (2, x)]"] == "5"
    assert ran.maps["@plain"] == "-9"
    assert ran.lines["tuple"] == ["1 two -3"]


def test_delete_clear_and_zero(ran: Ran) -> None:
    assert "@deleted[1]" not in ran.maps
    assert ran.maps["@deleted[2]"] == "2"
    assert not any(name.startswith("@cleared[") for name in ran.maps)
    assert (ran.maps["@zeroed[1]"], ran.maps["@zeroed[2]"]) == ("0", "0")


def test_while_continue_break_and_unroll(ran: Ran) -> None:
    assert ran.maps["@while"] == str(1 + 3)
    assert ran.maps["@unrolled"] == "6"


def test_increments_and_compound_assignments(ran: Ran) -> None:
    assert ran.lines["increments"] == ["5 7 7"]
    x = ((10 + 5 - 3) * 2 // 5) << 3
    x = (((x | 1) ^ 2) & 0xFF) % 20
    assert ran.lines["compound"] == [str(x)]


def test_aggregates(ran: Ran) -> None:
    total = sum(SAMPLES)
    assert ran.maps["@count"] == str(len(SAMPLES))
    assert ran.maps["@sum"] == str(total)
    assert ran.maps["@min"] == "-4"
    assert ran.maps["@max"] == "100"
    assert ran.maps["@avg"] == str(total // len(SAMPLES))
    assert ran.maps["@stats"] == f"{{ .count = 6, .average = {total // 6}, .total = {total} }}"
    assert [ran.maps[f"@by[{sample}]"] for sample in SAMPLES] == ["1"] * 6
    assert ran.maps["@sums[true]"] == str(3 + 8 + 100)
    assert ran.maps["@sums[false]"] == str(1 + 2 - 4)


def bars(text: str, name: str) -> list[tuple[str, int]]:
    """Return the rows of a histogram: (range, count)."""
    rows = text.split(f"{name}:\n")[1].split("\n\n")[0].splitlines()
    return [(row.split("  ")[0].strip(), int(row.split("|")[0].split()[-1])) for row in rows]


def test_histograms(ran: Ran) -> None:
    assert bars(ran.text, "@hist") == [
        ("(..., 0)", 1), ("[0]", 0), ("[1]", 1), ("[2, 4)", 2), ("[4, 8)", 0), ("[8, 16)", 1),
        ("[16, 32)", 0), ("[32, 64)", 0), ("[64, 128)", 1),
    ]  # fmt: skip
    assert bars(ran.text, "@lhist") == [
        ("(..., 0)", 1), ("[0, 2)", 1), ("[2, 4)", 2), ("[4, 6)", 0), ("[6, 8)", 0),
        ("[8, 10)", 1), ("[10, ...)", 1),
    ]  # fmt: skip


def test_print_takes_maps_entries_and_values(ran: Ran) -> None:
    assert "@shown[1]: 11\n@shown[2]: 22\n" in ran.text
    assert "@shown[2]: 22\n22\n(1, t)\n5\ntext\n" in ran.text


def test_increments_on_several_cpus_are_exact(ran: Ran) -> None:
    cpus = len(os.sched_getaffinity(0))
    assert ran.maps["@counted"] == str(500 * cpus)
    assert ran.maps["@increments"] == str(500 * cpus)


def test_interval_ticks(ran: Ran) -> None:
    assert int(ran.maps["@ticks"]) >= 3


@pytest.mark.parametrize("index", range(len(FIELDS)), ids=FIELDS)
def test_fields_are_the_same_through_a_cast_and_through_args(ran: Ran, index: int) -> None:
    assert ran.lines[f"kp{index}"] == ran.lines[f"fe{index}"] != []


def test_fields_hold_what_was_sent(ran: Ran) -> None:
    request, reply = 0, 1
    assert ran.number(f"fe{FIELDS.index('{skb}->len')}", request) == 8 + 10
    assert ran.number(f"fe{FIELDS.index('{skb}->protocol')}", request) == 0x0008
    assert ran.number(f"fe{FIELDS.index('{skb}->dev->ifindex')}", request) == ran.facts["ifindex"]
    assert ran.number(f"fe{FIELDS.index('{skb}->dev->addr_len')}", request) == 6
    assert ran.lines["ip"][request] == "4 5 1 10.77.0.1 10.77.0.2 38"
    assert ran.lines["ip"][reply] == "4 5 1 10.77.0.2 10.77.0.1 38"
    assert ran.lines["device"] == ["veth-b veth-b", "veth-a veth-a"]
    assert ran.lines["fdevice"] == ["veth-b veth-b", "veth-a veth-a"]


def test_probe_and_func_name_the_place(ran: Ran) -> None:
    assert ran.lines["where"][0] == "kprobe:icmp_rcv icmp_rcv"


def test_returned_values(ran: Ran) -> None:
    # Nobody waits for the reply: it is dropped (NET_RX_DROP), which some kernels return.
    assert ran.lines["kret"][0] == "0"
    assert ran.lines["kret"][1] in ("0", "1")
    assert ran.lines["fexit"] == [f"{value} 1" for value in ran.lines["kret"]]


def test_tracepoints_of_the_network_name_the_device(ran: Ran) -> None:
    assert "veth-b 38" in ran.lines["received"]
    assert "veth-b 38" in ran.lines["raw"]


def test_raw_system_calls(ran: Ran) -> None:
    # Other processes' calls run the program, too, and may keep it from these.
    missed = sum(
        event.count for event in ran.events
        if isinstance(event, events.Missed) and event.probe.endswith("sys_enter")
    )  # fmt: skip
    seen = ran.lines["rawsys"].count(str(CASE_OPERATORS))
    assert len(OPERANDS) - missed <= seen <= len(OPERANDS)


def test_arguments_and_results_of_system_calls(ran: Ran) -> None:
    # The first was entered before the returns were attached.
    at = ran.lines["open"].index(str(ran.facts["path"])) - len(ran.lines["open"])
    assert ran.lines["opened"][at] == str(ran.facts["descriptor"])


def test_loops_over_ranges() -> None:
    """By bpf_loop from 5.17 on, and without it before."""
    script = """begin {
      for ($i : 1..5) { @few += $i; }
      for ($i : 0..3) { for ($j : 0..4) { @nested += $i * $j; } }
      exit(3);
    }"""
    with Running(script) as running:
        running.wait()
        assert running.trace.exit_status == 3
    assert "@few: 10\n" in running.text
    assert "@nested: 18\n" in running.text


def test_continue_and_break_in_ranges() -> None:
    # Up to 6.6 the verifier walks a callback once, with what variables hold before the loop: were
    # $i known to be 0 there, it would take the break for dead. Without bpf_loop, 5.10 refuses a
    # loop whose way back is no jump.
    script = """begin {
      for ($i : 0..200) { if ($i == 7) { continue; } if ($i == 150) { break; } @many += $i; }
      exit();
    }"""
    with Running(script) as running:
        running.wait()
    assert f"@many: {sum(range(150)) - 7}\n" in running.text


@pytest.mark.needs("for_each_map_elem")
def test_loops_over_maps() -> None:
    script = """begin {
      @m[1] = 10; @m[2] = 20; @m[3] = 30;
      for ($kv : @m) { @keys += $kv.0; @values += $kv.1; }
      exit();
    }"""
    with Running(script) as running:
        running.wait()
    assert "@keys: 6\n" in running.text
    assert "@values: 60\n" in running.text


def test_loops_over_maps_are_refused_where_the_kernel_has_none(kernel: str) -> None:
    if kernel != "5.10":
        pytest.skip("this kernel has bpf_for_each_map_elem")
    with pytest.raises(ScriptError) as caught:
        Running("begin { @m[1] = 10; for ($kv : @m) { print($kv); } exit(); }")
    assert [one.code for one in caught.value.diagnostics] == ["no-map-loops"]


def test_lines_are_of_known_programs(ran: Ran) -> None:
    """Guards the parsing above: every printed line has a name that some program prints."""
    known = re.compile(r"Attached|[a-z]+\d*|@.*|\[.*|\(.*|5|22|")
    assert [name for name in ran.lines if not known.fullmatch(name)] == []
