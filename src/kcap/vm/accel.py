# SPDX-License-Identifier: Apache-2.0
"""Whether the hardware may run the guest, or the emulator has to.

``/dev/kvm`` being there proves little: under nested virtualisation it may exist and a guest hang at
its first instruction. So a kernel is started with it, and only a sign of life on its console
counts. The answer is remembered until the machine is booted again.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kcap.vm import qemu
from kcap.vm.cache import subdirectory, write_atomically
from kcap.vm.errors import VmError

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long a kernel may take to write its first line: KVM takes less than one second.
PATIENCE_S = 10.0


def accelerator(kernel: Path, progress: Callable[[str], None]) -> str:
    """Return ``kvm`` or ``tcg``; ``KCAP_ACCEL`` in the environment decides outright.

    :param kernel: an image to try with.
    :param progress: called with a line about what is tried and what came of it.
    :raises VmError: when ``KCAP_ACCEL`` is neither of the two.
    """
    wanted = os.environ.get("KCAP_ACCEL")
    if wanted:
        if wanted not in ("kvm", "tcg"):
            raise VmError(f"KCAP_ACCEL is {wanted!r}", hint="set it to kvm or tcg, or unset it")
        return wanted
    remembered = subdirectory() / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        answer = json.loads(remembered.read_text())
        if answer["boot"] == boot and answer["accelerator"] in ("kvm", "tcg"):
            return str(answer["accelerator"])
    except (FileNotFoundError, KeyError, ValueError):
        pass
    problem = kvm_problem(kernel)
    if problem:
        progress(f"no KVM ({problem}): the guest is emulated, which takes several times as long")
    chosen = "tcg" if problem else "kvm"
    answer = {"boot": boot, "accelerator": chosen, "problem": problem}
    write_atomically(remembered, json.dumps(answer).encode())
    return chosen


def kvm_problem(kernel: Path, patience: float = PATIENCE_S) -> str:
    """Return why KVM cannot be used, or an empty text when a kernel showed life under it.

    :param patience: seconds to wait for the first byte on the console.
    """
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened; add yourself to the group kvm"
    command = [
        qemu.PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        *qemu.accelerator_options("kvm"), "-m", "256", "-kernel", str(kernel),
        "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        return _first_sign(process, patience)
    finally:
        process.kill()
        process.communicate()


def _first_sign(process: subprocess.Popen[bytes], patience: float) -> str:
    """Wait for the kernel's first words; return what is wrong when they do not come."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + patience
    seen = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            error = process.stderr.read().decode(errors="replace").strip().splitlines()
            last = error[-1] if error else "no message"
            return f"/dev/kvm is there, but the emulator stops with it: {last[:120]}"
        seen += data
        if b"Linux version" in seen:
            return ""
    return f"/dev/kvm is there, but a guest shows no life within {patience:.0f} s"
