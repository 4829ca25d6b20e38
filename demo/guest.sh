#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demonstration itself: runs as root in the guest, in the directory whose files are brought back.
set -u

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# The command line goes to standard error: what the command writes may be kept.
show() { printf '\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

network() {
    ip -batch - <<-EOF
	netns add client
	netns add server
	link add eth0 address 02:00:00:00:00:01 netns client type veth peer name eth0 address 02:00:00:00:00:02 netns server
	EOF
    local number name
    for name in client server; do
        number=$([ $name = client ] && echo 1 || echo 2)
        # A veth pair goes through NAPI, and so through GRO, only with GRO on and every kind of
        # TCP segmentation offload off at both ends.
        ip netns exec $name ethtool -K eth0 gro on tso off tx-tcp-segmentation off \
            tx-tcp-ecn-segmentation off tx-tcp-mangleid-segmentation off \
            tx-tcp6-segmentation off tx off >/dev/null
        ip -n $name -batch - <<-EOF
		link set lo up
		link set eth0 up
		link add link eth0 name eth0.100 type vlan id 100
		link set eth0.100 up
		addr add 10.0.0.$number/24 dev eth0
		addr add fd00::$number/64 dev eth0 nodad
		addr add 10.0.100.$number/24 dev eth0.100
		EOF
    done
}

traffic() {
    ip netns exec client ping -q -c 2 -i 0.2 10.0.0.2 | sed -n 2,4p
    ip netns exec client ping -q -c 2 -i 0.2 10.0.100.2 | sed -n 2,4p
    ip netns exec client ping -q -c 2 -i 0.2 fd00::2 | sed -n 2,4p
    ip netns exec server nc -l 10.0.0.2 7000 >/tmp/tcp.txt &
    local tcp=$!
    ip netns exec server timeout 20 nc -u -l 10.0.0.2 9000 >/tmp/udp.txt &
    local udp=$!
    sleep 1
    echo "one line over TCP" | ip netns exec client nc -N 10.0.0.2 7000
    echo "one line over UDP" | ip netns exec client nc -u -q 0 10.0.0.2 9000
    wait $tcp
    while [ ! -s /tmp/udp.txt ] && kill -0 $udp 2>/dev/null; do sleep 0.1; done
    kill $udp 2>/dev/null
    cat /tmp/tcp.txt /tmp/udp.txt
}

title "Kernel $(uname -r): two namespaces joined by a veth pair, with a VLAN on top"
network
ip netns exec client ip -br addr

title "1. The script, a kprobe, and what kcap says about it"
cat gro.bt
show kcap gro.bt
echo "(exit status $?)"

title "2. The same script, repaired"
# `kcap fix` writes the repaired script to standard output.
show kcap fix gro.bt | tee gro-fixed.bt

title "3. The repaired script while ICMP, VLAN, IPv6, TCP and UDP traffic passes"
kcap gro-fixed.bt >kcap.out 2>&1 &
tracer=$!
for _ in $(seq 600); do
    grep -q -i attach kcap.out && break
    kill -0 $tracer 2>/dev/null || break
    sleep 0.1
done
traffic
sleep 1
kill -INT $tracer 2>/dev/null
wait $tracer
status=$?
cat kcap.out
echo "(exit status $status)"

title "4. The capture, packet by packet"
if [ ! -s gro.pcap ]; then
    echo "there is no capture: gro.pcap was not written"
    exit 1
fi
show tcpdump -e -n -r gro.pcap | tee packets.txt

# Every kind of traffic must be in it, or the demonstration has failed.
failed=0
expect() { # what pattern
    local seen
    seen=$(grep -c -E "$2" packets.txt)
    printf '%-12s %s packets\n' "$1" "$seen"
    [ "$seen" -gt 0 ] || failed=1
}
title "5. What is in it"
expect ICMP '10\.0\.0\.1 > 10\.0\.0\.2: ICMP echo request'
expect VLAN 'vlan 100.*10\.0\.100\.1 > 10\.0\.100\.2: ICMP echo request'
expect IPv6 'fd00::1 > fd00::2: ICMP6, echo request'
expect TCP '10\.0\.0\.1\.[0-9]+ > 10\.0\.0\.2\.7000: Flags'
expect UDP '10\.0\.0\.1\.[0-9]+ > 10\.0\.0\.2\.9000: '
exit $failed
