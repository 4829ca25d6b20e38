# SPDX-License-Identifier: Apache-2.0
"""A guest: booted, given commands, and gone when the ``with`` block ends.

::

    with Guest("6.12", shares=[share(".")]) as guest:
        result = guest.run(["uname", "-r"])
        assert result.stdout == f"{guest.release}\n".encode()
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kcap.vm import agent, images, kernels, modules, python, qemu, rootfs, sources
from kcap.vm.accel import accelerator
from kcap.vm.cache import temporary_directory
from kcap.vm.command import Command, Result
from kcap.vm.cpio import Archive
from kcap.vm.errors import BootError, GuestDied, VmError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from kcap.vm.kernels import Kernel, Progress
    from kcap.vm.sources import Share

#: How long a guest may take until its agent says hello. Emulated it takes 5 to 9 s on an idle
#: machine; a machine that does other things at the same time may take several times as long.
BOOT_PATIENCE_S = 180.0
BOOT_ATTEMPTS = 4


def say_nothing(text: str) -> None:
    """Take a line of progress and drop it."""


class Guest:
    """A virtual machine with a kernel of choice, this machine's Python and this kcap.

    :param kernel: the series: one of :data:`kcap.vm.kernels.SUITES`.
    :param shares: directories that the guest sees; what commands change in them is brought back by
        :meth:`collect`, and at the end of the ``with`` block.
    :param memory: MiB.
    :param processors: how many CPUs.
    :param counted: emulate, with a clock that moves on by one nanosecond with each instruction
        that the guest runs: times measured there are the same however busy this machine is.
    :param progress: called with a line about each step that takes time.
    :param on_console: called with what the kernel writes on its console.
    """

    def __init__(
        self,
        kernel: str = kernels.DEFAULT,
        *,
        shares: Sequence[Share] = (),
        memory: int = 1536,
        processors: int = 2,
        counted: bool = False,
        progress: Progress = say_nothing,
        on_console: Callable[[bytes], None] | None = None,
    ) -> None:
        self.series = kernels.check_series(kernel)
        self.release = ""
        self.shares = list(shares)
        self.memory = memory
        self.processors = processors
        self.counted = counted
        #: Seconds from the emulator's start until the agent answered.
        self.boot_seconds = 0.0
        self._progress = progress
        self._on_console = on_console
        self._console = bytearray()
        self._commands: dict[int, Command] = {}
        self._next = 1
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._ready = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._cleanup = contextlib.ExitStack()
        self._mounted_at = 0.0
        #: Share's place in the guest -> what was in it when the guest got it.
        self._shared: dict[str, list[str]] = {}

    def __enter__(self) -> Guest:
        try:
            self.boot()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.collect()
        finally:
            self.kill()

    def boot(self) -> None:
        """Boot the guest and wait until it takes commands.

        :raises VmError: when something it needs is missing or it does not come up.
        """
        qemu.check_requirements()
        kernel = kernels.kernel(self.series, self._progress)
        disks = [
            qemu.Disk("root", rootfs.image(self._progress), ""),
            qemu.Disk(
                "modules",
                rootfs.modules_image(kernel, self._progress),
                f"/lib/modules/{kernel.release}",
                "ro",
            ),
        ]
        counted = "tcg-counted" if self.counted else ""
        acceleration = counted or accelerator(kernel.image, self._progress)
        directory = self._cleanup.enter_context(temporary_directory())
        self._mounted_at = time.time() - 1
        disks += self._own_disks(directory)
        initramfs = directory / "initramfs"
        initramfs.write_bytes(_initramfs(kernel) + _this_run(disks))
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            self._progress(f"booting {kernel.release} ({acceleration})")
            self._start(kernel, initramfs, disks, acceleration)
            try:
                self._wait_until_ready(kernel)
                return
            except BootError:
                # See GuestDied.stale_breakpoint: only that is worth another attempt.
                if attempt == BOOT_ATTEMPTS or not self.died_of_stale_breakpoint():
                    raise
                self._progress("the emulator ran code that the kernel had replaced: once more")
                self._stop()
                self._console.clear()

    def _own_disks(self, directory: Path) -> list[qemu.Disk]:
        """Make the disks that hold this run's files: the shares and kcap's source."""
        package = rootfs.package_directory()
        sources.compile_package(package)
        disks = []
        for number, shared in enumerate(self.shares):
            image = directory / f"share{number}.ext4"
            self._shared[shared.point] = sources.names_below(shared.directory)
            images.make(shared.directory, image, spare=1 << 30)
            disks.append(qemu.Disk(f"share{number}", image, shared.point))
        # A share that shows kcap's source where it lies here already holds it.
        shown = (
            shared.directory in package.parents and str(shared.directory) == shared.point
            for shared in self.shares
        )
        if not any(shown):
            images.make(package, directory / "kcap.ext4", spare=16 << 20)
            disks.append(qemu.Disk("kcap", directory / "kcap.ext4", str(package)))
        return disks

    def _start(
        self, kernel: Kernel, initramfs: Path, disks: list[qemu.Disk], acceleration: str
    ) -> None:
        ours, theirs = socket.socketpair()
        command = qemu.command_line(
            kernel.image,
            initramfs,
            disks,
            accelerator=acceleration,
            port=agent.PORT,
            descriptor=theirs.fileno(),
            memory=self.memory,
            processors=self.processors,
        )
        self._socket = ours
        try:
            # A session of its own, so that Ctrl-C on the terminal is not the emulator's end.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
        for target in (self._read_console, self._read_port):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _wait_until_ready(self, kernel: Kernel) -> None:
        start = time.monotonic()
        assert self._process is not None
        while not self._ready.wait(0.05):
            if self._process.poll() is not None:
                raise BootError(
                    f"the guest with kernel {kernel.release} stopped while it booted",
                    log=self.console_tail(),
                )
            if time.monotonic() - start > BOOT_PATIENCE_S:
                raise BootError(
                    f"the guest with kernel {kernel.release} did not come up within "
                    f"{BOOT_PATIENCE_S:.0f} s",
                    log=self.console_tail(),
                )
        self.boot_seconds = time.monotonic() - start
        self._progress(f"{self.release} is up after {self.boot_seconds:.1f} s")

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bool = False,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> Command:
        """Start a command as root and return at once.

        :param argv: program and arguments; the program is looked for on the guest's PATH.
        :param env: variables on top of the guest's own few.
        :param cwd: where it runs; ``/root`` by default.
        :param stdin: whether something will be written to its standard input.
        :param on_stdout: called, in another thread, with what it writes, instead of keeping it.
        :param on_stderr: the same for standard error.
        """
        command = self._new_command(on_stdout, on_stderr)
        request = {
            "argv": list(argv),
            "env": {**guest_environment(), **(env or {})},
            "cwd": cwd or "/root",
            "stdin": stdin,
        }
        command.send(agent.RUN, json.dumps(request).encode())
        return command

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a command as root and wait for its end. See :meth:`start`.

        :param timeout: seconds after which it is killed.
        :param stdin: what it reads from its standard input.
        :raises TimeoutError: when it took longer than ``timeout``.
        :raises GuestDied: when the guest goes away meanwhile.
        """
        command = self.start(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdin is not None,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )
        if stdin is not None:
            command.write(stdin)
            command.close_stdin()
        return command.wait(timeout)

    def put(self, source: Path | bytes, path: str, *, mode: int | None = None) -> None:
        """Write a file in the guest; directories on the way are made.

        :param source: a file of this machine, or the content itself.
        :param mode: by default that of ``source``, or 0644.
        """
        data = source if isinstance(source, bytes) else source.read_bytes()
        if mode is None:
            mode = 0o644 if isinstance(source, bytes) else source.stat().st_mode & 0o777
        size = 1 << 20
        for start in range(0, max(len(data), 1), size):
            head = json.dumps({"path": path, "mode": mode, "append": start > 0})
            command = self._new_command()
            command.send(agent.PUT, head.encode() + b"\n" + data[start : start + size])
            command.wait_for_end(f"cannot write {path} in the guest")

    def read(self, path: str) -> bytes:
        """Return the content of a file in the guest.

        :raises VmError: when it cannot be read.
        """
        parts: list[bytes] = []
        command = self._new_command(on_data=parts.append)
        command.send(agent.GET, path.encode())
        command.wait_for_end(f"cannot read {path} in the guest")
        return b"".join(parts)

    def get(self, path: str, target: Path) -> None:
        """Copy a file of the guest to ``target``."""
        target.write_bytes(self.read(path))

    def collect(self) -> list[str]:
        """Bring back what changed in the shared directories.

        Only what the guest was given can have been removed there: files that came to a shared
        directory on this side meanwhile stay.

        :returns: the names of what was changed or removed, relative to their share.
        """
        changed: list[str] = []
        for shared in self.shares:
            if not shared.bring_back:
                continue
            receiver = sources.Receiver(shared.directory)
            request = {
                "path": shared.point,
                "known": self._shared.get(shared.point, []),
                "since": self._mounted_at,
            }
            command = self._new_command(on_data=receiver.data, on_entry=receiver.entry)
            command.send(agent.COLLECT, json.dumps(request).encode())
            try:
                missing = json.loads(command.wait_for_end(f"cannot bring back {shared.point}"))
            finally:
                receiver.finish_file()
            for name in reversed(missing):
                receiver.gone(name)
            changed += receiver.changed
        return changed

    def died_of_stale_breakpoint(self) -> bool:
        """Say whether the console tells of what :class:`GuestDied` calls a stale breakpoint."""
        # "int3: 0000 [#1]" up to 6.1, "Oops: int3: 0000 [#1]" later (arch/x86/kernel/traps.c).
        return b"int3: 0000 [#" in self._console

    def console_tail(self, lines: int = 60) -> str:
        """Return the last lines of the guest's console."""
        text = bytes(self._console).decode(errors="replace").replace("\r", "")
        return "\n".join(text.splitlines()[-lines:])

    def kill(self) -> None:
        """End the guest at once and remove its temporary files; may be called again."""
        self._stop()
        self._cleanup.close()

    def _stop(self) -> None:
        """End the emulator and the threads that listen to it."""
        if self._socket is not None:
            # Wakes the thread that reads from it; closing comes after that has ended.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._threads.clear()

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """Send one frame to the agent.

        :raises GuestDied: when it is not there any more.
        """
        connection = self._socket
        if connection is None:
            raise GuestDied("the guest is not running")
        try:
            with self._send_lock:
                connection.sendall(agent.frame(kind, number, payload))
        except OSError as error:
            raise self._death() from error

    def _death(self) -> GuestDied:
        error = GuestDied(
            f"the guest with kernel {self.release or self.series} went away",
            hint="its console's last lines say why, if it knew",
            log=self.console_tail(),
        )
        error.stale_breakpoint = self.died_of_stale_breakpoint()
        return error

    def _new_command(
        self,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
        *,
        on_data: Callable[[bytes], None] | None = None,
        on_entry: Callable[[bytes], None] | None = None,
    ) -> Command:
        with self._lock:
            number = self._next
            while number in self._commands:  # one that runs since 65,535 requests
                number = number % 0xFFFF + 1
            self._next = number % 0xFFFF + 1
            handlers = {
                agent.STDOUT: on_stdout,
                agent.STDERR: on_stderr,
                agent.DATA: on_data,
                agent.ENTRY: on_entry,
            }
            command = Command(self.send, number, handlers)
            self._commands[number] = command
        return command

    def _read_console(self) -> None:
        """Keep what the console and the emulator itself say (a thread of its own)."""
        assert self._process is not None
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 65536):
            self._console += data
            del self._console[: -(1 << 20)]
            if self._on_console is not None:
                self._on_console(data)

    def _read_port(self) -> None:
        """Hand what the agent sends to the commands (a thread of its own)."""
        connection = self._socket
        assert connection is not None
        frames = agent.Frames()
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1 << 18):
                for kind, number, payload in frames.feed(data):
                    if kind == agent.HELLO:
                        self.release = payload.decode()
                        self._ready.set()
                    else:
                        self._dispatch(kind, number, payload)
        # Give the console's thread the time to take in the last words.
        self._threads[0].join(2)
        with self._lock:
            left = list(self._commands.values())
        for command in left:
            command.fail(self._death())

    def _dispatch(self, kind: int, number: int, payload: bytes) -> None:
        with self._lock:
            command = self._commands.get(number)
            if kind in (agent.EXIT, agent.END, agent.FAILED):
                self._commands.pop(number, None)
        if command is None:
            return
        try:
            command.take(kind, payload)
        except (VmError, OSError) as error:
            command.fail(error)


def guest_environment() -> dict[str, str]:
    """Return the variables that every command in a guest starts with."""
    return {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "PYTHONPATH": str(rootfs.package_directory().parent),
        "TERM": os.environ.get("TERM", "dumb"),
        "USER": "root",
    }


def _initramfs(kernel: Kernel) -> bytes:
    """Return the part of the initial RAM file system that belongs to a kernel."""
    here = Path(__file__).parent
    archive = Archive()
    for name in ("proc", "sys", "dev", "root"):
        archive.directory(name)
    busybox = rootfs.tree(say_nothing) / "bin/busybox"
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.file("init", (here / "init.sh").read_bytes(), 0o755)
    archive.file("agent.py", (here / "agent.py").read_bytes())
    order = modules.in_order(kernel.modules)
    for name, data in order:
        archive.file(f"modules/{name}.ko", data)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in order).encode())
    return archive.finish()


def mount_lines(disks: list[qemu.Disk]) -> list[str]:
    """Return what ``init.sh`` is to mount: a line a disk, serial number, options and place.

    A share may lie above the interpreter that is in the root image (a project's directory with its
    ``.venv``): such directories are put aside before the shares are mounted, and back afterwards.
    kcap's own source, which may lie in there, comes last.
    """
    shares = [disk for disk in disks if disk.serial.startswith("share")]
    tops = [f"{disk.point.rstrip('/')}/" for disk in shares]
    hidden = [path for path in python.directories() if f"{path}/".startswith(tuple(tops))]
    line = "{0.serial} {0.options} {0.point}".format
    return [
        *(line(disk) for disk in disks if disk.serial in ("root", "modules")),
        *(f"keep {number} {path}" for number, path in enumerate(hidden)),
        *(line(disk) for disk in shares),
        *(f"restore {number} {path}" for number, path in enumerate(hidden)),
        *(line(disk) for disk in disks if disk.serial == "kcap"),
    ]


def _this_run(disks: list[qemu.Disk]) -> bytes:
    """Return the part that says which disks there are and which Python starts."""
    archive = Archive()
    archive.file("disks", "".join(f"{line}\n" for line in mount_lines(disks)).encode())
    archive.file("python", f"{python.executable()}\n".encode())
    return archive.finish()
