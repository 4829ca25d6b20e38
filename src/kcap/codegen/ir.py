# SPDX-License-Identifier: Apache-2.0
"""One function of LLVM IR, written as text.

Text is what LLVM reads fastest (llvmlite's object model costs ten times as much) and what a person
can read with ``-d``. Operands are strings: a register (``%t3``), a constant (``42``, ``null``), a
global (``@map``). Pointers are opaque (``ptr``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.codegen.lines import SourceLines

Operand = str


class IRBuilder:
    """Collects the instructions of one function.

    :param name: the function's symbol.
    :param signature: LLVM parameter list, such as ``ptr %ctx``.
    :param section: the ELF section that it goes to; '' for an internal function (a callback).
    :param lines: note for each instruction where it comes from, or None.
    """

    def __init__(
        self, name: str, signature: str, section: str = "", lines: SourceLines | None = None
    ) -> None:
        self._source = lines
        self._scope = lines.scope(name) if lines is not None else 0
        self.name = name
        self.signature = signature
        self.section = section
        self._allocas: list[str] = []
        self._taken: list[tuple[int, str]] = []
        self._free: dict[int, list[str]] = {}
        self._prologue: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._terminated = False

    # --- text ---

    def fresh(self, stem: str) -> str:
        """A name that was not used before in this function."""
        self._count += 1
        return f"{stem}{self._count}"

    def line(self, text: str) -> None:
        """Append an instruction without a result. Dead code after a branch is dropped."""
        if not self._terminated:
            where = self._source.location(self._scope) if self._source is not None else ""
            self._lines.append(f"  {text}{where}")

    def op(self, text: str) -> Operand:
        """Append an instruction and name its result; after a branch there is none to name."""
        if self._terminated:
            return "poison"
        name = f"%{self.fresh('t')}"
        self.line(f"{name} = {text}")
        return name

    def prologue(self, text: str) -> Operand:
        """An instruction at the function's entry, before all others; its result's name."""
        name = f"%{self.fresh('p')}"
        self._prologue.append(f"  {name} = {text}")
        return name

    def prologue_lines(self, lines: list[str]) -> None:
        """Raw lines at the function's entry, after what :meth:`prologue` gave so far."""
        self._prologue.extend(lines)

    def alloca(self, size: int, align: int = 8) -> Operand:
        """``size`` bytes of stack for the whole of the function; the pointer to them."""
        name = f"%{self.fresh('s')}"
        self._allocas.append(f"  {name} = alloca [{size} x i8], align {align}")
        return name

    def temporary(self, size: int) -> Operand:
        """``size`` bytes of stack until :meth:`release`; the pointer to them, aligned to 8.

        LLVM keeps every alloca whose address goes to a helper for the whole of the function, so
        statements share theirs: a script of many statements would not fit into 512 bytes else.
        """
        rounded = max(8, (size + 7) // 8 * 8)
        free = self._free.get(rounded)
        name = free.pop() if free else self.alloca(rounded)
        self._taken.append((rounded, name))
        return name

    def mark(self) -> int:
        """How many temporaries are taken, for :meth:`release`."""
        return len(self._taken)

    def release(self, mark: int) -> None:
        """Give back the temporaries taken since the mark."""
        for size, name in self._taken[mark:]:
            self._free.setdefault(size, []).append(name)
        del self._taken[mark:]

    def text(self) -> str:
        """The definition of the function."""
        section = f' section "{self.section}"' if self.section else ""
        kind = "" if self.section else "internal "
        debug = f" !dbg !{self._scope}" if self._scope else ""
        return "\n".join(
            [
                f"define {kind}i64 @{self.name}({self.signature}) #0{section}{debug} {{",
                "entry:",
                *self._allocas,
                *self._prologue,
                *self._lines,
                "}",
            ]
        )

    # --- control flow ---

    def label(self, name: str) -> None:
        """Start the basic block ``name``, falling into it from the one before."""
        if not self._terminated:
            self._lines.append(f"  br label %{name}")
        self._lines.append(f"{name}:")
        self._terminated = False

    def jump(self, name: str) -> None:
        """Branch to ``name``; what follows is dead until the next label."""
        self.line(f"br label %{name}")
        self._terminated = True

    def branch(self, condition: Operand, then: str, otherwise: str) -> None:
        """Branch on an i1."""
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}")
        self._terminated = True

    def ret(self, value: Operand) -> None:
        """Return an i64."""
        self.line(f"ret i64 {value}")
        self._terminated = True

    @property
    def terminated(self) -> bool:
        """Whether the current block has ended, so that what follows is dead."""
        return self._terminated

    @contextmanager
    def if_(self, condition: Operand) -> Iterator[None]:
        """The instructions within run where the i1 is true."""
        then, end = self.fresh("then"), self.fresh("end")
        self.branch(condition, then, end)
        self.label(then)
        yield
        self.label(end)

    # --- memory and arithmetic ---

    def load(
        self, type_: str, pointer: Operand, *, volatile: bool = False, align: int = 0
    ) -> Operand:
        """Load a value of an LLVM type."""
        suffix = f", align {align}" if align else ""
        return self.op(f"load {'volatile ' if volatile else ''}{type_}, ptr {pointer}{suffix}")

    def store(self, type_: str, value: Operand, pointer: Operand, *, align: int = 0) -> None:
        """Store a value of an LLVM type."""
        suffix = f", align {align}" if align else ""
        self.line(f"store {type_} {value}, ptr {pointer}{suffix}")

    def offset(self, pointer: Operand, by: int | Operand) -> Operand:
        """The pointer ``by`` bytes (a number or an i64) further."""
        return pointer if by == 0 else self.op(f"getelementptr i8, ptr {pointer}, i64 {by}")

    def compare(self, predicate: str, type_: str, left: Operand, right: Operand) -> Operand:
        """``icmp``; an i1."""
        return self.op(f"icmp {predicate} {type_} {left}, {right}")

    def select(self, condition: Operand, type_: str, then: Operand, otherwise: Operand) -> Operand:
        """``then`` where the i1 is true."""
        return self.op(f"select i1 {condition}, {type_} {then}, {type_} {otherwise}")

    def resize(self, value: Operand, from_bits: int, to_bits: int, signed: bool) -> Operand:
        """An integer in another width: cut off, or extended by its sign or by zeros."""
        if from_bits == to_bits:
            return value
        if from_bits > to_bits:
            return self.op(f"trunc i{from_bits} {value} to i{to_bits}")
        return self.op(f"{'sext' if signed else 'zext'} i{from_bits} {value} to i{to_bits}")

    def opaque(self, value: Operand) -> Operand:
        """An i64 of which LLVM forgets what it knows, so that a bound that the verifier needs to
        see is not optimised away as already proven."""
        return self.op(f'call i64 asm "", "=r,0"(i64 {value})')

    def pointer(self, address: Operand) -> Operand:
        """An i64 as a pointer."""
        return self.op(f"inttoptr i64 {address} to ptr")

    def address(self, pointer: Operand) -> Operand:
        """A pointer as an i64."""
        return self.op(f"ptrtoint ptr {pointer} to i64")

    def call(self, helper: int, *arguments: Operand) -> Operand:
        """Call a BPF helper by its number; arguments as ``type value``; an i64."""
        return self.op(f"call i64 inttoptr (i64 {helper} to ptr)({', '.join(arguments)})")
