# SPDX-License-Identifier: Apache-2.0
"""Write what the code knows into pages of ``docs``.

That are the tables of probe types, functions and configuration, and what the benchmarks
measured (``benchmarks/results``).

``--check`` writes nothing, names the pages that are not what would be written, and exits with 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

from kcap.codegen.function import Function
from kcap.functions.registry import FAMILIES, family
from kcap.probes.registry import probe_types
from kcap.sema.config import Config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.guest import tables  # noqa: E402

#: Builtins that differ in a number only: the first and the last are named.
_NUMBERED = re.compile(r"(s?arg)(\d)")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(texts: Iterable[str]) -> str:
    return "<br>".join(f"`{text}`" for text in texts)


def probe_table() -> Iterator[str]:
    """The probe types: how they are written, and what they trace."""
    yield _row(("probe", "short and old names", "written", "traces"))
    yield "|---|---|---|---|"
    for kind in probe_types():
        yield _row((f"`{kind.name}`", _code(kind.aliases), _code(kind.signatures), kind.summary))


def function_table() -> Iterator[str]:
    """The builtins and functions, family by family."""
    yield _row(("function", "what it does"))
    yield "|---|---|"
    for name in FAMILIES:
        for function in family(name).FUNCTIONS:
            row = _function_row(function)
            if row:
                yield row


def _function_row(function: type[Function]) -> str:
    signatures: Iterable[str] = function.signatures
    numbered = _NUMBERED.fullmatch(function.name)
    if numbered is not None:
        if numbered[2] != "0":
            return ""
        signatures = (f"uint64 {numbered[1]}0 … {numbered[1]}9",)
    said = function.summary + (" Needs `--unsafe`." if function.unsafe else "")
    return _row((_code(signatures), said))


def config_table() -> Iterator[str]:
    """The configuration variables and their defaults."""
    yield _row(("variable", "default"))
    yield "|---|---|"
    for field in fields(Config):
        if field.name != "origins":
            default = field.default
            shown = str(default).lower() if isinstance(default, bool) else default
            if default is None or (field.name == "perf_rb_pages" and not default):
                shown = "decided at run time"
            yield _row((f"`{field.name}`", f"{shown}"))


#: The parts of pages that are made here.
PAGES: dict[Path, dict[str, Callable[[], Iterator[str]]]] = {
    ROOT / "docs/language.md": {
        "probes": probe_table,
        "functions": function_table,
        "config": config_table,
    },
    ROOT / "docs/performance.md": {
        "runs": tables.facts,
        **{name: partial(tables.table, name) for name in tables.TABLES},
        "probe types": tables.probe_types,
        "shortfalls": tables.shortfalls,
    },
}


def page(path: Path) -> str:
    """A page with its parts made anew."""
    text = path.read_text(encoding="utf-8")
    for name, make in PAGES[path].items():
        begin, end = f"<!-- {name}: made by tools/update_docs.py -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise SystemExit(f"{path}: no place for {name}")
        text = f"{before}{begin}\n" + "\n".join(make()) + f"\n{end}{after}"
    return text


def main() -> int:
    """Write or check the pages; the exit status."""
    old = [path for path in PAGES if path.read_text(encoding="utf-8") != page(path)]
    if "--check" in sys.argv[1:]:
        for path in old:
            print(f"{path.relative_to(ROOT)}: run tools/update_docs.py")
        return int(bool(old))
    for path in old:
        path.write_text(page(path), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
