# SPDX-License-Identifier: Apache-2.0
"""What a script needs beside itself, when it is checked elsewhere."""

from __future__ import annotations

from pathlib import Path

from kcap.session.companions import companions


def test_imports_and_includes_are_followed(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.bt").write_text('import "../deep/b.bt";\nmacro a() { 1 }\n')
    (tmp_path / "lib/notes.txt").write_text("not a part of it")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.bt").write_text('#include "types.h"\nmacro b() { 2 }\n')
    (tmp_path / "deep/types.h").write_text('#include "more.h"\nstruct x { int y; };\n')
    (tmp_path / "deep/more.h").write_text("#define Z 1\n")
    script = tmp_path / "x.bt"
    text = '#include <linux/skbuff.h>\n#include "missing.h"\nimport "lib";\nbegin { print(1); }\n'
    script.write_text(text)
    found = companions(text, str(script))
    assert {str(Path(path).relative_to(tmp_path)) for path in found} == {
        "lib/a.bt",
        "deep/b.bt",
        "deep/types.h",
        "deep/more.h",
    }
    assert found[str(tmp_path / "deep/more.h")] == b"#define Z 1\n"


def test_files_that_import_each_other_are_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.bt").write_text('import "b.bt";\n')
    (tmp_path / "b.bt").write_text('import "a.bt";\n')
    found = companions('import "a.bt";\nbegin { }', str(tmp_path / "x.bt"))
    assert found == {}  # no such script: looked for from the working directory
    (tmp_path / "x.bt").write_text("")
    found = companions('import "a.bt";\nbegin { }', str(tmp_path / "x.bt"))
    assert sorted(found) == [str(tmp_path / "a.bt"), str(tmp_path / "b.bt")]


def test_a_script_that_is_none_has_none(tmp_path: Path) -> None:
    assert companions("begin {", "stdin") == {}
