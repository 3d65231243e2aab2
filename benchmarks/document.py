"""Writes docs/benchmarks.md from what the benchmarks found: `.venv/bin/python benchmarks/document.py`.

The page is made of benchmarks/results/*.json and of the docstrings of the scripts that wrote them.
"""

import ast
import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, Table

from ofvl_core.files import write_text

PAGE = ROOT / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Made by `benchmarks/document.py` of the results in `benchmarks/results`; do not edit. Each section names the
command that measures it again. What is compared ran in turn in one process, so ratios hold where times differ
between machines; brackets hold 95 % bootstrap intervals. Recordings are looked for in OFVL_DATA
([datasets.md](datasets.md)). Nothing here has run on a GPU; `benchmarks/gpu.py` would.
"""


def page(files: Sequence[Path]) -> str:
    """The page that says what the results in `files` hold: a section a script, in alphabetical order."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(files)]
    results.sort(key=_script)
    sections = [_section(script, list(group)) for script, group in groupby(results, key=_script)]
    return "\n".join([HEAD, *sections])


def _script(result: dict[str, Any]) -> str:
    found = re.search(r"benchmarks/\w+\.py", result["command"])
    if found is None:
        raise ValueError(
            f"the command '{result['command']}' names no script; begin it with benchmarks/NAME.py"
        )
    return found[0]


def _section(script: str, results: Sequence[dict[str, Any]]) -> str:
    explanation = ast.get_docstring(ast.parse((ROOT / script).read_text(encoding="utf-8"))) or ""
    title, _, text = explanation.partition("\n")
    return "\n".join([f"## {title.strip().rstrip('.')}\n\n{text.strip()}\n", *map(_run, results)])


def _run(result: dict[str, Any]) -> str:
    machine = [result["computed_by"]]
    if result["gpu"] is not None:
        machine.append(f"GPU {result['gpu']}")
    if result["openvino"] is not None:
        machine.append(f"OpenVINO {result['openvino']}")
    measured = f"`{result['command']}`, {result['date']}: {'; '.join(machine)}.\n"
    return "\n".join([measured, *(Table(**table).markdown() for table in result["tables"])])


def main() -> None:
    """Write the page."""
    write_text(PAGE, page(list(RESULTS.glob("*.json"))))


if __name__ == "__main__":
    main()
