# SPDX-License-Identifier: Apache-2.0
"""From a checked script to programs and maps that are ready to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import map_specs
from kcap.codegen.compiled import Compiled as Compiled
from kcap.codegen.compiled import CompiledProgram
from kcap.codegen.emitter import Emitter
from kcap.codegen.module import PERCPU_LIMIT, Features, ModuleBuilder
from kcap.codegen.objects import ObjectSource
from kcap.kernel.object import BpfObject
from kcap.kernel.spec import FunctionSpec, LineSpec, ProgramSpec
from kcap.records import replace
from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.codegen.lines import SourceLines
    from kcap.kernel.object import LinkedProgram
    from kcap.lang.source import Span
    from kcap.sema.probe import ProbeContext


def generate(
    script: tree.Script,
    features: Features,
    pid: int | None = None,
    *,
    helper_errors: bool = False,
    lines: SourceLines | None = None,
) -> ModuleBuilder:
    """Emit LLVM IR for all programs of a script."""
    module = ModuleBuilder(script.config, features, pid, helper_errors=helper_errors, lines=lines)
    _emit(script, module)
    if module.scratch_size > PERCPU_LIMIT:  # known only now, and the programs' beginning differs
        large = ModuleBuilder(
            script.config, features, pid, helper_errors=helper_errors, lines=lines
        )
        large.scratch_by_cpu = True
        _emit(script, large)
        module = large
    module.finish()
    return module


def _emit(script: tree.Script, module: ModuleBuilder) -> None:
    for map_ in script.maps.values():
        module.map(map_specs.spec(map_))
    pairs = _sessions(script, module.features)
    halves = {*pairs, *pairs.values()}
    for index, program in enumerate(script.programs):
        emitter = Emitter(module, program, index, half=program in halves)
        module.functions.append(emitter.emit())
        other = pairs.get(program)
        if other is not None:
            from kcap.codegen import sessions

            symbols = emitter.symbol, f"half_{script.programs.index(other)}"
            module.functions.append(sessions.emit(module, f"prog_{index}", program, symbols))


def _sessions(script: tree.Script, features: Features) -> dict[tree.Program, tree.Program]:
    """The kretprobe's program by the kprobe's where one serves both; their contexts say so, too."""
    if not features.kprobe_session:
        return {}
    from kcap.codegen import sessions

    pairs = sessions.joined(script)
    for entry, other in pairs.items():
        entry.context.at_return = other.context
        for context in (entry.context, other.context):
            if "target_index" in context.extra:  # of one link, whose cookies tell the targets
                context.extra["target_index"] = "cookie"
    return pairs


def compile_script(
    script: tree.Script,
    features: Features,
    objects: ObjectSource | None = None,
    *,
    pid: int | None = None,
    helper_errors: bool = False,
    lines: bool = False,
) -> Compiled:
    """Compile a checked script.

    :param features: what the kernel that it is for can do.
    :param objects: where the object comes from: by default LLVM, without a cache.
    :param pid: only events of this process count (``-p``), or None.
    :param helper_errors: report helpers that fail (``-k``).
    :param lines: also note where in the script each instruction comes from. Costs time; for a
        program that the kernel refused.
    :raises CodegenError: when LLVM refuses.
    """
    source = _source_lines() if lines else None
    module = generate(script, features, pid, helper_errors=helper_errors, lines=source)
    ir = module.text()
    obj = BpfObject((objects or ObjectSource(cached=False)).compile(ir))
    programs = [
        _with_places(made, found, obj, source.spans) if source is not None else made
        for made, found in _programs(script, obj, features)
    ]
    return Compiled(
        programs,
        [program.context.name for program in script.programs],
        tuple(module.maps.values()),
        module.sites,
        list(module.lost),
        module.collected,
        ir,
        lambda: script,
    )


def _programs(
    script: tree.Script, obj: BpfObject, features: Features
) -> Iterator[tuple[CompiledProgram, LinkedProgram]]:
    """The script's programs with what the object has of them."""
    linked = {program.name: program for program in obj.programs()}
    for index, program in enumerate(script.programs):
        found = linked.get(f"prog_{index}")
        if found is None:  # part of another
            continue
        spec = ProgramSpec(
            name=found.name,
            type=program.context.program_type,
            insns=found.insns,
            expected_attach_type=program.context.attach_type,
            relocations=found.relocations,
            functions=_named(found, program.context, index),
            license=script.config.license,
            constants=_constants(program.context, features),
        )
        yield CompiledProgram(program.context, spec), found


def _constants(context: ProbeContext, features: Features) -> tuple[tuple[str, int], ...]:
    """What the program wants to know of the kernel."""
    if context.at_return is None:
        return ()
    from kcap.codegen.sessions import IS_RETURN

    return ((IS_RETURN, features.kprobe_session),)


def _named(linked: LinkedProgram, context: ProbeContext, index: int) -> tuple[FunctionSpec, ...]:
    """The program's functions, the first named after the probe: so others may trace it."""
    name = f"{context.extra.get('title', context.name)}_{index + 1}"
    return (FunctionSpec(name, 0), *linked.functions[1:])


def _source_lines() -> SourceLines:
    from kcap.codegen.lines import SourceLines

    return SourceLines()


def _with_places(
    program: CompiledProgram, linked: LinkedProgram, obj: BpfObject, spans: list[Span]
) -> CompiledProgram:
    """The program with the place of each instruction, for us and for the verifier."""
    from kcap.kernel.lineinfo import program_lines

    places = tuple(
        (insn, spans[number - 1]) for insn, number in program_lines(obj, linked) if number
    )
    lines = tuple(
        LineSpec(insn, at.source.name, at.source.line_text(at.line).strip(), at.line, at.column)
        for insn, at in places
    )
    return CompiledProgram(program.context, replace(program.spec, lines=lines), places)
