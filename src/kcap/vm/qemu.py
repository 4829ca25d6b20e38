# SPDX-License-Identifier: Apache-2.0
"""The emulator: whether it is there, and its command line."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from kcap.vm.errors import RequirementError

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "qemu-system-x86_64"

#: What guests need of this machine: program, Debian package, what for.
REQUIREMENTS = (
    (PROGRAM, "qemu-system-x86", "runs the guest"),
    ("mke2fs", "e2fsprogs", "makes the guest's disks"),
    ("dpkg-deb", "dpkg", "unpacks the kernels"),
    ("apt-get", "apt", "fetches the kernels"),
    ("ldd", "libc-bin", "finds the libraries that Python needs"),
)

# norandmaps: the emulator keys translated code by address, so a program that is started again at
# the same addresses starts in half the time. mitigations=off: they cost time and protect nobody.
# quiet: every character on the console leaves the emulator.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic norandmaps mitigations=off "
    "random.trust_cpu=on no_timer_check tsc=reliable nowatchdog"
)


class Disk(NamedTuple):
    """A disk of the guest.

    :ivar serial: what the guest finds it by; at most 20 characters (virtio-blk).
    :ivar image: the file. The guest's writes go to a temporary file and are lost.
    :ivar point: where the guest mounts it.
    :ivar options: how, as mount(8) -o takes it.
    """

    serial: str
    image: Path
    point: str
    options: str = "rw,noatime"


def check_requirements() -> None:
    """See that every program is there.

    :raises RequirementError: naming those that are not, their packages and what for.
    """
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [
        row for row in REQUIREMENTS if not (shutil.which(row[0]) or shutil.which(row[0], path=path))
    ]
    if missing:
        why = ", ".join(f"{name} ({reason})" for name, _, reason in missing)
        packages = " ".join(package for _, package, _ in missing)
        raise RequirementError(
            f"guests need what is not installed here: {why}",
            hint=f"as root: apt-get install --no-install-recommends {packages}",
        )


def accelerator_options(accelerator: str) -> list[str]:
    """Return the options for ``kvm``, ``tcg``, or ``tcg-counted``: emulated, with a clock that
    moves on by one nanosecond an instruction."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # With a thread for each CPU, translated code can survive the kernel's patching of its own text
    # on another CPU, and a breakpoint that is gone is executed still (docs/guests.md).
    emulator = ["-accel", "tcg,thread=single"]
    if accelerator == "tcg-counted":
        # A `rep movsb` counts as one instruction for each byte. Without these two features the
        # kernel copies and clears by `rep movsq`, which is nearer to what memory costs.
        return [*emulator, "-cpu", "max,-erms,-fsrm", "-icount", "shift=0,sleep=off"]
    return [*emulator, "-cpu", "max"]


def command_line(
    kernel: Path,
    initramfs: Path,
    disks: list[Disk],
    *,
    accelerator: str,
    port: str,
    descriptor: int,
    memory: int,
    processors: int,
) -> list[str]:
    """Return the emulator's command line.

    :param port: the name of the virtio-serial port to the agent.
    :param descriptor: the connected socket that the port is the other end of.
    :param memory: the guest's memory in MiB.
    :param processors: how many CPUs the guest has.
    """
    command = [
        PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-M", "pc,usb=off,vmport=off,hpet=off", *accelerator_options(accelerator),
        "-m", str(memory), "-smp", str(processors),
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", KERNEL_COMMAND_LINE,
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,fd={descriptor}",
        "-device", f"virtserialport,chardev=agent,name={port}",
    ]  # fmt: skip
    for number, disk in enumerate(disks):
        # A comma in a value is written twice (QEMU's option syntax).
        file = str(disk.image).replace(",", ",,")
        command += [
            "-drive",
            f"if=none,id=disk{number},format=raw,snapshot=on,file.locking=off,file={file}",
            "-device", f"virtio-blk-pci,drive=disk{number},serial={disk.serial}",
        ]  # fmt: skip
    return command
