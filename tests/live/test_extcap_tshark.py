# SPDX-License-Identifier: Apache-2.0
"""tshark captures at kernel functions: this machine's tshark and dumpcap, in a guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.vm.guest import Guest
from kcap.vm.sources import share

#: Libraries that the guest has at the same place, and that must be its own.
_GUESTS_OWN = ("ld-linux", "libc.so", "libm.so")
#: Starts tshark, lets packets pass once the header of the file is there, and prints what happened.
SCRIPT = r"""
set -e
cd {directory}
export PATH={directory}/bin:$PATH LD_LIBRARY_PATH={directory}/lib
ip link set lo up
# Where a package puts it: tshark looks for a user's programs only where that directory is, too.
mkdir -p "$(tshark -G folders | sed -n 's/^Extcap path:[[:space:]]*//p')"
kcap extcap install
tshark -D | grep kcap
tcpdump -i lo -U -w socket.pcap icmp 2> /dev/null &
socket=$!
tshark -i kcap -f icmp -o extcap.kcap.function:net:netif_receive_skb -c 4 -w kcap.pcapng 2> said &
until [ -s kcap.pcapng ] && [ -s socket.pcap ]; do sleep 0.5; done
# The header comes before kcap is attached.
until ls -l /proc/[0-9]*/fd 2> /dev/null | grep -q bpf_link; do sleep 0.2; done
ping -c 2 -i 0.2 -s 300 127.0.0.1 > /dev/null
wait $!
cat said
sleep 1
kill $socket; wait
# Nobody takes any packet: dumpcap ends by itself, and kcap with it.
tshark -i kcap -f 'udp port 1' -a duration:1 2> said
cat said
for attempt in $(seq 100); do pgrep -f "[e]xtcap-interface" > /dev/null || break; sleep 0.2; done
pgrep -f "[e]xtcap-interface" || echo all gone
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a directory with tshark, dumpcap and the libraries that they need."""
    programs = [shutil.which(name) for name in ("tshark", "dumpcap")]
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    for program in programs:
        assert program is not None
        shutil.copy(program, tmp_path / "bin")
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for line in said.splitlines():
            name, _, rest = line.strip().partition(" => ")
            if rest and not name.startswith(_GUESTS_OWN) and not (tmp_path / "lib" / name).exists():
                shutil.copy(rest.split()[0], tmp_path / "lib" / name)
    return tmp_path


def fields(path: Path, *names: str) -> list[list[str]]:
    """Return what tshark reads of each packet."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields"]
    command += [word for name in names for word in ("-e", name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_tshark_captures_at_a_kernel_function(bundle: Path) -> None:
    with Guest("6.12", shares=[share(bundle)]) as guest:
        done = guest.run(["sh", "-c", SCRIPT.format(directory=bundle)])
    said = done.stdout.decode()
    assert done.status == 0, said + done.stderr.decode()
    assert "kcap (Linux kernel function (kcap))" in said
    assert "Capturing on 'Linux kernel function (kcap): kcap'" in said
    assert "4 packets captured" in said
    assert said.endswith("all gone\n"), said
    captured = fields(bundle / "kcap.pcapng", "frame.interface_name", "frame.len", "data.data")
    seen = fields(bundle / "socket.pcap", "frame.len", "data.data")
    assert [packet[1:] for packet in captured] == seen
    comments = [comment for (comment,) in fields(bundle / "kcap.pcapng", "frame.comment")]
    assert all(
        each.startswith("rawtracepoint:vmlinux:netif_receive_skb ping[") for each in comments
    )
