# SPDX-License-Identifier: Apache-2.0
"""Write src/kcap/diagnose/helpers.tsv from what kernels answer, or compare it with them.

usage: update_helpers.py ANSWERS...

Each file of answers is the output of ``python3 -m kcap.diagnose.prober`` on one kernel::

    kcap vm run --kernel 6.1 -- python3 -m kcap.diagnose.prober > 6.1.txt

A cell of the table is the oldest of these kernels that lets programs of that kind call the helper.
The column ``introduced`` (the first release of which include/uapi/linux/bpf.h has the helper) and
cells in parentheses (kernels that can be built without it, such as override_return) are kept from
the table as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kcap.diagnose.helpertable import COLUMNS, release_of
from kcap.diagnose.programkinds import KINDS
from kcap.kernel.helpers import NAMES

TABLE = Path(__file__).parent.parent / "src/kcap/diagnose/helpers.tsv"


def answers(path: Path) -> tuple[str, dict[str, set[str]]]:
    """(``6.1``, the keys of the kinds that may call each helper) of one kernel."""
    series, found = "", {}
    for line in path.read_text("utf-8").splitlines():
        name, *keys = line.split()
        if name == "#":
            major, minor = release_of(keys[0])
            series = f"{major}.{minor}"
        elif any(key.endswith("?") for key in keys):
            raise SystemExit(f"{path}: no answer about {name}")
        else:
            found[name] = set(keys)
    return series, found


def main(paths: list[str]) -> int:
    """Write the table."""
    probed = sorted((answers(Path(p)) for p in paths), key=lambda item: release_of(item[0]))
    old: dict[str, list[str]] = {}
    if TABLE.exists():
        lines = [line.split("\t") for line in TABLE.read_text("utf-8").splitlines()]
        old = {row[1]: row for row in lines if len(row) == len(COLUMNS)}
    out = [
        "# Which kinds of BPF programs may call which helper: the oldest of the probed kernels",
        "# that lets them; empty: none does. See tools/update_helpers.py and diagnose/prober.py.",
        f"# probed: {' '.join(series for series, _ in probed)}",
        "\t".join(COLUMNS),
    ]
    for number, name in sorted(NAMES.items()):
        row = [str(number), name, old.get(name, ["", "", ""])[2]]
        for column, kind in enumerate(KINDS, 3):
            cells = [series for series, found in probed if kind.key in found.get(name, ())]
            kept = old[name][column] if name in old and "(" in old[name][column] else ""
            row.append(cells[0] if cells else kept)
        out.append("\t".join(row))
    TABLE.write_text("\n".join(out) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
