# SPDX-License-Identifier: Apache-2.0
"""The program that runs as process 1 in a guest and does what the host asks.

It is copied into the guest on its own, so it imports the standard library only, and little of
that: every module costs start-up time in an emulated guest. The host speaks to it through one
virtio-serial port, in frames of a header (:data:`HEADER`: payload length, request number, kind)
and a payload. Requests are numbered by the host and answered with the same number, so that several
run at once. The host's half of the conversation imports the names from here.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import stat
import struct

HEADER = struct.Struct("<IHH")
PORT = "org.kcap.agent"
CHUNK = 1 << 16

# Kinds of frames from the host.
RUN, STDIN, SIGNAL, PUT, GET, COLLECT = range(1, 7)
# Kinds of frames from the guest.
HELLO, STDOUT, STDERR, EXIT, ENTRY, DATA, END, FAILED = range(17, 25)

MOUNTS = (
    ("devpts", "/dev/pts", "mode=620"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", "mode=700"),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
)


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """Return one frame as it goes over the port."""
    return HEADER.pack(len(payload), number, kind) + payload


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take the next bytes; return (kind, number, payload) of each frame that is complete."""
        self._pending += data
        frames = []
        while len(self._pending) >= HEADER.size:
            length, number, kind = HEADER.unpack_from(self._pending)
            if len(self._pending) < HEADER.size + length:
                break
            payload = bytes(self._pending[HEADER.size : HEADER.size + length])
            del self._pending[: HEADER.size + length]
            frames.append((kind, number, payload))
        return frames


class Command:
    """A command that runs: its process and the pipes to it."""

    def __init__(self, number: int, request: dict[str, object]) -> None:
        self.number = number
        self.outputs: dict[int, int] = {}
        self.stdin = -1
        self.pending = bytearray()
        self.stdin_ended = False
        self._start(request)

    def _start(self, request: dict[str, object]) -> None:
        out_read, out_write = os.pipe()
        error_read, error_write = os.pipe()
        if request["stdin"]:
            in_read, self.stdin = os.pipe()
            os.set_blocking(self.stdin, False)
        else:
            in_read = os.open("/dev/null", os.O_RDONLY)
        problem_read, problem_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(request, (in_read, out_write, error_write), problem_write)
        for descriptor in (in_read, out_write, error_write, problem_write):
            os.close(descriptor)
        problem = os.read(problem_read, 4096)
        os.close(problem_read)
        self.outputs = {out_read: STDOUT, error_read: STDERR}
        for descriptor in self.outputs:
            os.set_blocking(descriptor, False)
        self.problem = problem.decode(errors="replace")

    def feed(self) -> None:
        """Write what the host sent for standard input, as far as the pipe takes it."""
        while self.pending:
            try:
                del self.pending[: os.write(self.stdin, self.pending[:CHUNK])]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.pending.clear()
                self.stdin_ended = True
        if self.stdin_ended:
            self.close_stdin()

    def close_stdin(self) -> None:
        """Let the command see the end of its standard input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1


def _become(request: dict[str, object], descriptors: tuple[int, int, int], problem: int) -> None:
    """In the child: turn into the command; what hinders that is written to ``problem``."""
    try:
        os.setsid()
        for signal_number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(signal_number, signal.SIG_DFL)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        argv, environment, cwd = request["argv"], request["env"], request["cwd"]
        assert isinstance(argv, list)
        assert isinstance(environment, dict)
        assert isinstance(cwd, str)
        os.chdir(cwd)
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:  # whatever it is, it must not return into the agent
        os.write(problem, str(error).encode())
    finally:
        os._exit(127)


class Agent:
    """The loop that serves the port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.frames = Frames()
        self.commands: dict[int, Command] = {}
        self.poll = select.poll()
        self.poll.register(port, select.POLLIN)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wake = wake_read
        self.poll.register(wake_read, select.POLLIN)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Write one frame; waits until the host has taken it."""
        data = memoryview(frame(kind, number, payload))
        while data:
            try:
                data = data[os.write(self.port, data) :]
            except BlockingIOError:
                writable = select.poll()
                writable.register(self.port, select.POLLOUT)
                writable.poll()

    def serve(self) -> None:
        """Answer requests until the host goes away."""
        while True:
            for descriptor, events in self.poll.poll():
                if descriptor == self.port:
                    if events & select.POLLHUP:
                        return
                    self.receive()
                elif descriptor == self.wake:
                    os.read(self.wake, 4096)
                else:
                    self.forward(descriptor)
            self.reap()

    def receive(self) -> None:
        """Take in what the host sent."""
        try:
            data = os.read(self.port, CHUNK)
        except BlockingIOError:
            return
        for kind, number, payload in self.frames.feed(data):
            try:
                self.handle(kind, number, payload)
            except OSError as error:
                message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
                self.send(FAILED, number, message.encode())

    def handle(self, kind: int, number: int, payload: bytes) -> None:
        """Do what one frame asks."""
        command = self.commands.get(number)
        if kind == RUN:
            self.run(number, _parsed(payload))
        elif kind == STDIN and command is not None and command.stdin >= 0:
            command.pending += payload
            command.stdin_ended = not payload
            command.feed()
            if command.stdin >= 0 and command.pending:
                self.poll.register(command.stdin, select.POLLOUT)
        elif kind == SIGNAL and command is not None:
            # The whole group, as a terminal does on Ctrl-C.
            os.killpg(command.pid, int(payload))
        elif kind == PUT:
            put(payload)
            self.send(END, number)
        elif kind == GET:
            self.send_file(number, payload.decode())
            self.send(END, number)
        elif kind == COLLECT:
            self.collect(number, _parsed(payload))

    def run(self, number: int, request: dict[str, object]) -> None:
        """Start a command."""
        command = Command(number, request)
        self.commands[number] = command
        if command.problem:
            self.send(STDERR, number, f"kcap-guest: {command.problem}\n".encode())
        for descriptor in command.outputs:
            self.poll.register(descriptor, select.POLLIN)

    def forward(self, descriptor: int) -> None:
        """Move what is there between a command's pipe and the host."""
        for command in self.commands.values():
            if descriptor == command.stdin:
                command.feed()
                if not command.pending:
                    self.poll.unregister(descriptor)
                return
            kind = command.outputs.get(descriptor)
            if kind is not None:
                self.drain(command, descriptor, kind, CHUNK)
                return
        self.poll.unregister(descriptor)

    def drain(self, command: Command, descriptor: int, kind: int, size: int) -> None:
        """Send what a command wrote, at most so many bytes."""
        while size > 0:
            try:
                data = os.read(descriptor, min(size, CHUNK))
            except BlockingIOError:
                return
            if not data:
                self.poll.unregister(descriptor)
                os.close(descriptor)
                del command.outputs[descriptor]
                return
            self.send(kind, command.number, data)
            size -= len(data)

    def reap(self) -> None:
        """Collect the processes that ended; tell the host about those it had started."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for command in list(self.commands.values()):
                if command.pid == pid:
                    self.finish(command, os.waitstatus_to_exitcode(status))

    def finish(self, command: Command, status: int) -> None:
        """Send a command's last output and its exit status (minus the signal that ended it).

        What its children in the background write later is not waited for.
        """
        for descriptor, kind in list(command.outputs.items()):
            self.drain(command, descriptor, kind, waiting(descriptor))
        for descriptor in command.outputs:
            self.poll.unregister(descriptor)
            os.close(descriptor)
        if command.pending:
            self.poll.unregister(command.stdin)
        command.close_stdin()
        del self.commands[command.number]
        self.send(EXIT, command.number, b"%d" % status)

    def send_file(self, number: int, path: str) -> None:
        """Send a file's content."""
        with open(path, "rb") as file:
            self.send_content(number, file)

    def send_content(self, number: int, file: io.BufferedReader) -> None:
        """Send the rest of a file."""
        while data := file.read(CHUNK * 8):
            self.send(DATA, number, data)

    def send_entry(self, number: int, path: str, name: str) -> None:
        """Send what something in a directory is, and a file's content."""
        import json

        status = os.lstat(path)
        entry = {"name": name, "mode": status.st_mode, "mtime": status.st_mtime}
        if stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        if not stat.S_ISREG(status.st_mode):
            self.send(ENTRY, number, json.dumps(entry).encode())
            return
        with open(path, "rb") as file:  # before it is announced: it may be gone
            self.send(ENTRY, number, json.dumps(entry).encode())
            self.send_content(number, file)

    def collect(self, number: int, request: dict[str, object]) -> None:
        """Send what changed below a directory, then which of the names known are gone.

        A file has changed when its ctime (which nothing but the clock sets) is not before the
        time at which the directory was mounted.
        """
        import json

        top, known, since = request["path"], request["known"], request["since"]
        assert isinstance(top, str)
        assert isinstance(known, list)
        assert isinstance(since, float | int)
        missing = set(known)
        hidden: list[str] = []
        for path, name in walk(top, hidden):
            try:
                if name not in missing or os.lstat(path).st_ctime >= since:
                    self.send_entry(number, path, name)
            except FileNotFoundError:  # something still runs there and removed it
                continue
            missing.discard(name)
        # What something else is mounted over is hidden, not gone.
        for name in hidden:
            missing = {one for one in missing if one != name and not one.startswith(f"{name}/")}
        self.send(END, number, json.dumps(sorted(missing)).encode())


def waiting(pipe: int) -> int:
    """How many bytes a pipe holds (FIONREAD, pipe(7))."""
    import fcntl

    return int.from_bytes(fcntl.ioctl(pipe, 0x541B, bytes(4)), "little")


def walk(top: str, hidden: list[str], prefix: str = "") -> list[tuple[str, str]]:
    """Return (path, name relative to the first ``top``) of all below, parents first.

    :param hidden: gets the names of directories that something else is mounted on.
    """
    found = []
    device = os.lstat(top).st_dev
    for name in sorted(os.listdir(top)):
        path = f"{top}/{name}"
        if name == "lost+found" and not prefix:
            continue
        try:
            status = os.lstat(path)
            if status.st_dev != device:
                hidden.append(prefix + name)
                continue
            below = walk(path, hidden, f"{prefix}{name}/") if stat.S_ISDIR(status.st_mode) else []
        except FileNotFoundError:  # something still runs there and removed it
            continue
        found += [(path, prefix + name), *below]
    return found


def put(payload: bytes) -> None:
    """Write a piece of a file: a line of JSON (path, mode, append) and the bytes."""
    head, _, data = payload.partition(b"\n")
    request = _parsed(head)
    path = str(request["path"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab" if request["append"] else "wb") as file:
        file.write(data)
    os.chmod(path, int(str(request["mode"])))


def _parsed(payload: bytes) -> dict[str, object]:
    import json

    value = json.loads(payload)
    assert isinstance(value, dict)
    return value


def find_port() -> str:
    """Return the device of the port named :data:`PORT`."""
    top = "/sys/class/virtio-ports"
    for name in os.listdir(top):
        with open(f"{top}/{name}/name") as file:
            if file.read().strip() == PORT:
                return f"/dev/{name}"
    raise FileNotFoundError(errno.ENOENT, "there is no port to the host", PORT)


def set_up() -> None:
    """Mount what programs expect, and do what udev and ifupdown would."""
    import ctypes

    mount = ctypes.CDLL(None, use_errno=True).mount
    for kind, point, options in MOUNTS:
        if not os.path.isdir(point):
            os.makedirs(point)
        if mount(kind.encode(), point.encode(), kind.encode(), 0, options.encode()):
            log(f"cannot mount {point}: {os.strerror(ctypes.get_errno())}")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(target, f"/dev/{name}")
    with open("/proc/sys/kernel/hostname", "w") as file:
        file.write("kcap-guest")
    loopback_up()


def loopback_up() -> None:
    """Bring ``lo`` up: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING (netdevice(7))."""
    # The module below `socket`, which would import a dozen others.
    import _socket
    import fcntl

    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    any_socket.close()


def log(text: str) -> None:
    """Write a line to the console."""
    with open("/dev/kmsg", "w") as file:
        file.write(f"<3>kcap-guest: {text}\n")


def main() -> None:
    """Serve the host until it goes away, then leave as quickly as can be."""
    try:
        os.environ.clear()
        set_up()
        port = os.open(find_port(), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        agent = Agent(port)
        agent.send(HELLO, 0, os.uname().release.encode())
        agent.serve()
    except BaseException as error:
        line = error.__traceback__.tb_lineno if error.__traceback__ else 0
        log(f"{type(error).__name__}: {error} (line {line} of main)")
        raise
    finally:
        with open("/proc/sysrq-trigger", "w") as file:
            file.write("b")


if __name__ == "__main__":
    main()
