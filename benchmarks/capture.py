# SPDX-License-Identifier: Apache-2.0
"""What capturing costs: kcap, tcpdump and bpftrace on the same traffic, in turn (A B A B).

    python -m benchmarks.capture [--kernel 6.12] [--packets N] [--rounds N] [--bpftrace PATH]

Boots a guest of one CPU whose clock counts instructions (docs/performance.md), so that figures do
not depend on what else this machine does; ``--inside`` runs on the machine that it is started on,
as root, on a real CPU. The kernel's own packet generator (pktgen) sends UDP packets into a veth
pair; every way captures them whole at the other end to a file in memory: tcpdump from its packet
socket, the others at net:netif_receive_skb, the tracepoint beside it (and once at a kprobe, where
another helper has to do).

First part: packets come slowly enough for all. Printed are nanoseconds of CPU a packet, of the
program in user space and in the kernel (from /proc/PID/stat, between the start of the traffic and
its end), and of the BPF program (bpf_stats). Second part: bursts of packets without a pause, longer
and longer, while the capturing program has to stand back behind all others (nice 19), until tcpdump
loses some; and what the others lose then.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.guest.tracers import running_time

ROOT = Path(__file__).resolve().parents[1]
PKTGEN = Path("/proc/net/pktgen")
SIZES = (64, 1500)
#: The pause between packets that everybody bears, nanoseconds.
PAUSE = 15_000
BURSTS = (500, 1000, 1500, 2000, 3000, 4000, 6000, 8000)


class Way(NamedTuple):
    """A program that captures.

    :ivar command: what starts it, without the file.
    :ivar ready: what it says on standard error once it captures.
    """

    name: str
    command: list[str]
    ready: str


class Result(NamedTuple):
    """What one run came to: packets, and seconds of CPU.

    :ivar cpu: exact; ``user`` and ``system`` are that in ticks of 10 ms.
    """

    packets: int
    lost: int
    cpu: float
    user: float
    system: float
    bpf_ns: int
    bpf_runs: int
    seconds: float


def ways(bpftrace: str) -> list[Way]:
    """The programs that can be had; says why one cannot."""
    kcap = [sys.executable, "-m", "kcap", "capture", "net:netif_receive_skb", "-i", "bench1", "-w"]
    found = [
        Way("kcap, pcap", [*kcap, "{directory}/kcap.pcap"], "capturing at"),
        Way("kcap, pcapng", [*kcap, "{directory}/kcap.pcapng"], "capturing at"),
        Way(
            "kcap, kprobe",
            [*kcap[:4], "kprobe:ip_rcv", *kcap[5:], "{directory}/kprobe.pcap"],
            "capturing at",
        ),
        Way(
            "tcpdump",
            ["tcpdump", "-n", "-i", "bench1", "-Q", "in", "-s", "262144", "-w",
             "{directory}/tcpdump.pcap"],
            "listening on",
        ),
    ]  # fmt: skip
    if not bpftrace:
        print("bpftrace: left out; give one built with libpcap by --bpftrace (Debian's is not)")
        return found
    told = subprocess.run([bpftrace, "--info"], capture_output=True, text=True, check=False)
    if not re.search(r"libpcap[^\n]*yes", told.stdout + told.stderr):
        print("bpftrace: left out; this build has no libpcap and so cannot write packets")
        return found
    script = (
        'rawtracepoint:netif_receive_skb { skboutput("{directory}/bpftrace.pcap", args.skb, '
        "args.skb.len, 0); }"
    )
    return [*found, Way("bpftrace", [bpftrace, "-e", script], "Attach")]


def run_ip(*lines: str) -> None:
    """Let ip do some things."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def set_up() -> None:
    """The veth pair and the packet generator."""
    subprocess.run(["modprobe", "pktgen"], check=True)
    run_ip(
        "link add bench0 address 02:00:00:00:00:10 type veth peer name bench1 "
        "address 02:00:00:00:00:11",
        "link set bench0 mtu 9000 up",
        "link set bench1 mtu 9000 up",
    )
    # Packets go straight to the taps of the other end, however many they are.
    Path("/proc/sys/net/core/netdev_max_backlog").write_text("1000000")
    Path("/proc/sys/net/ipv6/conf/bench1/disable_ipv6").write_text("1")
    Path("/proc/sys/net/ipv6/conf/bench0/disable_ipv6").write_text("1")
    Path("/proc/sys/kernel/bpf_stats_enabled").write_text("1")


def generate(count: int, size: int, pause_ns: int) -> float:
    """Send packets; how many seconds it took."""

    def tell(file: str, *lines: str) -> None:
        for line in lines:
            (PKTGEN / file).write_text(line + "\n")

    tell("kpktgend_0", "rem_device_all", "add_device bench0")
    tell(
        "bench0", f"count {count}", f"pkt_size {size}", f"delay {pause_ns}", "clone_skb 0",
        "dst_mac 02:00:00:00:00:11", "src_min 10.9.0.1", "dst 10.9.0.2", "udp_dst_min 9",
        "udp_dst_max 9",
    )  # fmt: skip
    before = time.monotonic()
    tell("pgctrl", "start")
    return time.monotonic() - before


def received() -> int:
    """Packets that the other end has received so far."""
    return int(Path("/sys/class/net/bench1/statistics/rx_packets").read_text())


def cpu(pid: int) -> tuple[float, float]:
    """Seconds of CPU so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def bpf(pid: int) -> tuple[int, int]:
    """Nanoseconds and runs of a process's BPF programs."""
    nanoseconds = runs = 0
    seen = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = entry.read_text()
        program = re.search(r"prog_id:\s+(\d+)", text)
        time_ns = re.search(r"run_time_ns:\s+(\d+)", text)
        count = re.search(r"run_cnt:\s+(\d+)", text)
        if program and time_ns and count and program[1] not in seen:
            seen.add(program[1])
            nanoseconds += int(time_ns[1])
            runs += int(count[1])
    return nanoseconds, runs


def capture(
    way: Way, count: int, size: int, pause_ns: int, directory: str, nice: int = 0
) -> Result:
    """One run.

    :raises RuntimeError: the program did not start.
    """
    words = [word.replace("{directory}", directory) for word in way.command]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
        wait_for(process, said.fileno(), way.ready)
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        first, packets = cpu(process.pid), received()
        exact = running_time(process.pid)
        bpf_first = bpf(process.pid)
        seconds = generate(count, size, pause_ns)
        settle(process.pid)
        last, bpf_last = cpu(process.pid), bpf(process.pid)
        exact = running_time(process.pid) - exact
        packets = received() - packets
        process.send_signal(signal.SIGINT)
        process.wait()
    file = next(word for word in words if word.startswith(directory))
    written = count_packets(file)
    os.unlink(file)
    return Result(
        packets, packets - written, exact, last[0] - first[0], last[1] - first[1],
        bpf_last[0] - bpf_first[0], bpf_last[1] - bpf_first[1], seconds,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[bytes], said: int, text: str) -> None:
    """Wait until the program says that it captures."""
    while text not in os.pread(said, 1 << 16, 0).decode():
        if process.poll() is not None:
            raise RuntimeError(os.pread(said, 1 << 16, 0).decode())
        time.sleep(0.1)
    time.sleep(1)


def settle(pid: int) -> None:
    """Wait until the program has nothing left to do."""
    before = (-1.0, -1.0)
    time.sleep(1.5)
    while (now := cpu(pid)) != before and sum(now) - sum(before) > 0.05:
        before = now
        time.sleep(1)


def count_packets(path: str) -> int:
    """How many packets of the generator a file has, as tcpdump reads it."""
    done = subprocess.run(
        ["tcpdump", "-n", "-r", path, "--count", "udp port 9"], capture_output=True, text=True
    )
    return int(re.search(r"(\d+) packet", done.stdout + done.stderr)[1])  # type: ignore[index]


def costs(found: list[Way], count: int, rounds: int, directory: str) -> None:
    """The first part: CPU a packet."""
    print(
        f"\nns of CPU a packet, medians of {rounds} rounds in turn; ratio of user time to tcpdump"
    )
    print(f"{'bytes':>5} {'way':14}{'user':>8}{'system':>8}{'BPF':>8}{'lost':>6}{'ratio':>7}")
    for size in SIZES:
        results: dict[str, list[Result]] = {way.name: [] for way in found}
        for _ in range(rounds):
            for way in found:
                results[way.name].append(capture(way, count, size, PAUSE, directory))
        users = {
            name: median(1e9 * one.user / one.packets for one in all_)
            for name, all_ in results.items()
        }
        for name, all_ in results.items():
            system = median(1e9 * one.system / one.packets for one in all_)
            inside = median(one.bpf_ns / max(one.bpf_runs, 1) for one in all_)
            ratio = users[name] / max(users["tcpdump"], 1e-9)
            lost = sum(one.lost for one in all_)
            print(
                f"{size:>5} {name:14}{users[name]:8.0f}{system:8.0f}{inside:8.0f}{lost:>6}"
                f"{ratio:7.2f}",
                flush=True,
            )


def losses(found: list[Way], directory: str) -> None:
    """The second part: the burst in which tcpdump begins to lose packets."""
    print("\npackets lost of a burst, 1500 bytes each")
    print(f"{'burst':>6} {'packets/s':>10} " + "".join(f"{way.name:>14}" for way in found))
    for burst in BURSTS:
        results = [capture(way, burst, 1500, 0, directory, nice=19) for way in found]
        rate = results[0].packets / results[0].seconds
        print(f"{burst:>6} {rate:>10.0f} " + "".join(f"{one.lost:>14}" for one in results),
              flush=True)  # fmt: skip
        if results[[way.name for way in found].index("tcpdump")].lost:
            break


def outside(kernel: str, words: list[str]) -> int:
    """Boot a guest and measure there."""
    from benchmarks.guest.__main__ import IN_GUEST, progress, write
    from kcap.vm.guest import Guest
    from kcap.vm.sources import Share

    shares = [Share(ROOT / "benchmarks", f"{IN_GUEST}/benchmarks", bring_back=False)]
    with Guest(kernel, shares=shares, processors=1, counted=True, progress=progress) as guest:
        return guest.run(
            ["python3", "-m", "benchmarks.capture", "--inside", *words],
            cwd=IN_GUEST,
            on_stdout=lambda data: write(1, data),
            on_stderr=lambda data: write(2, data),
        ).status


def main() -> int:
    """Boot a guest and measure there, or here with ``--inside``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--packets", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bpftrace", default="", metavar="PATH")
    parser.add_argument("--parts", default="costs,losses")
    parser.add_argument("--inside", action="store_true")
    arguments = parser.parse_args()
    own = ["--packets", str(arguments.packets), "--rounds", str(arguments.rounds)]
    own += ["--parts", arguments.parts]
    own += ["--bpftrace", arguments.bpftrace] if arguments.bpftrace else []
    if not arguments.inside:
        return outside(arguments.kernel, own)
    print(f"kernel {os.uname().release}, {os.cpu_count()} CPUs", flush=True)
    found = ways(arguments.bpftrace)
    set_up()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        capture(found[0], 100, 64, 0, directory)  # compiles what will then be kept
        if "costs" in arguments.parts:
            costs(found, arguments.packets, arguments.rounds, directory)
        if "losses" in arguments.parts:
            losses(found, directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
