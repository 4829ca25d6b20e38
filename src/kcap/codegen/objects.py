# SPDX-License-Identifier: Apache-2.0
"""Compiled BPF objects, kept from one start to the next.

Compiling takes LLVM: 60 ms to load it (1.5 s when it has to come from a disk), 10 ms and more to
run it. What it makes depends on the IR, on LLVM and on how it is asked, and on nothing else: these
are an object's key. Beside it lies a mark for each script that was compiled, which says where the
object will be found: with a mark there is no need to start LLVM while the script is still being
parsed. A mark is a guess only; what the IR asks for decides.
"""

from __future__ import annotations

import os
import sys

from kcap import cachedir
from kcap.codegen.llvm import CPU, Compiler
from kcap.version import __version__

DIRECTORY = "objects"
#: Bytes that the directory may hold; beyond it the oldest files go.
LIMIT = 64 << 20
#: Goes up when :mod:`kcap.codegen.llvm` asks LLVM for something else.
_PASSES = "O2 1"
_LLVM = "llvmlite"


class ObjectSource:
    """Gives the object for a module: from the cache, or from LLVM in a child process.

    :param hint: what the module will be made from (the script's text, its options, the kernel's
        release): tells whether LLVM will be needed; '' for no guess.
    :param cached: look into the cache, and put there what had to be compiled.
    :ivar compiled: whether LLVM had to work, None before :meth:`compile`.
    """

    def __init__(self, hint: str = "", *, cached: bool = True) -> None:
        self._identity = _identity() if cached else ""
        self._mark = f"{_key('mark', self._identity, hint)}.mark" if self._identity and hint else ""
        self._compiler: Compiler | None = None
        self.compiled: bool | None = None
        if not self._expected():
            self._compiler = Compiler()

    def compile(self, ir: str) -> bytes:
        """The object file of a module; ends the child if there is one.

        :param ir: the module's text.
        :raises CodegenError: with LLVM's own words.
        """
        name = f"{_key('object', self._identity, ir)}.o" if self._identity else ""
        found = cachedir.unsealed(cachedir.read(DIRECTORY, name)) if name else None
        self.compiled = found is None
        if found is None:
            compiler, self._compiler = self._compiler or Compiler(), None
            found, _ = compiler.compile(ir)
            _keep(name, found)
        if self._mark and (self.compiled or cachedir.read(DIRECTORY, self._mark) != name.encode()):
            cachedir.write(DIRECTORY, self._mark, name.encode())
        return found

    def close(self) -> None:
        """End the child if it wasn't used."""
        if self._compiler is not None:
            self._compiler.close()
            self._compiler = None

    def _expected(self) -> bool:
        """Whether the cache has what the script was compiled to the last time."""
        name = cachedir.read(DIRECTORY, self._mark) if self._mark else None
        path = cachedir.directory(DIRECTORY) if name else None
        if name is None or path is None or not name.endswith(b".o") or b"/" in name:
            return False
        return os.path.exists(f"{path}/{os.fsdecode(name)}")


class NativeObject:
    """The object for a module of this machine's own code: from the cache, or LLVM is started.

    :param ir: the module's text.
    :param cached: look into the cache, and put there what had to be compiled.
    :raises CodegenError: no process can be started.
    """

    def __init__(self, ir: str, *, cached: bool = True) -> None:
        identity = _identity() if cached else ""
        self._name = f"{_key('native', identity, ir)}.{os.uname().machine}.o" if identity else ""
        self._found = cachedir.unsealed(cachedir.read(DIRECTORY, self._name)) if identity else None
        self._compiler: Compiler | None = None
        if self._found is None:
            self._compiler = Compiler()
            self._compiler.ask(ir, native=True)

    def wait(self) -> bytes:
        """The object file, once it is there.

        :raises CodegenError: with LLVM's own words.
        """
        compiler, self._compiler = self._compiler, None
        if compiler is not None:
            self._found, _ = compiler.answer()
            _keep(self._name, self._found)
        assert self._found is not None
        return self._found

    def close(self) -> None:
        """End the compiler if nobody waited for it."""
        if self._compiler is not None:
            self._compiler.close()
            self._compiler = None


def optimised(ir: str) -> str:
    """What LLVM's passes make of a module, as text; never from the cache.

    :raises CodegenError: with LLVM's own words.
    """
    return Compiler().compile(ir, text="ir")[1]


def assembly(ir: str) -> str:
    """The instructions of a module's programs in the assembler's terms; never from the cache.

    :raises CodegenError: with LLVM's own words.
    """
    return Compiler().compile(ir, text="assembly")[1]


def _identity() -> str:
    """What the object depends on beside the IR; '' if there is no telling, and so no cache.

    LLVM's version is read from a file, since importing llvmlite is what the cache is to save.
    """
    for place in sys.path:
        try:
            with open(f"{place}/{_LLVM}/_version.py", encoding="utf-8") as file:
                return "\0".join((__version__, CPU, _PASSES, file.read()))
        except OSError:  # not in this directory, or this is none
            continue
    return ""


def _key(kind: str, identity: str, text: str) -> str:
    said = f"{kind}\0{identity}\0{text}"
    return cachedir.digest(said.encode("utf-8", "surrogateescape")).hex()


def _keep(name: str, data: bytes) -> None:
    """Put an object into the cache; '' for none."""
    if name:
        cachedir.write(DIRECTORY, name, cachedir.sealed(data))
        cachedir.limit(DIRECTORY, LIMIT)
