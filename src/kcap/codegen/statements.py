# SPDX-License-Identifier: Apache-2.0
"""Emission of statements, scratch variables and loops.

Loops over maps, and over ranges where the kernel has bpf_loop, run their body in a callback: a
function of its own that the helper calls. What the body uses of its surroundings (variables, the
context, scratch memory) is then kept in a *frame* on the program's stack, whose address the
callback is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kcap.codegen import maps, memory
from kcap.codegen.function import MapFunction, implementation
from kcap.codegen.ir import IRBuilder, Operand
from kcap.kernel.helpers import Helper
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.records import dataclass, field, replace
from kcap.sema import tree
from kcap.sema.types import Pointer, Tuple

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter

#: Frame header: the context, scratch memory, its zeros.
_CTX, _SCRATCH, _ZEROS, _FIRST_VARIABLE = 0, 8, 16, 24
#: Ranges of constant bounds up to this many rounds are plain loops.
_PLAIN_ROUNDS = 32


@dataclass(slots=True)
class Frame:
    """Where the variables of a program live when callbacks have to reach them.

    :param base: the pointer to the frame, valid in the function that is being emitted.
    :param offsets: the place of each variable that lies in it: those that several functions use.
    :param own: the variables that only the callback of a loop uses; they live on its stack.
    :param starts: the place of the first value of each range that a callback walks.
    :param left: the place of the mark that the body left the program.
    :param values: where that begins which callbacks change: ``left``, ``starts``, variables.
    :param size: bytes in all.
    :param in_callback: whether the function that is being emitted is a callback.
    """

    base: Operand
    offsets: dict[tree.Variable, int] = field(default_factory=dict)
    own: dict[tree.Node, list[tree.Variable]] = field(default_factory=dict)
    starts: dict[tree.ForRange, int] = field(default_factory=dict)
    left: int = 0
    values: int = 0
    size: int = 0
    in_callback: bool = False


@dataclass(slots=True)
class Loop:
    """The innermost loop: labels to jump to, or None for both in a callback."""

    continue_label: str | None
    break_label: str | None


# --- variables ------------------------------------------------------------------------------


def open_frame(gen: Emitter) -> None:
    """Reserve memory for every variable of the program.

    What one function alone uses stays out of the frame: the verifier goes on following its value
    (the counter of a ``while``) where it has to forget those in the frame.
    """
    users, changed = _users(gen)
    if not any(_needs_callback(gen, node) for node in tree.walk(gen.program.body)):
        for variable_ in users:
            gen.variables[variable_] = gen.alloc(variable_.type.size, variable_.type.align)
        return
    frame = gen.frame = Frame("", size=_FIRST_VARIABLE)
    shared: list[tree.Variable] = []
    for variable_, functions in users.items():
        only = next(iter(functions))
        if variable_.type.size > gen.config.on_stack_limit:
            gen.scratch_variables[variable_] = gen.scratch_mark()
            gen.variables[variable_] = gen.alloc(variable_.type.size, 8)
        elif len(functions) > 1:
            shared.append(variable_)
        elif only is None:
            gen.variables[variable_] = gen.ir.alloca(variable_.type.size, 8)
        else:
            frame.own.setdefault(only, []).append(variable_)
    _lay_out(gen, frame, shared, changed)
    gen.ir.prologue_lines(
        [
            f"  store ptr %ctx, ptr {frame.base}",
            *_store_field(frame.base, frame.left, "i64", "0", "left"),
        ]
    )


def _lay_out(
    gen: Emitter, frame: Frame, shared: list[tree.Variable], changed: set[tree.Variable]
) -> None:
    """Places in the frame: what the verifier may go on following first."""
    kept = [v for v in shared if v not in changed or _is_followed(v)]
    for variable_ in kept:
        frame.offsets[variable_] = _take(frame, variable_.type.size)
    frame.values = frame.left = _take(frame, 8)
    for node in tree.walk(gen.program.body):
        if isinstance(node, tree.ForRange) and _needs_callback(gen, node):
            frame.starts[node] = _take(frame, 8)
    for variable_ in shared:
        if variable_ not in frame.offsets:
            frame.offsets[variable_] = _take(frame, variable_.type.size)
    frame.base = gen.ir.alloca(frame.size, 8)


def _take(frame: Frame, size: int) -> int:
    """Room for ``size`` bytes at the frame's end."""
    at = frame.size
    frame.size += (size + 7) // 8 * 8
    return at


def _is_followed(variable_: tree.Variable) -> bool:
    """Whether the verifier follows the variable's value: pointers of its own, and tracked ones."""
    type_ = variable_.type
    return isinstance(type_, Pointer) and (type_.tracked or type_.space in ("bpf", "ctx"))


def frame_prologue(gen: Emitter) -> list[str]:
    """What the entry of a program with scratch memory writes to its frame."""
    if gen.frame is None:
        return []
    return [
        *_store_field(gen.frame.base, _SCRATCH, "ptr", "%scratch", "scratch"),
        *_store_field(gen.frame.base, _ZEROS, "ptr", "%zeros", "zeros"),
    ]


def _store_field(base: Operand, offset: int, llvm: str, value: Operand, stem: str) -> list[str]:
    where = f"%frame_{stem}"
    return [
        f"  {where} = getelementptr i8, ptr {base}, i64 {offset}",
        f"  store {llvm} {value}, ptr {where}",
    ]


def _users(
    gen: Emitter,
) -> tuple[dict[tree.Variable, set[tree.Node | None]], set[tree.Variable]]:
    """The program's variables, with the functions that use each (callbacks by their loop, the
    program itself as None); and those that a callback may change."""
    found: dict[tree.Variable, set[tree.Node | None]] = {}
    changed: set[tree.Variable] = set()

    def visit(node: object, function: tree.Node | None) -> None:
        if isinstance(node, list):
            for each in node:
                visit(each, function)
        if not isinstance(node, tree.Node):
            return
        inner = node if _needs_callback(gen, node) else function
        if isinstance(node, tree.AssignVariable | tree.ForRange | tree.ForMap | tree.VariableRef):
            found.setdefault(node.variable, set()).add(inner)
        if inner is not None:
            changed.update(_changed(node))
        for name in type(node)._fields:
            visit(getattr(node, name), inner if name == "body" else function)

    visit(gen.program.body, None)
    return found, changed


def _changed(node: tree.Node) -> list[tree.Variable]:
    """The variable that a node changes itself, or lets others change."""
    if isinstance(node, tree.AssignVariable | tree.ForRange | tree.ForMap):
        return [node.variable]
    place: tree.Node | None = None
    if isinstance(node, tree.IncDec):
        place = node.target
    elif isinstance(node, tree.AddressOf):
        place = node.place
    return [place.variable] if isinstance(place, tree.VariableRef) else []


def variable(gen: Emitter, variable_: tree.Variable) -> Operand:
    """A pointer to a variable, valid in the function that is being emitted."""
    if gen.frame is not None and variable_ in gen.frame.offsets:
        return gen.ir.offset(gen.frame.base, gen.frame.offsets[variable_])
    return gen.variables[variable_]


# --- statements -----------------------------------------------------------------------------


def emit_block(gen: Emitter, body: list[tree.Stmt], *, release: bool = True) -> None:
    """Emit statements one after another; temporaries of each are given back after it.

    :param release: False when the value of a block expression may refer to its temporaries.
    """
    for statement in body:
        mark, stack_mark = gen.scratch_mark(), gen.ir.mark()
        outer, gen.span = gen.span, statement.span
        _STATEMENTS[type(statement)](gen, statement)
        gen.span = outer
        if release:
            gen.scratch_release(mark)
            gen.ir.release(stack_mark)


def leave(gen: Emitter, value: Operand = "0") -> None:
    """Leave the program, from whatever depth of callbacks."""
    if gen.frame is not None and gen.frame.in_callback:
        gen.ir.store("i64", "1", gen.ir.offset(gen.frame.base, gen.frame.left))
        gen.ir.ret("1")
    else:
        gen.ir.store("i64", value, gen.result)
        gen.ir.jump("leave")


def _expression(gen: Emitter, statement: tree.ExprStmt) -> None:
    expr = statement.expr
    if expr.type.is_scalar or not expr.type.size:
        gen.value(expr)
    else:
        gen.place(expr)


def _assign_variable(gen: Emitter, statement: tree.AssignVariable) -> None:
    where = variable(gen, statement.variable)
    type_ = statement.variable.type
    if statement.value is not None:
        if type_.is_scalar:
            gen.store(statement.value, where)
        else:
            gen.store(statement.value, where, canonical=isinstance(type_, Tuple))
    elif type_.is_scalar:
        gen.ir.store(gen.llvm_type(type_), "0", where)
    else:
        gen.zero(where, type_.size)


def _assign_map(gen: Emitter, statement: tree.AssignMap) -> None:
    maps.assign(gen, statement.map, statement.key, statement.value)


def _update_aggregate(gen: Emitter, statement: tree.UpdateAggregate) -> None:
    function = implementation(statement.call)
    assert isinstance(function, MapFunction)
    function.emit_update(statement, gen)


def _if(gen: Emitter, statement: tree.If) -> None:
    condition = gen.truth(statement.condition)
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("if", "else", "fi"))
    gen.ir.branch(condition, then, otherwise if statement.otherwise else end)
    gen.ir.label(then)
    emit_block(gen, statement.then)
    if statement.otherwise:
        gen.ir.jump(end)
        gen.ir.label(otherwise)
        emit_block(gen, statement.otherwise)
    gen.ir.label(end)


def _while(gen: Emitter, statement: tree.While) -> None:
    head, body, end = (gen.ir.fresh(stem) for stem in ("while", "do", "done"))
    gen.ir.label(head)
    gen.ir.branch(gen.truth(statement.condition), body, end)
    gen.ir.label(body)
    _loop_body(gen, statement.body, Loop(head, end))
    gen.ir.jump(head)
    gen.ir.label(end)


def _loop_body(gen: Emitter, body: list[tree.Stmt], loop: Loop) -> None:
    gen.loops.append(loop)
    emit_block(gen, body)
    gen.loops.pop()


def _unroll(gen: Emitter, statement: tree.Unroll) -> None:
    end = gen.ir.fresh("unrolled")
    for _ in range(statement.times):
        following = gen.ir.fresh("round")
        _loop_body(gen, statement.body, Loop(following, end))
        gen.ir.label(following)
    gen.ir.label(end)


def _break(gen: Emitter, statement: tree.Break) -> None:
    label = gen.loops[-1].break_label
    gen.ir.jump(label) if label is not None else gen.ir.ret("1")


def _continue(gen: Emitter, statement: tree.Continue) -> None:
    label = gen.loops[-1].continue_label
    gen.ir.jump(label) if label is not None else gen.ir.ret("0")


def _return(gen: Emitter, statement: tree.Return) -> None:
    leave(gen, gen.value64(statement.value) if statement.value is not None else "0")


# --- loops ----------------------------------------------------------------------------------


def _needs_callback(gen: Emitter, node: tree.Node) -> bool:
    if isinstance(node, tree.ForMap):
        return True
    return isinstance(node, tree.ForRange) and not _is_plain(gen, node)


def _is_plain(gen: Emitter, loop: tree.ForRange) -> bool:
    """Whether a range is walked by a loop that the verifier follows round by round: few rounds,
    or a kernel without bpf_loop (before 5.17)."""
    if not gen.module.features.loop:
        return True
    start, end = loop.start, loop.end
    if isinstance(start, tree.IntegerLiteral) and isinstance(end, tree.IntegerLiteral):
        return end.value - start.value <= _PLAIN_ROUNDS
    return False


def _for_range(gen: Emitter, loop: tree.ForRange) -> None:
    llvm = gen.llvm_type(loop.variable.type)
    start, end = gen.value(loop.start), gen.value(loop.end)
    if _is_plain(gen, loop):
        _plain_range(gen, loop, llvm, start, end)
        return
    wide_start = gen.ir.resize(start, int(llvm[1:]), 64, True)
    wide_end = gen.ir.resize(end, int(llvm[1:]), 64, True)
    start_at = _frame(gen).starts[loop]
    gen.ir.store("i64", wide_start, gen.ir.offset(_frame(gen).base, start_at))

    def enter() -> None:
        first = gen.ir.load("i64", gen.ir.offset(_frame(gen).base, start_at))
        now = gen.ir.op(f"add i64 {first}, {gen.ir.resize('%index', 32, 64, False)}")
        where = variable(gen, loop.variable)
        gen.ir.store(llvm, gen.ir.resize(now, 64, int(llvm[1:]), False), where)

    _forget_values(gen)
    name = _callback(gen, "i32 %index, ptr %frame", loop, enter)
    # Where the verifier knows that there is no round (from 6.7 on), it removes the callback, and
    # then misses it: "No program to jit".
    with gen.if_(gen.ir.compare("sgt", "i64", wide_end, wide_start)):
        rounds = gen.ir.op(f"sub i64 {wide_end}, {wide_start}")
        gen.helper(
            Helper.loop,
            f"i32 {gen.ir.resize(rounds, 64, 32, False)}",
            f"ptr @{name}",
            f"ptr {_frame(gen).base}",
            "i64 0",
        )
        _leave_if_left(gen)


def _plain_range(
    gen: Emitter, loop: tree.ForRange, llvm: str, start: Operand, end: Operand
) -> None:
    counter = gen.ir.alloca(8, 8)
    gen.ir.store(llvm, start, counter)
    head, body, following, done = (gen.ir.fresh(s) for s in ("range", "do", "next", "done"))
    gen.ir.label(head)
    now = gen.ir.load(llvm, counter)
    gen.ir.branch(gen.ir.compare("slt", llvm, now, end), body, done)
    gen.ir.label(body)
    gen.ir.store(llvm, now, variable(gen, loop.variable))
    _loop_body(gen, loop.body, Loop(following, done))
    gen.ir.label(following)
    gen.ir.store(llvm, gen.ir.op(f"add {llvm} {gen.ir.load(llvm, counter)}, 1"), counter)
    gen.ir.jump(head)
    gen.ir.label(done)


def _for_map(gen: Emitter, loop: tree.ForMap) -> None:
    """:raises ScriptError: the kernel cannot walk over maps."""
    if not gen.module.features.for_each:
        raise _cannot_walk(loop)
    pair = loop.variable.type
    assert isinstance(pair, Tuple)
    key_type, value_type = pair.elements
    key_at, value_at = pair.offsets

    def enter() -> None:
        where = variable(gen, loop.variable)
        memory.copy(gen, gen.ir.offset(where, key_at), "%key", key_type.size)
        memory.copy(gen, gen.ir.offset(where, value_at), "%value", value_type.size)

    _forget_values(gen)
    name = _callback(gen, "ptr %map, ptr %key, ptr %value, ptr %frame", loop, enter)
    gen.helper(
        Helper.for_each_map_elem,
        f"ptr {maps.operand(gen, loop.map)}",
        f"ptr @{name}",
        f"ptr {_frame(gen).base}",
        "i64 0",
    )
    _leave_if_left(gen)


def _forget_values(gen: Emitter) -> None:
    """Make the verifier forget what it knows of the values that callbacks change.

    Before 6.7 (commit ab5cfac139ab) it walks a callback only once, with the values that there are
    before the first round, and removes what cannot be reached with those as dead code: a ``break``
    in a later round, for one. A helper that writes to the frame (it copies it onto itself) leaves
    nothing known.
    """
    frame = _frame(gen)
    where = gen.ir.offset(frame.base, frame.values)
    gen.read(where, frame.size - frame.values, gen.ir.address(where), "kernel")


def _cannot_walk(loop: tree.ForMap) -> ScriptError:
    note = "it takes the BPF helper bpf_for_each_map_elem, which is there since Linux 5.13"
    help_ = f"print({loop.map.name}) prints all of a map, also on this kernel"
    return ScriptError(
        [
            Diagnostic(
                "no-map-loops",
                "error",
                "this kernel can't loop over a map",
                loop.span,
                notes=(note,),
                help=(help_,),
            )
        ]
    )


def _frame(gen: Emitter) -> Frame:
    assert gen.frame is not None
    return gen.frame


def _callback(
    gen: Emitter, signature: str, loop: tree.ForRange | tree.ForMap, enter: Callable[[], None]
) -> str:
    """Emit a function that runs the loop's body once; its symbol."""
    outer_ir, outer_frame = gen.ir, _frame(gen)
    name = gen.module.callback_name()
    gen.ir = IRBuilder(name, signature, lines=gen.module.lines)
    gen.frame = replace(outer_frame, base="%frame", in_callback=True)
    outer_variables = gen.variables
    gen.variables = dict(outer_variables)
    gen.ir.prologue_lines(
        [
            "  %ctx = load ptr, ptr %frame",
            f"  %frame_scratch = getelementptr i8, ptr %frame, i64 {_SCRATCH}",
            "  %scratch = load ptr, ptr %frame_scratch",
            f"  %frame_zeros = getelementptr i8, ptr %frame, i64 {_ZEROS}",
            "  %zeros = load ptr, ptr %frame_zeros",
        ]
    )
    for variable_, offset in gen.scratch_variables.items():
        gen.variables[variable_] = gen.ir.offset("%scratch", offset)
    for variable_ in outer_frame.own.get(loop, ()):
        gen.variables[variable_] = gen.ir.alloca(variable_.type.size, 8)
    enter()
    _loop_body(gen, loop.body, Loop(None, None))
    gen.ir.ret("0")
    gen.module.functions.append(gen.ir.text())
    gen.ir, gen.frame, gen.variables = outer_ir, outer_frame, outer_variables
    return name


def _leave_if_left(gen: Emitter) -> None:
    frame = _frame(gen)
    left = gen.ir.load("i64", gen.ir.offset(frame.base, frame.left))
    with gen.if_(gen.ir.compare("ne", "i64", left, "0")):
        leave(gen)


_STATEMENTS: dict[type[tree.Stmt], Callable[[Emitter, Any], None]] = {
    tree.ExprStmt: _expression,
    tree.AssignVariable: _assign_variable,
    tree.AssignMap: _assign_map,
    tree.UpdateAggregate: _update_aggregate,
    tree.If: _if,
    tree.While: _while,
    tree.ForRange: _for_range,
    tree.ForMap: _for_map,
    tree.Unroll: _unroll,
    tree.Break: _break,
    tree.Continue: _continue,
    tree.Return: _return,
}
