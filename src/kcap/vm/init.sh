#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# First program of a guest: find the disks, build the root file system, hand over to the agent.
# Runs in the initial RAM file system, with busybox and nothing else.
bb=/bin/busybox
die() { echo "kcap-guest: $*" > /dev/kmsg; $bb sleep 1; $bb reboot -f; }

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
while read -r module; do
    $bb insmod "/modules/$module.ko" || die "cannot load $module"
done < /modules/order

disk() { # serial -> $found, a device name
    # Disks appear while drivers start; a busy machine may take its time.
    tries=150
    while [ $((tries -= 1)) -gt 0 ]; do
        for block in /sys/block/vd*; do
            read -r serial < "$block/serial"
            [ "$serial" = "$1" ] && found=/dev/${block##*/} && return
        done
        $bb sleep 0.2
    done
    die "there is no disk with the serial number $1"
}

# What to mount, in order. "keep" and "restore" are for what a share would hide of the interpreter.
while read -r serial options point; do
    [ -d "/root$point" ] || $bb mkdir -p "/root$point"
    case $serial in
    keep)
        $bb mkdir "/keep$options"
        $bb mount --bind "/root$point" "/keep$options" || die "cannot keep $point"
        ;;
    restore)
        $bb mount --bind "/keep$options" "/root$point" || die "cannot restore $point"
        ;;
    *)
        disk "$serial"
        $bb mount -t ext4 -o "$options" "$found" "/root$point" || die "cannot mount $serial"
        ;;
    esac
done < /disks

for point in proc sys dev; do $bb mount --move "/$point" "/root/$point"; done
$bb mount -t tmpfs -o mode=755 tmpfs /root/run
$bb mkdir /root/run/kcap
$bb cp /agent.py /root/run/kcap/
read -r python < /python
exec $bb switch_root /root "$python" -I -S /run/kcap/agent.py
die "cannot start $python"
