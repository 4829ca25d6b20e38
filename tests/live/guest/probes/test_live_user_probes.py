# SPDX-License-Identifier: Apache-2.0
"""uprobe, uretprobe and usdt: a function made by hand, in a file that this process maps."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kcap
from kcap.output.text import TextRenderer
from kcap.probes.listing import list_probes
from kcap.probes.system import System
from live.guest.probes.counting import attached
from support.introduced import missing
from support.mapped_program import MappedProgram, make_archive, make_program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the functions ``one`` and ``two`` and USDT probes."""
    return make_program(tmp_path_factory.mktemp("program") / "program")


@pytest.fixture(scope="module")
def mapped(program: Path) -> Iterator[MappedProgram]:
    mapped = MappedProgram(program)
    yield mapped
    mapped.close()


@pytest.fixture(scope="module")
def call(mapped: MappedProgram) -> Callable[[], None]:
    """Calls both functions of the program, which is mapped for that."""
    return mapped.call


@pytest.mark.parametrize(
    ("rest", "hits"),
    [
        ("uprobe:{}:one", 1),
        ("uprobe:{}:*", 2),
        ("uretprobe:{}:two", 1),
        ("uretprobe:{}:*", 2),
        ("uprobe:{}:0x401010", 1),
        ("usdt:{}:hit", 2),
        ("usdt:{}:app:h*", 2),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_user_probes_fire(
    program: Path, call: Callable[[], None], rest: str, hits: int, own: bool
) -> None:
    system = System(pid=os.getpid() if own else None)
    with attached(rest.format(program), system) as probe:
        call()
        call()
        assert probe.count == 2 * hits
    call()


def test_without_uprobe_multi_each_place_has_a_link(
    program: Path, call: Callable[[], None]
) -> None:
    with attached(f"uprobe:{program}:*", System(without=("uprobe_multi",))) as probe:
        assert len(probe.links) == 2
        call()
        assert probe.count == 2


@pytest.mark.parametrize("without", [(), ("uprobe_multi",), ("uprobe_multi", "perf_link")])
def test_the_probes_of_a_wildcard_are_told_apart(
    program: Path, call: Callable[[], None], without: tuple[str, ...], kernel: str
) -> None:
    script = f"""uprobe:{program}:* {{ @u[probe] = count(); }}
        uretprobe:{program}:* {{ @r[probe] = count(); }}
        usdt:{program}:* {{ @s[probe] = count(); }}"""
    with kcap.trace(script, options=kcap.Options(without=without)) as trace:
        trace.attach()
        call()
        call()
        maps = trace.checked.script.maps
        found = {name: dict(trace.runtime.read_map(maps[f"@{name}"])) for name in ("u", "r", "s")}
        loaded = [len(probe.programs) for probe in trace.loaded.probes]
        links = [len(probe.links) for probe in trace.loaded.probes]
    assert found["u"] == {f"uprobe:{program}:{name}": 2 for name in ("one", "two")}
    assert found["r"] == {f"uretprobe:{program}:{name}": 2 for name in ("one", "two")}
    hits = {"hit": 4, "operands": 2, "counted": 2}
    assert found["s"] == {f"usdt:{program}:app:{name}": count for name, count in hits.items()}
    cookies = kernel != "5.10" and "perf_link" not in without
    multi = not missing("uprobe_multi", kernel) and not without
    assert loaded == ([1, 1, 1] if cookies else [2, 2, 3])
    assert links == ([1, 1, 1] if multi else [2, 2, 4])


@pytest.mark.parametrize("without", [(), ("uprobe_multi",)])
def test_a_library_that_is_mapped_from_an_archive_is_probed_there(
    program: Path, tmp_path: Path, without: tuple[str, ...]
) -> None:
    library = f"{make_archive(tmp_path / 'a.apk', program, 'lib/p.so')}!/lib/p.so"
    probes = [f'uprobe:"{library}":one', f'uretprobe:"{library}":t*', f'usdt:"{library}":counted']
    script = "".join(f"{probe} {{ @[probe] = count(); }}\n" for probe in probes)
    mapped = MappedProgram(tmp_path / "a.apk", 4096)
    with kcap.trace(script, options=kcap.Options(without=without)) as trace:
        trace.attach()
        assert mapped.semaphore == 1
        mapped.call()
        found = dict(trace.runtime.read_map(trace.checked.script.maps["@"]))
    mapped.close()
    places = ("uprobe", "one"), ("uretprobe", "two"), ("usdt", "app:counted")
    assert found == {f"{kind}:{library}:{name}": 1 for kind, name in places}


@pytest.mark.parametrize("without", [(), ("uprobe_multi",)])
def test_a_semaphore_counts_who_is_attached(
    program: Path, mapped: MappedProgram, without: tuple[str, ...]
) -> None:
    script = f"usdt:{program}:app:* {{ @[probe] = count(); }}"
    assert mapped.semaphore == 0
    with kcap.trace(script, options=kcap.Options(without=without)) as trace:
        trace.attach()
        assert mapped.semaphore == 1
    assert mapped.semaphore == 0


def test_a_library_is_found_by_its_name() -> None:
    libc = ctypes.CDLL(None)
    with attached("uprobe:libc:getppid", System()) as probe:
        libc.getppid()
        assert probe.count >= 1
        assert probe.contexts[0].name.startswith("uprobe:/")


def test_the_files_of_a_process_are_listed(program: Path, call: Callable[[], None]) -> None:
    call()
    lines = set(list_probes("uprobe:*", System(pid=os.getpid())))
    assert f"uprobe:{program}:one" in lines
    assert f"usdt:{program}:app:hit" in set(list_probes("usdt:*", System(pid=os.getpid())))


def test_a_file_is_found_in_the_mappings_of_a_process(
    program: Path, call: Callable[[], None]
) -> None:
    with attached("usdt::app:hit", System(pid=os.getpid())) as probe:
        call()
        assert probe.count == 2
    with attached("uprobe:*:tw*", System(pid=os.getpid())) as probe:
        call()
        assert probe.count >= 1


def test_usdt_operands_are_read_wherever_they_are(program: Path, call: Callable[[], None]) -> None:
    script = (
        f'usdt:{program}:operands {{ printf("%d %d %d %lx %d %s\\n", arg0, arg1, arg2, arg3, '
        f"arg4, probe); exit(); }}"
    )
    with kcap.trace(script) as trace:
        trace.attach()
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        call()
        text = "".join(renderer.output(event) for event in trace)
    assert text.strip() == f"-3 255 -5 fe00000000000001 -2 usdt:{program}:app:operands"


@pytest.mark.parametrize("probe", ["uprobe:{}:one", "usdt:{}:app:h*", "uretprobe:{}:one"])
def test_uaddr_reaches_the_file_where_it_is_mapped(
    program: Path, call: Callable[[], None], probe: str, kernel: str
) -> None:
    if probe.startswith("uretprobe") and kernel in ("5.10", "6.1"):
        pytest.skip("bpf_get_func_ip knows user functions since 6.6")
    script = f'{probe.format(program)} {{ printf("%x\\n", *uaddr("two") >> 8); exit(); }}'
    with kcap.trace(script) as trace:
        trace.attach()
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        call()
        text = "".join(renderer.output(event) for event in trace)
    assert text.split() == ["c3"]  # the function's second byte; the first may be a breakpoint
