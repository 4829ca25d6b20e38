# SPDX-License-Identifier: Apache-2.0
"""The guest's side: runs each test and prints one JSON line for it.

Starting Python takes seconds under emulation, so this process imports all of kcap once and forks
for every test that is given as a program; tests that are shell commands start kcap for themselves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from conformance.suite import Expectation, Test, read_suites

#: How much slower than real hardware things may be.
PATIENCE = 6
ATTACH_TIMEOUT = 20
#: Silence after which a test is over, in seconds, when everything expected has come.
GRACE = 0.4
#: Silence after which a test is asked to end, in seconds: what it expects may come at its exit. A
#: test that allows itself more than the usual five seconds is given as many more. A test that
#: fails is tried again, and then has all its time however long it is silent.
SILENCE = 6.0
#: What means something to a shell outside of single quotes.
_SPECIAL = frozenset("$`|&;<>()*?~#{}\\\n[]!")
#: Modules whose functions, types and events tests look at.
MODULES = ("nf_tables", "kvm", "xfs")
NOTIFY = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"


class Skip(Exception):
    """The test does not apply here; the text says why."""


class Process:
    """A running bpftrace, with its output as one stream.

    :param pid: leader of its own process group.
    :param stream: read end of its output.
    """

    def __init__(self, pid: int, stream: int) -> None:
        self.pid = pid
        self._stream = stream
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)
        self.output = ""
        self.status: int | None = None

    def read(self, seconds: float) -> bool:
        """Take output that comes within some seconds; False at its end or if none comes."""
        if not self._selector.select(max(0.0, seconds)):
            return False
        data = os.read(self._stream, 1 << 16)
        self.output += data.decode(errors="backslashreplace")
        return bool(data)

    def ended(self) -> bool:
        """Whether it has exited."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def stop(self, signals: Iterable[int] = (signal.SIGTERM, signal.SIGKILL)) -> None:
        """Send signals to the whole group until it ends; read what is left."""
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            end = time.monotonic() + 8.0
            while not self.ended() and time.monotonic() < end:
                self.read(0.1)
            if self.ended():
                break
        while self.read(0.1):
            pass

    def close(self) -> None:
        """Release the stream."""
        self._selector.close()
        os.close(self._stream)


def start(test: Test, directory: Path, before_pid: str, prefix: list[str]) -> Process:
    """Start the test's program or command."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (write, 1), (write, 2)):
                os.dup2(source, target)
            os.chdir(directory)
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": "/root",
                "test": test.name,
                NOTIFY: "1",
                **test.environment,
            }
            _become(test, environment, before_pid, prefix)
        except BaseException as error:
            os.write(2, f"runner: {error!r}\n".encode())
        finally:
            os._exit(125)
    os.close(write)
    return Process(pid, read)


def _become(test: Test, environment: dict[str, str], before_pid: str, prefix: list[str]) -> None:
    words = _arguments(test)
    if words and not prefix:
        os.environ.clear()
        os.environ.update(environment)
        os._exit(run_here([word.replace("{{BEFORE_PID}}", before_pid) for word in words]))
    keep = ("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    environment.update({name: os.environ[name] for name in keep if name in os.environ})
    command = test.command.replace("{{BPFTRACE}}", "bpftrace")
    if test.program:
        command = f"bpftrace -e {shlex.quote(test.program)}"
    command = f"{shlex.join(prefix)} {command}" if prefix else command
    os.execve("/bin/bash", ["sh", "-c", command.replace("{{BEFORE_PID}}", before_pid)], environment)


def _arguments(test: Test) -> list[str]:
    """The arguments for bpftrace, or [] where it takes a shell to find them."""
    if test.program:
        json_wanted = test.expectations and test.expectations[0].mode == "json"
        return [*(["-q", "-f", "json"] if json_wanted else []), "-e", test.program]
    quoted = re.sub(r"""'[^']*'|"[^"$`\\]*\"""", "''", test.command)
    name, _, rest = test.command.partition(" ")
    if name != "{{BPFTRACE}}" or set(quoted.replace("{{", "").replace("}}", "")) & _SPECIAL:
        return []
    return shlex.split(rest)


def run_here(words: list[str]) -> int:
    from kcap.cli.main import main

    sys.argv = ["bpftrace", *words]
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def check(expectation: Expectation, output: str, test: Test, directory: Path) -> bool:
    """Whether the output is as expected."""
    text = expectation.text
    if expectation.mode in ("text", "text_none"):
        found = re.search(rf"^\s*{re.escape(text)}\s*$", output, re.M) is not None
        return found == (expectation.mode == "text")
    if expectation.mode in ("regex", "regex_none"):
        return (re.search(text, output, re.M) is not None) == (expectation.mode == "regex")
    wanted = (directory / text).read_text(encoding="utf-8").strip()
    if expectation.mode == "file":
        if test.localize >= 0:
            wanted = time.strftime(wanted, time.localtime(test.localize))
        return output.strip() == wanted
    lines = output.strip().splitlines()
    try:
        if text.endswith(".ndjson"):
            return [json.loads(x) for x in lines] == [json.loads(x) for x in wanted.splitlines()]
        return len(lines) == 1 and json.loads(lines[0]) == json.loads(wanted)
    except ValueError:
        return False


def _applies(test: Test, features: frozenset[str]) -> None:
    machine = {platform.machine().lower(), "le"}
    wanted = {word for word in test.architectures if not word.startswith("!")}
    unwanted = {word[1:] for word in test.architectures if word.startswith("!")}
    if (wanted and not wanted & machine) or unwanted & machine:
        raise Skip("not for this architecture")
    release = _numbers(os.uname().release)
    if test.kernel_min and _numbers(test.kernel_min) > release:
        raise Skip(f"needs kernel {test.kernel_min}")
    if test.kernel_max and _numbers(test.kernel_max) < release:
        raise Skip(f"needs a kernel up to {test.kernel_max}")
    for word in test.features:
        if (word.removeprefix("!") in features) == word.startswith("!"):
            raise Skip(f"feature {word}")


def _requirements(test: Test, directory: Path) -> None:
    for command in test.requires:
        done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, check=False)
        if done.returncode:
            raise Skip(f"requirement not met: {command}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def run(
    test: Test, directory: Path, features: frozenset[str], silence: float = SILENCE
) -> tuple[str, str]:
    """Run one test; ('pass' | 'fail' | 'skip', why).

    :param silence: after how many seconds without output it is asked to end.
    """
    try:
        _applies(test, features)
        _requirements(test, directory)
    except Skip as reason:
        return "skip", str(reason)
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        if test.setup:
            subprocess.run(test.setup, shell=True, cwd=directory, check=False)
        prefix = _start_before(test, directory, helpers)
        before_pid = _pid_of(test.before[0]) if test.before and not prefix else ""
        process = start(test, directory, before_pid, prefix)
        try:
            return _follow(test, process, directory, helpers, prefix, silence)
        finally:
            process.stop()
            process.close()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return "fail", f"runner: {error}"
    finally:
        for helper in helpers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()
        if test.cleanup:
            subprocess.run(test.cleanup, shell=True, cwd=directory, check=False)


def _start_before(test: Test, directory: Path, helpers: list[subprocess.Popen[bytes]]) -> list[str]:
    """Start what has to run before; the words that enter its PID namespace if it has its own."""
    prefix: list[str] = []
    for command in test.before:
        words = command.split()
        if test.new_pidns and not prefix:
            words = [
                "unshare",
                "--fork",
                "--pid",
                "--mount-proc",
                "-r",
                "--kill-child",
                "--",
                *words,
            ]
        helpers.append(_popen([*prefix, *words], directory))
        if test.new_pidns and not prefix:
            inner = _wait_for_child(helpers[0].pid)
            prefix = ["nsenter", "-p", "-m", "-t", inner]
    if test.before:
        time.sleep(1.0)
    if test.before and not test.new_pidns:
        _signal_all(helpers, signal.SIGSTOP)
    return prefix


def _signal_all(helpers: list[subprocess.Popen[bytes]], number: int) -> None:
    """Stop or continue what runs beside the test: here attaching may take longer than programs
    wait that a test starts before it."""
    for helper in helpers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(helper.pid, number)


def _popen(command: list[str] | str, directory: Path) -> subprocess.Popen[bytes]:
    """Start a program, or a command as bpftrace's tests have them: in the language of bash, and one
    of them wants to see the execution of a file whose name is as long as /bin/bash."""
    return subprocess.Popen(
        ["/bin/bash", "-c", command] if isinstance(command, str) else command,
        cwd=directory,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )


def _wait_for_child(pid: int) -> str:
    for _ in range(100):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return children[0]
        time.sleep(0.1)
    raise ValueError("no process in the new PID namespace")


def _pid_of(command: str) -> str:
    name = os.path.basename(command.split()[-1])[:15]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{entry}/comm").read_text().strip() == name:
                    return entry
    return ""


def _follow(
    test: Test,
    process: Process,
    directory: Path,
    helpers: list[subprocess.Popen[bytes]],
    prefix: list[str],
    silence: float,
) -> tuple[str, str]:
    attached = False
    silent, looked = 0.0, time.monotonic()
    deadline = time.monotonic() + ATTACH_TIMEOUT * PATIENCE / 2
    while time.monotonic() < deadline:
        more = process.read(min(GRACE, deadline - time.monotonic()))
        silent = 0.0 if more else silent + GRACE
        if not attached and f"{NOTIFY}\n" in process.output:
            attached = True
            before, _, rest = process.output.partition(f"{NOTIFY}\n")
            process.output = rest if test.exact else before + rest
            deadline = time.monotonic() + test.timeout * PATIENCE
            _signal_all(helpers, signal.SIGCONT)
            if test.after:
                command = f"{shlex.join(prefix)} {test.after}" if prefix else test.after
                helpers.append(_popen(command, directory))
        if more and time.monotonic() < looked + GRACE:
            continue
        looked = time.monotonic()
        if not more and process.ended():
            break
        if attached and _seen(test, process.output, directory):
            process.stop((signal.SIGKILL,))  # nothing that its exit prints is of interest
            return "pass", ""
        if attached and silent >= silence + max(0, test.timeout - 5):
            break
    timed_out = not process.ended()
    process.stop()
    missing = [e for e in test.expectations if not check(e, process.output, test, directory)]
    if missing:
        lacking = re.search(r": ([\w-]+): command not found", process.output)
        if lacking is not None:
            return "skip", f"the guest lacks {lacking[1]}"
        kind = "timed out; " if timed_out else ""
        return "fail", f"{kind}output differs ({missing[0].mode}): {process.output[-1500:]!r}"
    if not timed_out:
        if test.fails and process.status == 0:
            return "fail", "exit status 0 where a failure was expected"
        if not test.fails and process.status != test.return_code:
            return "fail", f"exit status {process.status}; {process.output[-1500:]!r}"
    return "pass", "after its time" if timed_out else ""


def _seen(test: Test, output: str, directory: Path) -> bool:
    """Whether everything expected has come, so that waiting longer can show nothing new."""
    found = [check(e, output, test, directory) for e in test.expectations]
    return (
        bool(found) and all(found) and all(e.mode in ("text", "regex") for e in test.expectations)
    )


def main() -> int:
    """Run the tests of ``DIR`` that are asked for: ``in_guest DIR FEATURES SUITES NAMES``."""
    directory = Path(sys.argv[1])
    features = frozenset(sys.argv[2].split(","))
    suites = sys.argv[3].split(",") if sys.argv[3] else []
    wanted = re.compile(sys.argv[4]) if len(sys.argv) > 4 and sys.argv[4] else None
    subprocess.run(["modprobe", "-a", *MODULES], check=False)  # without them tests are skipped
    warm_up()
    for test in read_suites(directory, suites):
        full = f"{test.suite}.{test.name}"
        if wanted is not None and not wanted.search(full):
            continue
        started = time.monotonic()
        status, why = run(test, directory, features)
        if status == "fail":
            status, why = run(test, directory, features, silence=math.inf)
            why = f"tried twice; {why}" if why else "tried twice"
        row = {"test": full, "status": status, "why": why}
        row["seconds"] = round(time.monotonic() - started, 1)  # type: ignore[assignment]
        print(json.dumps(row), flush=True)
    return 0


def warm_up() -> None:
    """Import everything that tests would import, LLVM included, before forking: by a trace."""
    import llvmlite.binding as llvm

    import kcap
    import kcap.cli.script
    import kcap.output.jsonlines
    import kcap.output.text
    import kcap.session.preparation

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    script = 'begin { @ = count(); @h = hist(1); printf("%d %s\\n", pid, comm); print(@); exit(); }'
    with kcap.trace(script) as trace:
        trace.attach()
        list(trace)
    kcap.compile(script).generate()
    gc.freeze()  # or each fork copies what its collector looks at


if __name__ == "__main__":
    sys.exit(main())
