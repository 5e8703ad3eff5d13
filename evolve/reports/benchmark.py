"""Writes a benchmark: a page for people, the same as JSON, every run as CSV, pictures, and the seconds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evolve import __version__
from evolve.benchmarking import AXES, BenchOutcome, Plan, cross
from evolve.comparison import TARGETS, LevelPrice, measures
from evolve.configuration import parse_operators
from evolve.errors import RunError
from evolve.reports.benchmark_tables import (
    CURVES_FIGURE,
    PRICE_FIGURE,
    BenchContents,
    Table,
    arrivals_table,
    comparison_table,
    price_table,
    shares_table,
    timing_json,
    timing_table,
)
from evolve.reports.markdown import code, code_cell, counted, render
from evolve.reports.readable import readable
from evolve.reports.reproduction import fit_flag
from evolve.reports.writer import REPORTS, check_is_report, write_folder, write_index
from evolve.store import to_json_text

#: What of a plan its report holds where flags do not say it.
PLAN_FILE = "bench.toml"
#: Values that all settings share and a flag can name.
_FLAGGED = {"datasets", "population", "copies", "fit", "objective"}


def write_bench(contents: BenchContents, reports: Path = REPORTS, figures: bool = True) -> Path:
    """Write the report of a benchmark, in place of an older one, and the index of all reports.

    Args:
        contents: What it shows.
        reports: The folder of all reports.
        figures: Whether to draw pictures.

    Returns:
        The report's folder.

    Raises:
        RunError: The folder cannot be written, or holds something that is no report.
    """
    folder = reports / contents.outcome.plan.folder
    check_is_report(folder, "bench.json")
    texts = {
        "bench.md": bench_page(contents, figures),
        "bench.json": to_json_text(bench_json(contents)),
        "results.csv": results_csv(contents.outcome),
        "timing.json": to_json_text(timing_json(contents.outcome)),
        "timing.md": _timing_page(contents.outcome),
    }
    plan = plan_toml(contents.outcome)
    texts |= {} if plan is None else {PLAN_FILE: plan}
    files = {name: text.encode() for name, text in texts.items()}
    if figures:
        # Only here, for matplotlib takes longer to load than the rest of the report.
        from evolve.reports.benchmark_figures import draw_bench

        files |= draw_bench(contents.outcome, contents.prices)
    try:
        write_folder(folder, files)
        write_index(reports)
    except OSError as error:
        raise RunError(f"the report cannot be written: {error.strerror or error}", file=folder) from error
    return folder


def bench_json(contents: BenchContents) -> dict[str, Any]:
    """Return a benchmark as JSON: the same for the same seeds, seconds left out."""
    outcome = contents.outcome
    return {
        "name": outcome.plan.name,
        "version": __version__,
        "dataset": outcome.dataset.name,
        "dataset_hash": outcome.dataset.content_hash,
        "models": {split: len(outcome.dataset.split(split)) for split in measures(outcome)[1:]},
        "evaluations": outcome.plan.evaluations,
        "seeds": outcome.plan.seeds,
        "command": bench_command(outcome),
        "configurations": {name: dict(values) for name, values in _configurations(outcome)},
        "settings": [asdict(each) for each in contents.settings],
        "comparisons": [asdict(each) for each in contents.comparisons],
        "price_of_information": [asdict(each) for each in contents.prices],
        "runs": [asdict(each) for each in outcome.results],
    }


def results_csv(outcome: BenchOutcome) -> str:
    """Return one row a run as CSV."""
    import pandas as pd

    rows = []
    for each in outcome.results:
        row: dict[str, Any] = {"setting": each.setting, "seed": each.seed, "evaluations": each.evaluations}
        row |= {"champion": each.champion, "complexity": each.complexity, "best_on_train": each.best}
        row |= {split: each.mean(split) for split in each.shares}
        row |= {f"worst_{split}": each.worst(split) for split in each.shares}
        row |= {f"evaluations_to_{100 * target:g}": each.evaluations_to(target) for target in TARGETS}
        rows.append(row)
    frame = pd.DataFrame(rows)
    counts = [name for name in frame.columns if name.startswith("evaluations_to_")]
    # Whole numbers stay whole beside the missing ones.
    return frame.astype(dict.fromkeys(counts, "Int64")).to_csv(index=False, lineterminator="\n")


def bench_page(contents: BenchContents, figures: bool) -> str:
    """Return the page of a benchmark in markdown."""
    outcome = contents.outcome
    splits = measures(outcome)[1:]
    return render(
        "bench.md.j2",
        {
            "name": outcome.plan.name,
            "settings": len(outcome.plan.settings),
            "seeds": outcome.plan.seeds,
            "evaluations": outcome.plan.evaluations,
            "dataset": _dataset_name(outcome),
            "figures": figures,
            "curves_figure": CURVES_FIGURE,
            "price_figure": PRICE_FIGURE,
            "first": outcome.plan.settings[0].name,
            "shares": shares_table(contents),
            "comparisons": comparison_table(contents) if contents.comparisons else None,
            "arrivals": arrivals_table(contents),
            "prices": price_table(contents) if contents.prices else None,
            "chooser": "valid" if "valid" in splits else "train",
            "unseen": f"the {counted(len(outcome.dataset.split(splits[-1])), 'model')} of {splits[-1]}",
            "rules": [_rule(each) for each in contents.prices],
            "command": bench_command(outcome),
            "dataset_hash": outcome.dataset.content_hash if _is_moved(outcome) else None,
            "plan": PLAN_FILE if plan_toml(outcome) is not None else None,
            "configurations": Table(
                ["setting", "configuration"],
                [
                    [code_cell(name), code_cell(json.dumps(values))]
                    for name, values in _configurations(outcome)
                ],
                2,
            ),
        },
    )


def _rule(price: LevelPrice) -> dict[str, str]:
    values = [code(f"{name} = {value:.6g}") for name, value in price.best.parameters.items()]
    return {"level": price.level, "source": readable(price.best.source), "parameters": ", ".join(values)}


def _timing_page(outcome: BenchOutcome) -> str:
    table = timing_table(outcome)
    context = {"columns": table.columns, "alignment": table.alignment, "rows": table.rows}
    return render("timing.md.j2", {"name": outcome.plan.name, **context})


def _configurations(outcome: BenchOutcome) -> list[tuple[str, dict[str, Any]]]:
    """Return each setting's configuration, where it is not the default; no path of this machine."""
    found = []
    for setting in outcome.plan.settings:
        values = {**outcome.plan.base, **setting.overrides}
        if "datasets" in values:
            values["datasets"] = _dataset_name(outcome)
        if isinstance(values.get("operators"), str):
            values["operators"] = parse_operators(values["operators"])
        found.append((setting.name, values))
    return found


def _dataset_name(outcome: BenchOutcome) -> str:
    spec = _dataset_spec(outcome)
    return Path(spec).name if _is_moved(outcome) else spec


def _is_moved(outcome: BenchOutcome) -> bool:
    """Whether the data set stands at a place of this machine, which no report tells."""
    return Path(_dataset_spec(outcome)).is_absolute()


def _dataset_spec(outcome: BenchOutcome) -> str:
    return str(outcome.plan.base.get("datasets", outcome.dataset.name))


def bench_command(outcome: BenchOutcome) -> str:
    """Return the command of a benchmark; what flags cannot say it has from `plan_toml`, beside its report."""
    plan = outcome.plan
    words = ["python", "-m", "evolve", "bench"]
    flags = _setting_flags(plan)
    words += ["--config", (REPORTS / plan.folder / PLAN_FILE).as_posix()] if flags is None else flags
    words += ["--seeds", str(plan.seeds), "--evaluations", str(plan.evaluations)]
    if flags is not None:
        words += ["--datasets", _dataset_name(outcome)]
        words += ["--population", str(plan.config(plan.settings[0], 0).population)]
        words += ["--copies", str(plan.base["copies"])] if plan.base.get("copies") else []
        words += fit_flag(plan.base["fit"]) if plan.base.get("fit") is not None else []
        words += ["--objective", plan.base["objective"]] if "objective" in plan.base else []
    return shlex.join([*words, "--name", plan.name])


def plan_toml(outcome: BenchOutcome) -> str | None:
    """Return what a benchmark compares as a configuration file; None where flags say all of it."""
    plan = outcome.plan
    if _setting_flags(plan) is not None:
        return None
    tables = [("", _shared(plan))]
    tables += [(f"[settings.{json.dumps(each.name)}]", dict(each.overrides)) for each in plan.settings]
    lines = []
    for title, values in tables:
        lines += [title] if title else []
        values |= {"datasets": _dataset_name(outcome)} if "datasets" in values else {}
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and lists of them are written alike


def _shared(plan: Plan) -> dict[str, Any]:
    """Return what all settings share, without what each of them says anyway."""
    said = [set(each.overrides) for each in plan.settings]
    return {key: value for key, value in plan.base.items() if not all(key in each for each in said)}


def _setting_flags(plan: Plan) -> list[str] | None:
    """Return the flags that name what is compared; None where only a file can say it."""
    settings = plan.settings
    values = {
        key: list(dict.fromkeys(str(each.overrides[key]) for each in settings if key in each.overrides))
        for key in AXES
    }
    axes = {key: found for key, found in values.items() if found}
    if not axes or cross(axes) != tuple(settings) or not _FLAGGED.issuperset(_shared(plan)):
        return None
    words = []
    for key, flag in (("strategy", "--strategies"), ("signals", "--signals")):
        words += [flag, ",".join(axes[key])] if key in axes else []
    for key in ("operators", "start_from"):
        for value in axes.get(key, ()):
            words += [f"--{key.replace('_', '-')}", value]
    return words
