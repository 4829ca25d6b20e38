# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a script that the kernel refuses, repaired, capturing packets in a guest.

``make demo`` runs it. What it leaves is in ``demo-output/``; the exit status says whether every
kind of traffic is in the capture.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from kcap.errors import KcapError
from kcap.vm.guest import Guest
from kcap.vm.sources import Share

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "demo-output"
#: napi_gro_receive is a function of its own here; on 7.2 it is inlined into its callers.
KERNEL = "6.12"
_STARTED = time.monotonic()


def progress(text: str) -> None:
    """Show a step that takes time."""
    print(f"[{time.monotonic() - _STARTED:5.1f} s] {text}", flush=True)


def write(descriptor: int, data: bytes) -> None:
    """Pass on what the guest writes."""
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> int:
    """Run the demonstration and return its exit status."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    shutil.copy(HERE / "gro.bt", OUTPUT)
    try:
        with Guest(KERNEL, shares=[Share(OUTPUT, "/root/demo")], progress=progress) as guest:
            guest.put(HERE / "guest.sh", "/root/guest.sh")
            result = guest.run(
                ["bash", "/root/guest.sh"],
                cwd="/root/demo",
                on_stdout=lambda data: write(1, data),
                on_stderr=lambda data: write(1, data),
            )
    except KcapError as error:
        log = getattr(error, "log", "")
        print(f"{log}\nerror: {error}" if log else f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return 1
    print()
    progress(f"left in {OUTPUT.relative_to(HERE.parent)}/:")
    for path in sorted(OUTPUT.iterdir()):
        print(f"  {path.name} ({path.stat().st_size} bytes)")
    if result.status:
        print(f"the demonstration failed (exit status {result.status})", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
