# SPDX-License-Identifier: Apache-2.0
"""Kprobe sessions: which probes become one program, and what that is made of."""

from __future__ import annotations

from typing import Any

import pytest

from kcap.btf import Func
from kcap.codegen.compile import Compiled
from kcap.codegen.module import Features
from kcap.codegen.sessions import IS_RETURN
from kcap.kernel import uapi
from kcap.kernel.links import Link
from kcap.kernel.programs import Program
from kcap.kernel.spec import ProgramSpec
from kcap.probes.registry import probe_type
from kcap.probes.system import Files, System
from kcap.session.features import probe_features
from kcap.session.script import compile as check

SESSION = Features(kprobe_session=77)
BOTH = "kprobe:vfs_read { @a = 1; } kretprobe:vfs_read { @b = 1; }"


class Able(System):
    """The frozen machine with the links of new kernels.

    :ivar lacking: a feature that it does not have.
    :ivar asked: the features that were asked for.
    """

    lacking = ""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self.asked: set[str] = set()

    def has(self, feature: str) -> bool:
        self.asked.add(feature)
        return feature != self.lacking

    def offers(self, feature: str) -> bool:
        return True


@pytest.fixture
def able(machine: Files) -> Able:
    return Able(files=machine)


def programs(made: Compiled) -> list[tuple[str, str | None]]:
    """(name of the probe, name of the one at the return that is in it) of each program."""
    found = [program.context for program in made.programs]
    return [(each.name, each.at_return.name if each.at_return else None) for each in found]


def compiled(text: str, system: System, features: Features = SESSION, **how: Any) -> Compiled:
    return check(text, system=system).generate(features, **how)


def test_both_ends_of_a_function_are_one_program(system: System) -> None:
    made = compiled(BOTH, system)
    assert programs(made) == [("kprobe:vfs_read", "kretprobe:vfs_read")]
    (spec,) = [program.spec for program in made.programs]
    calls = [each.symbol for each in spec.relocations if each.kind == "kfunc"]
    assert calls == [IS_RETURN]
    assert spec.constants == ((IS_RETURN, 77),)
    maps = {each.symbol for each in spec.relocations if each.kind == "map"}
    assert maps == {"AT_a", "AT_b"}


def test_both_ends_of_a_wildcard_are_one_program_that_tells_them_apart(able: Able) -> None:
    text = "kprobe:vfs_* { @[probe] = 1; } begin { } kretprobe:vfs_* { @[probe] = retval; }"
    made = compiled(text, able)
    assert programs(made) == [("kprobe:vfs_*", "kretprobe:vfs_*"), ("begin", None)]
    tables = {spec.name: spec.contents or b"" for spec in made.maps if "probes" in spec.name}
    assert tables["kcap_probes_0"].startswith(b"kprobe:vfs_read\0")
    assert tables["kcap_probes_2"].startswith(b"kretprobe:vfs_read\0")


def test_each_instruction_of_both_blocks_has_its_place_in_the_script(system: System) -> None:
    (program,) = compiled(BOTH, system, lines=True).programs
    texts = {span.text for _, span in program.places}
    assert {"@a = 1", "@b = 1"} <= texts


@pytest.mark.parametrize(
    "text",
    [
        "kprobe:vfs_read { @a = 1; } kretprobe:vfs_write { @b = 1; }",
        "kprobe:vfs_read { @a = 1; } kprobe:vfs_read { @b = 1; }",
        "kprobe:vfs_read { } kretprobe:vfs_read { @b = 1; } kretprobe:vfs_read { @c = 1; }",
        "kprobe:vfs_read, kprobe:tcp_close { @a = 1; } kretprobe:vfs_read { @b = 1; }",
        "kprobe:vfs_read { @a = 1; } kretprobe:vfs_* { @b = 1; }",
        "kprobe:vmlinux:vfs_read { @a = 1; } kretprobe:vmlinux:vfs_read { @b = 1; }",
        "kprobe:vfs_read+4 { @a = 1; } kretprobe:vfs_read { @b = 1; }",
        'kprobe:vfs_read { @a = reg("bx"); } kretprobe:vfs_read { @b = 1; }',
        "fentry:vfs_read { @a = 1; } fexit:vfs_read { @b = 1; }",
    ],
    ids=[
        "other function", "no return", "two returns", "several attach points", "wildcard and name",
        "module", "offset", "registers", "fentry",
    ],
)  # fmt: skip
def test_other_probes_stay_programs_of_their_own(system: System, text: str) -> None:
    made = compiled(text, system)
    assert all(program.context.at_return is None for program in made.programs)
    assert len(made.programs) == len(made.script.programs)
    assert IS_RETURN not in made.ir


def test_the_first_of_two_kprobes_takes_the_return(system: System) -> None:
    made = compiled(f"{BOTH} kprobe:vfs_read {{ @c = 1; }}", system)
    assert programs(made) == [("kprobe:vfs_read", "kretprobe:vfs_read"), ("kprobe:vfs_read", None)]


def test_without_sessions_in_the_kernel_there_are_two_programs(system: System) -> None:
    made = compiled(BOTH, system, Features())
    assert programs(made) == [("kprobe:vfs_read", None), ("kretprobe:vfs_read", None)]


def test_the_kernel_is_asked_only_for_scripts_that_could_use_sessions(able: Able) -> None:
    for text, expected in (
        (BOTH, {"kprobe_multi", "kprobe_session"}),
        ("kprobe:vfs_read { } kprobe:vfs_write { }", set()),
        ("kprobe:vfs_read { } kretprobe:vfs_write { }", set()),
    ):
        able.asked.clear()
        features = probe_features(check(text, system=able).script, able)
        assert able.btf is not None
        known = able.btf.get(IS_RETURN, Func).id if expected else 0
        assert (features.kprobe_session, able.asked) == (known, expected)


@pytest.mark.parametrize("missing", ["kprobe_multi", "kprobe_session"])
def test_sessions_take_both_features(able: Able, missing: str) -> None:
    able.lacking = missing
    assert not probe_features(check(BOTH, system=able).script, able).kprobe_session


def test_one_link_is_made_for_both_ends(able: Able, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def attach(program: int, names: Any, what: str, **how: Any) -> Link:
        asked.append((program, list(names), what, how["session"], how["is_return"]))
        return Link([], what)

    monkeypatch.setattr("kcap.kernel.links.attach_kprobe_multi", attach)
    context = compiled(BOTH, able).programs[0].context
    kind = probe_type("kprobe")
    (load,) = kind.load_specs(context, able)
    assert load.expected_attach_type == uapi.BPF_TRACE_KPROBE_SESSION
    assert kind.way(context, [load]) == "one kprobe_session link, entry and return"
    spec = ProgramSpec("prog_0", uapi.BPF_PROG_TYPE_KPROBE, b"")
    kind.attach(context, [(load, Program(-1, spec))], able)
    assert asked == [(-1, ["vfs_read"], "kprobe:vfs_read", True, False)]
