"""The verb bench: settings of the search compared over seeds, at equal numbers of evaluations."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from evolve.cli.output import print_json, print_table

#: Keys that ``bench`` itself decides.
_DECIDED = ("seed", "generations", "evaluations")


@click.command()
@click.option("--strategies", help="Search strategies, with commas.  [default: genetic,random]")
@click.option("--signals", help="What rules may read, one level or several with commas.  [default: curves]")
@click.option(
    "--operators",
    multiple=True,
    help="Operators of a setting, as in 'run'; give the flag once a setting.  [default: default]",
)
@click.option(
    "--start-from",
    multiple=True,
    help="Seed heuristics of a setting, with commas; give the flag once a setting.  [default: baseline]",
)
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Runs a setting."
)
@click.option(
    "--evaluations",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="Candidates evaluated in every run.",
)
@click.option("--datasets", help="Data set: a name, a folder or one profile.  [default: reference]")
@click.option("--population", type=int, help="Candidates a generation.  [default: 24]")
@click.option("--copies", type=int, help="Altered copies of each model to search on too.  [default: 0]")
@click.option(
    "--fit/--no-fit",
    default=None,
    help="Fit predicted losses, and prices, to what is known of train.  [default: fit below curves]",
)
@click.option(
    "--objective",
    help="Maximised: cliff, budgets:2.5,3,4 (bits), or relaxed:2.5,3,4 (bits on average).  [default: cliff]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file: what all settings share, and settings of its own in tables [settings.NAME].",
)
@click.option("--name", help="Name of the benchmark.  [default: made from what it compares]")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at a time.")
@click.option("--figures/--no-figures", default=True, help="Draw the report's pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def bench(
    strategies: str | None,
    signals: str | None,
    operators: tuple[str, ...],
    start_from: tuple[str, ...],
    seeds: int,
    evaluations: int,
    config: Path | None,
    name: str | None,
    workers: int,
    figures: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compare strategies or settings over seeds; writes runs/bench-NAME and reports/bench-NAME.

    With several values of several flags, every combination is a setting. Does an operator help?
    'bench --strategies genetic --operators default --operators default,mine=4'.

    Every setting gets the same seeds and number of evaluations; each is compared with the first.
    The same command again continues what was interrupted; with more seeds or further settings it adds
    these. Anything else under the name of a benchmark that is there is refused.
    """
    from evolve.benchmarking import Plan, run_bench
    from evolve.cli.progress import Interrupts
    from evolve.configuration import read_config
    from evolve.reports.benchmark import bench_json, write_bench
    from evolve.reports.benchmark_tables import collect_bench, timing_json
    from evolve.reports.writer import REPORTS

    values = read_config(config) if config else {}
    values |= {key: value for key, value in flags.items() if value is not None}
    flagged = {
        **({} if strategies is None else {"strategy": _words(strategies)}),
        **({} if signals is None else {"signals": _words(signals)}),
        **({"operators": list(dict.fromkeys(operators))} if operators else {}),
        **({"start_from": list(dict.fromkeys(start_from))} if start_from else {}),
    }
    base, settings = _settings(values, flagged)
    base.setdefault("datasets", "reference")
    plan = Plan(name or _default_name(base, settings, evaluations), settings, seeds, evaluations, base)
    with Interrupts() as interrupts, _Progress(len(settings) * seeds) as progress:
        outcome = run_bench(
            plan,
            reports=REPORTS,
            workers=workers,
            observe=progress.show,
            should_stop=lambda: interrupts.requested,
        )
    if outcome is None:
        click.echo("stopped; the same command again continues", err=True)
        raise KeyboardInterrupt
    contents = collect_bench(outcome)
    folder = write_bench(contents, figures=figures)
    if as_json:
        found = {"report": str(folder / "bench.md"), **bench_json(contents), "timing": timing_json(outcome)}
        print_json(found)
        return
    _print_tables(contents)
    click.echo(f"report: {folder / 'bench.md'}")


def _settings(values: dict[str, Any], flagged: dict[str, list[str]]) -> tuple[Any, Any]:
    """Return what all settings share, and the settings: all combinations, or those of the file."""
    from evolve.benchmarking import Setting, cross
    from evolve.errors import InputError

    base = dict(values)
    own = base.pop("settings", None)
    for place, table in [("configuration", base), *(own.items() if isinstance(own, dict) else ())]:
        for key in _DECIDED if isinstance(table, Mapping) else ():
            if key in table:
                cure = "The flags --seeds and --evaluations decide this."
                raise InputError(
                    "not for a benchmark", place=str(place), field=key, found=table[key], cure=cure
                )
    if own is None:
        usual = {"strategy": "genetic,random", "signals": "curves"}
        return base, cross({key: _words(str(base.get(key, usual[key]))) for key in usual} | flagged)
    if flagged:
        raise InputError(
            "settings given twice",
            field="settings",
            expected="tables [settings.NAME] in the file, or flags that name what is compared",
            found=list(own) if isinstance(own, dict) else own,
        )
    if not isinstance(own, dict) or not own or not all(isinstance(each, dict) for each in own.values()):
        raise InputError("bad settings", field="settings", expected="tables [settings.NAME]", found=own)
    return base, tuple(Setting(each, overrides) for each, overrides in own.items())


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _default_name(base: Mapping[str, Any], settings: Sequence[Any], evaluations: int) -> str:
    """Return the same name for the same comparison, so that the same command continues it."""
    content = json.dumps(
        [base, [[each.name, each.overrides] for each in settings], evaluations], sort_keys=True, default=str
    )
    digest = hashlib.sha256(content.encode()).hexdigest()[:6]
    models = re.sub(r"[^A-Za-z0-9]+", "-", Path(str(base["datasets"])).stem).strip("-")[:40] or "models"
    return f"{models}-{evaluations}-{digest}"


def _print_tables(contents: Any) -> None:
    from evolve.reports.benchmark_tables import (
        arrivals_table,
        comparison_table,
        price_table,
        shares_table,
        timing_table,
    )

    tables = [("Share of the optimum: median and quartiles", shares_table(contents))]
    if contents.comparisons:
        first = contents.outcome.plan.settings[0].name
        tables.append(
            (f"{first} against the others (positive: {first} is better)", comparison_table(contents))
        )
    tables.append(("Evaluations to a share of the optimum on train", arrivals_table(contents)))
    tables.append(("Seconds", timing_table(contents.outcome)))
    if contents.prices:
        tables.append(("The price of information", price_table(contents)))
    for title, table in tables:
        rows = [[cell.replace("`", "") for cell in row] for row in table.rows]
        print_table(title, table.columns, rows)


class _Progress:
    """Shows finished runs: a bar on a terminal, plain lines elsewhere, both on standard error."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._live: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            last = TextColumn("{task.fields[last]}")
            columns = (TextColumn("run"), MofNCompleteColumn(), BarColumn(), last, TimeRemainingColumn())
            self._live = Progress(*columns, console=Console(stderr=True))
            self._task = self._live.add_task("", total=self._total, last="")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, cell: Any, result: Any) -> None:
        """Show a run that has ended."""
        self._done += 1
        text = f"{cell.setting}, seed {result.seed}: best on train {100 * result.best:.2f} %"
        if self._live is not None:
            self._live.update(self._task, completed=self._done, last=text)
        else:
            click.echo(f"run {self._done}/{self._total}  {text}, {result.evaluations} evaluations", err=True)
