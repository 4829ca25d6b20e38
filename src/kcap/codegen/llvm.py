# SPDX-License-Identifier: Apache-2.0
"""From LLVM IR to a BPF object file, in a child process.

LLVM's BPF back end calls exit(1) on what it cannot compile, and importing LLVM costs 60 ms and 180
MB of address space. So a forked child does it: the parent never loads LLVM, an exit becomes an
error with what LLVM said, and :class:`Compiler` can start its child while the script is still
being parsed, so that loading LLVM costs no time on a second core.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final, Literal

from kcap.codegen.module import KEEP_BLOCK_ORDER, NO_SUBREGISTERS
from kcap.errors import KcapError

TextKind = Literal["none", "ir", "assembly"]
TEXTS: Final[tuple[TextKind, ...]] = ("none", "ir", "assembly")

CPU = "v3"  # the BPF instruction set that runs from 5.10 up
_CPU_WITHOUT_SUBREGISTERS = "v2"


class CodegenError(KcapError):
    """LLVM could not compile the programs.

    :param log: what LLVM printed.
    """

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class Compiler:
    """A child process with LLVM loaded, that compiles one module.

    :raises CodegenError: if no process can be started.
    """

    def __init__(self) -> None:
        self._ask = self._answer = self._pid = -1
        self._log = open(os.memfd_create("kcap-llvm"), "w+b")  # noqa: SIM115 - for the child's life
        ask_read, self._ask = os.pipe()
        self._answer, answer_write = os.pipe()
        try:
            self._pid = os.fork()
        except OSError as error:
            self.close()
            raise CodegenError(
                f"no process can be started for LLVM: {error.strerror}", ""
            ) from error
        finally:
            if self._pid:  # not in the child
                os.close(ask_read)
                os.close(answer_write)
        if self._pid == 0:
            os.close(self._ask)
            os.close(self._answer)
            _child(ask_read, answer_write, self._log.fileno())

    def compile(
        self, ir: str, *, optimise: bool = True, text: TextKind = "none", native: bool = False
    ) -> tuple[bytes, str]:
        """Compile a module; ends the child.

        :param ir: the module's text.
        :param text: what is wanted beside the object file: the optimised IR, or the assembly.
        :param native: for this machine's processor, instead of BPF.
        :returns: the object file, and that text or ''.
        :raises CodegenError: with LLVM's own words.
        """
        self.ask(ir, optimise=optimise, text=text, native=native)
        return self.answer()

    def ask(
        self, ir: str, *, optimise: bool = True, text: TextKind = "none", native: bool = False
    ) -> None:
        """Let it begin; as :meth:`compile` otherwise."""
        try:
            _send(self._ask, bytes([optimise, native, TEXTS.index(text)]), ir.encode())
        except BrokenPipeError:
            pass  # the child ended: its log says why
        finally:
            os.close(self._ask)
            self._ask = -1

    def answer(self) -> tuple[bytes, str]:
        """Wait for what :meth:`ask` asked for; ends the child.

        :raises CodegenError: with LLVM's own words.
        """
        with self._log, os.fdopen(self._answer, "rb") as stream:
            self._answer = -1
            data = stream.read()
            status = self._wait()
            if status or len(data) < 4:
                self._log.seek(0)
                log = self._log.read().decode(errors="replace").strip()
                raise CodegenError(_summary(log, status), log)
        (size,) = struct.unpack_from("<I", data)
        return data[4 : 4 + size], data[4 + size :].decode()

    def close(self) -> None:
        """End the child if it wasn't used."""
        for fd in (self._ask, self._answer):
            if fd >= 0:
                os.close(fd)
        self._ask = self._answer = -1
        self._wait()
        self._log.close()

    def _wait(self) -> int:
        if self._pid < 0:
            return 0
        _, status = os.waitpid(self._pid, 0)
        self._pid = -1
        return os.waitstatus_to_exitcode(status)


def _summary(log: str, status: int) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), "")
    return f"LLVM cannot compile the script: {said or log or f'it ended with status {status}'}"


def _send(fd: int, *parts: bytes) -> None:
    with os.fdopen(os.dup(fd), "wb") as stream:
        for part in parts:
            stream.write(part)


def _child(ask: int, answer: int, log: int) -> None:
    """Runs in the child: never returns, never runs the parent's exit handlers."""
    status = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        import gc

        gc.disable()
        _load()
        with os.fdopen(ask, "rb") as stream:
            request = stream.read()
        if not request:  # closed without a question
            status = 0
        else:
            optimise, native, text_kind = bool(request[0]), bool(request[1]), TEXTS[request[2]]
            data, text = _compile(request[3:].decode(), optimise, native, text_kind)
            with os.fdopen(answer, "wb") as stream:
                stream.write(struct.pack("<I", len(data)) + data + text.encode())
            status = 0
    except BaseException as error:  # reported through the log
        with contextlib.suppress(OSError):
            os.write(2, f"error: {error}\n".encode())
    finally:
        os._exit(status)


def _load() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _compile(ir: str, optimise: bool, native: bool, text: TextKind) -> tuple[bytes, str]:
    import llvmlite.binding as llvm

    if KEEP_BLOCK_ORDER in ir:
        llvm.set_option("kcap", "-disable-block-placement")
    level = 2 if optimise else 0
    if native:
        # Code that runs wherever it is put: nothing in it may depend on its address.
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(opt=level, reloc="pic", codemodel="small")
    else:
        # (a function's attribute "target-cpu" does nothing: the back end has one CPU for all)
        cpu = _CPU_WITHOUT_SUBREGISTERS if NO_SUBREGISTERS in ir else CPU
        machine = llvm.Target.from_triple("bpfel").create_target_machine(cpu=cpu, opt=level)
    module = llvm.parse_assembly(ir)
    module.verify()
    if optimise:
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = False
        options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    data = bytes(machine.emit_object(module))
    if text == "assembly":
        return data, str(machine.emit_assembly(module))
    return data, str(module) if text == "ir" else ""
