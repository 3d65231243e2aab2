"""The tables of an ablation: in the paper's form, and which differences exceed the spread of the seeds."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ofvl_core import page
from ofvl_core.ablation import VARIANTS, Outcome
from ofvl_core.files import write_json, write_text
from ofvl_core.training.config import TrainConfig

REFERENCE = "full"


@dataclass(frozen=True)
class Table:
    """Headings, formatted cells, and below them a `note`."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A table whose rows are variants with what the paper calls them; `parts` adds a column for each part."""

    title: str
    rows: dict[str, str]
    parts: bool = False


TABLES_4_5 = (
    Comparison(
        "Table 4: joint or separate training", {"separate": "Separate learning", "full": "Joint learning"}
    ),
    Comparison(
        "Table 5: sharing strategies",
        {
            "all_shared": "EXP1: all shared",
            "conv_norm_scored": "EXP2: convolutions and normalisations scored",
            "full": "EXP3: convolutions scored, normalisations specific",
        },
    ),
)
TABLE_7_AND_BEYOND = (
    Comparison(
        "Table 7: parts left out",
        {"no_attention": "EXP1", "average_gradients": "EXP2", "no_penalty": "EXP3", "full": "EXP4"},
        parts=True,
    ),
    Comparison(
        "Beyond the paper: sign of the score's gradient",
        {"published_sign": "as in the published code", "full": "falls with the score, as Eq. 1"},
    ),
    Comparison(
        "Beyond the paper: how the scenes' gradients combine",
        {
            "average_gradients": "plain average",
            "imtl_g": "IMTL-G",
            "mgda": "MGDA",
            "aligned_mtl": "Aligned-MTL",
            "full": "normalised, Eq. 6-9",
        },
    ),
)

PARTS: dict[str, Callable[[TrainConfig], bool]] = {
    "TSAM": lambda config: config.network.attention,
    "GNA": lambda config: config.gradients == "normalised",
    "PL": lambda config: config.penalty_weight > 0,
}
"""Task-specific attention, gradient normalisation and penalty, as the paper's Table 7 abbreviates them."""

MEASURES = {
    "median_m": ("median m", 1),
    "median_deg": ("median deg", 1),
    "within_5cm_5deg": ("5 cm 5 deg", -1),
    "within_10cm_5deg": ("10 cm 5 deg", -1),
}
"""What is compared of two variants: its heading, and the sign by which more is worse."""

ERRORS = ["Med. Err. (m, deg)", "Acc. 5 cm 5 deg (%)", "10 cm 5 deg (%)"]

Numbers = Sequence[float | None]
"""One a seed; None where there is none, as the median of mostly failed queries."""


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Tables 4 to 7, those beyond the paper and the differences from the full model.

    Those that compare nothing, because their variants were not run, are left out.
    """
    runs = {name: [outcome for outcome in outcomes if outcome.variant == name] for name in VARIANTS}
    comparisons = [
        *(_comparison(comparison, runs) for comparison in TABLES_4_5),
        _new_scene(runs),
        *(_comparison(comparison, runs) for comparison in TABLE_7_AND_BEYOND),
    ]
    found = [table for table in comparisons if len(table.rows) > 1]
    differences = _differences(runs)
    return [*found, differences] if differences.rows else found


def verdict(variant: Numbers, reference: Numbers, worse_when: int) -> str:
    """Whether a variant differs from the reference by more than the seeds do.

    "better" or "worse" where every seed of it is, than every one of the reference; else "within". "one seed"
    where the spread of either is not known. A missing number is the worst.
    """
    if min(len(variant), len(reference)) < 2:
        return "one seed"
    badness = [
        [math.inf if number is None else worse_when * number for number in numbers]
        for numbers in (variant, reference)
    ]
    if min(badness[0]) > max(badness[1]):
        return "worse"
    return "better" if max(badness[0]) < min(badness[1]) else "within"


def chance(seeds: int, reference_seeds: int) -> float:
    """How often `verdict` calls two equal variants better or worse."""
    return 2 / math.comb(seeds + reference_seeds, seeds)


def fragment(outcomes: Sequence[Outcome]) -> str:
    """All tables as Markdown, with what was trained on what and where."""
    parts = [_introduction(outcomes)]
    for table in tables(outcomes):
        rule = ["---", *["---:"] * (len(table.headings) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (table.headings, rule, *table.rows)]
        parts += [f"### {table.title}", "\n".join(lines), *([table.note] if table.note else [])]
    return "\n\n".join(parts) + "\n"


def write_tables(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ablation.json, ablation.md and the self-contained report.html into `out`."""
    write_json(out / "ablation.json", {"outcomes": [outcome.model_dump(mode="json") for outcome in outcomes]})
    write_text(out / "ablation.md", fragment(outcomes))
    sections = [
        f"<h2>{html.escape(table.title)}</h2>{page.table(table.headings, table.rows)}"
        f"<p>{html.escape(table.note)}</p>"
        for table in tables(outcomes)
    ]
    picture = page.image(_plot(outcomes), "every run's median error and share of frames")
    body = f"<p>{html.escape(_introduction(outcomes))}</p>{picture}{''.join(sections)}"
    write_text(out / "report.html", page.page("Ablations", body))


def _introduction(outcomes: Sequence[Outcome]) -> str:
    config, data = outcomes[0].config, outcomes[0].data
    scenes = ", ".join(f"{name} ({train} training, {test} test frames)" for name, train, test in data)
    seeds = sorted({outcome.config.seed for outcome in outcomes})
    where = " / ".join(dict.fromkeys(outcome.provenance for outcome in outcomes))
    return (
        f"{config.network.name}, {config.iterations} iterations of {config.batch_size} images a scene, on "
        f"{scenes}. Errors are unweighted means over the scenes. Seeds {', '.join(map(str, seeds))}: the "
        f"mean and in brackets the least and the largest. A dash: nothing to count, or no median because "
        f"half of a scene's frames have no pose. Computed with {where}."
    )


def _comparison(comparison: Comparison, runs: dict[str, list[Outcome]]) -> Table:
    parts = list(PARTS) if comparison.parts else []
    headings = ["Methods", *parts, "Total Params (M)", *ERRORS, "Layers shared", "Iterations", "Minutes"]
    rows = []
    for name, label in comparison.rows.items():
        if not (outcomes := runs[name]):
            continue
        config = outcomes[0].config
        ticks = ["✓" if PARTS[part](config) else "×" for part in parts]
        totals = [sum(model.parameters for model in outcome.models) / 1e6 for outcome in outcomes]
        minutes = spread([[outcome.minutes for outcome in outcomes]], ".1f")
        errors = error_cells([outcome.average for outcome in outcomes])
        measured = [spread([totals], ".3f"), *errors, _layers(outcomes), str(config.iterations), minutes]
        rows.append([label, *ticks, *measured])
    return Table(comparison.title, headings, rows)


def _new_scene(runs: dict[str, list[Outcome]]) -> Table:
    """Every scene in the joint model, and added to a frozen model of the others."""
    headings = ["Scene", "Increased Params (M)", *ERRORS, *(f"{heading}, joint" for heading in ERRORS)]
    added, joint = runs["new_scene"], runs[REFERENCE]
    rows = []
    for place, (scene, _, _) in enumerate(added[0].data if added else []):
        increase = [outcome.models[place].per_scene / 1e6 for outcome in added]
        cells = [_errors_of(outcomes, place) for outcomes in (added, joint)]
        rows.append([scene, spread([increase], ".3f"), *cells[0], *cells[1]])
    if rows:
        increase = [
            sum(model.per_scene for model in outcome.models) / len(outcome.models) / 1e6 for outcome in added
        ]
        cells = [error_cells([outcome.average for outcome in outcomes]) for outcomes in (added, joint)]
        rows.append(["average", spread([increase], ".3f"), *cells[0], *cells[1]])
    note = (
        "Each scene was added to a frozen model of the others; beside it the same scene in the model of all, "
        "trained jointly."
    )
    return Table("Table 6: a new scene added to a frozen model", headings, rows, note)


def _differences(runs: dict[str, list[Outcome]]) -> Table:
    """The verdict on every variant that was run; empty where the full model was not."""
    full = runs[REFERENCE]
    compared = {name: outcomes for name, outcomes in runs.items() if full and outcomes and name != REFERENCE}
    verdicts = {
        name: [
            verdict(_numbers(outcomes, key), _numbers(full, key), sign) for key, (_, sign) in MEASURES.items()
        ]
        for name, outcomes in compared.items()
    }
    cells = [cell for row in verdicts.values() for cell in row]
    said = sum(cell in ("better", "worse") for cell in cells)
    by_chance = sum(
        chance(len(compared[name]), len(full))
        for name, row in verdicts.items()
        for cell in row
        if cell != "one seed"
    )
    note = (
        "better, worse: every seed of the variant is, than every seed of the full model. within: the "
        "difference does not exceed the spread of the seeds. "
    )
    if "one seed" in cells:
        note += "one seed: the spread is not known, so a difference says nothing; give more --seeds. "
    note += f"{said} of {len(cells)} cells say better or worse; "
    note += f"if no variant made a difference, up to {by_chance:.1f} would."
    headings = ["Variant", "Seeds", *(heading for heading, _ in MEASURES.values())]
    rows = [[name, str(len(compared[name])), *row] for name, row in verdicts.items()]
    return Table("Which differences from the full model exceed the spread of the seeds", headings, rows, note)


def _numbers(outcomes: Sequence[Outcome], key: str) -> list[float | None]:
    return [outcome.average[key] for outcome in outcomes]


def _errors_of(outcomes: Sequence[Outcome], place: int) -> list[str]:
    return error_cells([outcome.scenes[place].model_dump() for outcome in outcomes])


def _layers(outcomes: Sequence[Outcome]) -> str:
    if len(outcomes[0].models) > 1:
        return "-"
    models = [outcome.models[0] for outcome in outcomes]
    if not models[0].scored_layers:
        return "all"
    return f"{spread([[model.shared_layers for model in models]], '.3g')} of {models[0].scored_layers}"


def error_cells(errors: Sequence[dict[str, Any]]) -> list[str]:
    """The cells of `ERRORS`, of one scene's or the average's errors for each seed."""
    if not errors:
        return ["-"] * len(ERRORS)
    metres, degrees = ([seed[key] for seed in errors] for key in ("median_m", "median_deg"))
    shares = (
        spread([[100 * seed[key] for seed in errors]], ".1f")
        for key in ("within_5cm_5deg", "within_10cm_5deg")
    )
    return [spread([metres, degrees], ".3f", ".2f"), *shares]


def spread(quantities: Sequence[Numbers], *forms: str) -> str:
    """The mean of each quantity over the seeds and in brackets, where they differ, the least and the largest.

    A dash where a number is missing.
    """
    if any(number is None for numbers in quantities for number in numbers):
        return "-"
    means, extents = [], []
    for numbers, form in zip(quantities, forms, strict=True):
        known = [number for number in numbers if number is not None]
        means.append(f"{sum(known) / len(known):{form}}")
        extents.append(f"{min(known):{form}}-{max(known):{form}}")
    mean, extent = ", ".join(means), ", ".join(extents)
    differ = any(f"{one}-{one}" != both for one, both in zip(means, extents, strict=True))
    return f"{mean} ({extent})" if differ else mean


def _plot(outcomes: Sequence[Outcome]) -> Figure:
    """A dot a run; the band is the full model's spread."""
    names = [name for name in VARIANTS if any(outcome.variant == name for outcome in outcomes)]
    figure = Figure(figsize=(10, 1.2 + 0.3 * len(names)), layout="constrained")
    panels = (("median_m", "median position error [cm]"), ("within_10cm_5deg", "within 10 cm and 5 deg [%]"))
    for axis, (key, label) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for place, name in enumerate(names):
            numbers = _numbers([outcome for outcome in outcomes if outcome.variant == name], key)
            percent = [100 * number for number in numbers if number is not None]
            axis.plot(percent, [place] * len(percent), "o", color="C0" if name == REFERENCE else "0.3")
            if name == REFERENCE and percent:
                axis.axvspan(min(percent), max(percent), color="C0", alpha=0.15, linewidth=0)
        axis.set(xlabel=label, yticks=range(len(names)), yticklabels=names)
        axis.margins(y=0.1)
    axis.invert_yaxis()
    return figure
