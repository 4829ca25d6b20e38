# SPDX-License-Identifier: Apache-2.0
"""The rules that hold for the whole source: layers, start-up, documentation, size.

They are checked on the syntax trees of the files, so that an import inside a function or below
``TYPE_CHECKING`` counts like any other.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "kcap"

#: Each layer imports only from those behind it in this list (docs/architecture.md).
LAYERS = (
    "cli",
    "session",
    "vm",
    "diagnose",
    "packet",
    "output",
    "probes",
    "functions",
    "codegen",
    "sema",
    "lang",
    "symbols",
    "kernel",
    "btf",
)
#: Modules of the package itself that every layer may use; they import none of the layers.
SHARED = {"cachedir", "closing", "elfnotes", "errors", "plain", "records", "version", "words"}
#: The package's own two modules: they stand above everything.
TOP = {"__init__", "__main__"}

#: (file, imported layer) -> why it is allowed. This list only ever gets shorter.
UPWARD: dict[tuple[str, str], str] = {}

#: Longest file, lines; and those that may be longer, with the reason.
MAX_LINES = 600
LONG_FILES: dict[str, str] = {}

#: Loading one of these costs more than a whole start may: they are imported only by functions
#: that can't do without.
HEAVY = (
    "argparse",
    "asyncio",
    "clang",
    "concurrent",
    "decimal",
    "elftools",
    "json",
    "llvmlite",
    "logging",
    "multiprocessing",
    "rich",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
)


class Import(NamedTuple):
    """An import statement: the module that it names, and its line."""

    module: str
    line: int


def sources(directory: Path = PACKAGE) -> list[Path]:
    """All Python files below a directory."""
    return sorted(directory.rglob("*.py"))


def name_of(path: Path) -> str:
    """A file of the package as it is called in messages."""
    return str(path.relative_to(PACKAGE))


def layer_of(path: Path) -> str:
    """The layer, or the module directly in the package, that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: a relative import"
            module = node.module or ""
            if module == "kcap":
                yield from (Import(f"kcap.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield Import(module, node.lineno)


def imported_layers(path: Path) -> Iterator[tuple[str, int]]:
    """The layers of kcap that a file imports from, with the lines."""
    for module, line in imports(path):
        package, _, rest = module.partition(".")
        if package == "kcap" and rest:
            yield rest.partition(".")[0], line


def test_every_module_belongs_to_a_layer() -> None:
    found = {layer_of(path) for path in sources()}
    assert found == {*LAYERS, *SHARED, *TOP}


def test_layers_import_downwards_only() -> None:
    rank = {layer: position for position, layer in enumerate(LAYERS)}
    wrong = [
        f"{name_of(path)}:{line} imports kcap.{layer}"
        for path in sources()
        if layer_of(path) in rank
        for layer, line in imported_layers(path)
        if layer in TOP or rank.get(layer, len(LAYERS)) < rank[layer_of(path)]
        if (name_of(path), layer) not in UPWARD
    ]
    assert not wrong, "\n".join(wrong)


def test_the_list_of_upward_imports_holds_none_that_is_gone() -> None:
    gone = [
        (file, layer)
        for file, layer in UPWARD
        if layer not in {found for found, _ in imported_layers(PACKAGE / file)}
    ]
    assert not gone


def test_shared_modules_import_no_layer() -> None:
    for module in SHARED:
        assert {layer for layer, _ in imported_layers(PACKAGE / f"{module}.py")} <= SHARED


@pytest.mark.parametrize(
    ("layer", "allowed"), [("kernel", {"kernel", "btf", *SHARED}), ("btf", {"btf", *SHARED})]
)
def test_kernel_and_btf_know_no_language(layer: str, allowed: set[str]) -> None:
    found = {name for path in sources(PACKAGE / layer) for name, _ in imported_layers(path)}
    assert found <= allowed


def loaded_by(statements: str) -> set[str]:
    """The modules that an interpreter has loaded after some statements."""
    code = f"{statements}\nimport sys\nprint(*sys.modules, sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    # -S: what a machine's site-packages load at every start is none of kcap's doing.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_checking_a_script_loads_no_heavy_module() -> None:
    loaded = loaded_by("import kcap; kcap.compile('begin { exit() }')")
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}


def test_importing_kcap_loads_no_layer() -> None:
    layers = {name for name in loaded_by("import kcap") if name.startswith("kcap.")}
    assert layers == {"kcap.errors", "kcap.version"}


def test_the_kernel_layer_is_usable_without_the_language() -> None:
    loaded = loaded_by(
        "import kcap.kernel.collection, kcap.kernel.links, kcap.kernel.perf, kcap.btf"
    )
    layers = {name.split(".")[1] for name in loaded if name.startswith("kcap.")}
    assert layers <= {"kernel", "btf", *SHARED}


@pytest.mark.parametrize("directory", ["src", "tests", "tools", "demo", "benchmarks"])
def test_every_file_starts_with_its_licence_and_says_what_it_is(directory: str) -> None:
    for path in sources(ROOT / directory):
        text = path.read_text()
        first = [line for line in text.splitlines()[:2] if not line.startswith("#!")]
        assert first[0] == "# SPDX-License-Identifier: Apache-2.0", path
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


class Classes:
    """The package's classes by name, to find out which methods repeat a documented one."""

    def __init__(self, trees: dict[Path, ast.Module]) -> None:
        self._by_name: dict[str, list[ast.ClassDef]] = {}
        for tree in trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._by_name.setdefault(node.name, []).append(node)

    def documented_above(self, node: ast.ClassDef, method: str, depth: int = 8) -> bool:
        """Whether a base class of that name documents a method."""
        return any(
            _has_documented(above, method)
            or (depth > 0 and self.documented_above(above, method, depth - 1))
            for base in node.bases
            for above in self._by_name.get(_base_name(base), ())
            if above is not node
        )


def _base_name(base: ast.expr) -> str:
    written = base.value if isinstance(base, ast.Subscript) else base
    if isinstance(written, ast.Attribute):
        return written.attr
    return written.id if isinstance(written, ast.Name) else ""


def _has_documented(node: ast.ClassDef, method: str) -> bool:
    return any(
        isinstance(each, ast.FunctionDef) and each.name == method and ast.get_docstring(each)
        for each in node.body
    )


def _has_summary(node: ast.ClassDef) -> bool:
    """A class of the language (a function, a probe type) that says what it is in ``summary``,
    from which the documentation is made."""
    return any(
        isinstance(each, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "summary" for target in each.targets)
        for each in node.body
    )


def undocumented(tree: ast.Module, classes: Classes) -> Iterator[tuple[str, int]]:
    """The public functions, classes and methods of a file that lack a docstring."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and not (
                isinstance(node, ast.ClassDef) and _has_summary(node)
            ):
                yield node.name, node.lineno
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if (
                        isinstance(method, ast.FunctionDef)
                        and not method.name.startswith("_")
                        and not ast.get_docstring(method)
                        and not classes.documented_above(node, method.name)
                        and not _is_overload(method)
                    ):
                        yield f"{node.name}.{method.name}", method.lineno


def _is_overload(method: ast.FunctionDef) -> bool:
    """An ``@overload`` form, or a property's setter: the getter says what it is."""
    return any(
        (isinstance(each, ast.Name) and each.id == "overload")
        or (isinstance(each, ast.Attribute) and each.attr == "setter")
        for each in method.decorator_list
    )


def test_everything_public_is_documented() -> None:
    trees = {path: ast.parse(path.read_text()) for path in sources()}
    classes = Classes(trees)
    wrong = [
        f"{name_of(path)}:{line} {name}"
        for path, tree in trees.items()
        for name, line in undocumented(tree, classes)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_short_enough_to_read() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in sources()}
    too_long = {name for name, lines in lengths.items() if lines > MAX_LINES}
    assert too_long == set(LONG_FILES)


def test_nothing_bare_is_caught() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not wrong


def test_no_source_names_a_package_registry() -> None:
    # Where packages come from is the user's configuration of pip and apt. Spelt in parts, so that
    # this file is none of those that it looks for.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
    wrong = [
        str(path.relative_to(ROOT))
        for directory in ("src", "tests", "tools", "demo", "docs", ".ci")
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if any(host in path.read_text(errors="replace") for host in hosts)
    ]
    assert not wrong
