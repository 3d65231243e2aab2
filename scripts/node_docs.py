"""Writes down the parameters of the nodes, from the tables by which the nodes declare them.

    .venv/bin/python scripts/node_docs.py

The files of FILES as a whole, and in the pages of PAGES what lies between the marks of each node.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ofvl_core.files import write_text
from ofvl_ros import bag_player, localizer_parameters, recorder_parameters, visual_odometry_parameters
from ofvl_ros.parameters import Spec

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "localizer": localizer_parameters.PARAMETERS,
    "bag_player": bag_player.PARAMETERS,
    "recorder": recorder_parameters.PARAMETERS,
    "visual_odometry": visual_odometry_parameters.PARAMETERS,
}
FILES = {
    "localizer": ROOT / "config" / "localize.yaml",
    "recorder": ROOT / "config" / "record.yaml",
    "visual_odometry": ROOT / "config" / "visual_odometry.yaml",
}
PAGES = {
    ROOT / "docs" / "node.md": ("localizer", "bag_player"),
    ROOT / "docs" / "record.md": ("recorder",),
    ROOT / "docs" / "visual_odometry.md": ("visual_odometry",),
}

MARK = " *"
"""Follows what is said of a parameter that may change while the node is configured."""

HEADS = {
    "localizer": """\
# Parameters of the localizer node, with their defaults. Those marked * may change while the node is
# configured; the others when it is not: deactivate it and clean it up, then configure and activate it.
""",
    "recorder": """\
# Parameters of the recorder node, with their defaults. They are read when it starts.
""",
    "visual_odometry": """\
# Parameters of the visual odometry node, with their defaults. They are read when it starts.
""",
}

BODY = """\
/**:
  ros__parameters:
"""


def parameter_file(node: str) -> str:
    """What a node's file of FILES should hold."""
    indent = " " * 4
    entries = []
    for name, spec in TABLES[node].items():
        comment = textwrap.fill(
            _meaning(spec),
            width=110,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
        )
        entries.append(f"{comment}\n{indent}{name}: {_value(spec)}\n")
    return HEADS[node] + BODY + "\n".join(entries)


def with_tables(page: str, nodes: Sequence[str]) -> str:
    """A page with the tables that should be in it. Raises ValueError when it lacks a node's marks."""
    for node in nodes:
        begin, end = f"<!-- {node}: scripts/node_docs.py -->\n", f"<!-- {node}: end -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"there is no place for the parameters of {node}: put {begin}{end} there")
        rows = [
            f"| `{name}` | `{_value(spec)}` | {_meaning(spec)} |\n" for name, spec in TABLES[node].items()
        ]
        page = "".join([before, begin, "| parameter | default | |\n|---|---|---|\n", *rows, end, after])
    return page


def _value(spec: Spec) -> str:
    """The default as YAML."""
    plain = isinstance(spec.default, str) and spec.default
    return str(spec.default) if plain else json.dumps(spec.default)


def _meaning(spec: Spec) -> str:
    """What is said of a parameter."""
    allowed = f" ({spec.rule.words})" if spec.rule.words else ""
    return f"{spec.description}{allowed}{MARK * spec.changeable}"


if __name__ == "__main__":
    for node, path in FILES.items():
        write_text(path, parameter_file(node))
    for path, nodes in PAGES.items():
        write_text(path, with_tables(path.read_text(), nodes))
