"""The verbs around a run: run, resume, report, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from evolve.cli.output import print_json, print_results

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that evaluate and fit.",
)
_FIGURES = click.option("--figures/--no-figures", default=True, help="Draw the report's pictures.")
_CONTROL = click.option(
    "--control",
    is_flag=True,
    help="Search the permuted control in full, as long as the run itself; it is kept with the run.",
)


@click.command()
@click.option("--generations", type=int, help="Generations, the first included.  [default: 6]")
@click.option("--population", type=int, help="Candidates a generation.  [default: 24]")
@click.option("--evaluations", type=int, help="Stop after so many evaluations.  [default: no limit]")
@click.option("--seed", type=int, help="Seed of all randomness.  [default: 0]")
@click.option("--datasets", help="Data set: a name, a folder or one profile.  [default: reference]")
@click.option(
    "--signals", help="What rules may read: metadata, statistics, gradient, curves.  [default: curves]"
)
@click.option("--strategy", help="Search strategy.  [default: genetic]")
@click.option("--operators", help="Operators with optional weights: parameters=3,structure=8,…")
@click.option(
    "--start-from", help="Seed heuristics: roles, names or 'all', with commas.  [default: baseline]"
)
@click.option(
    "--objective",
    help="Maximised: cliff, budgets:2.5,3,4 (bits), or relaxed:2.5,3,4 (bits on average).  [default: cliff]",
)
@click.option("--copies", type=int, help="Altered copies of each model to search on too.  [default: 0]")
@click.option(
    "--fit/--no-fit",
    default=None,
    help="Fit predicted losses, and prices, to what is known of train.  [default: fit below curves]",
)
@click.option("--plateau", type=int, help="Stop after so many generations without a better score.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file; flags override it."
)
@click.option("--name", help="Name of the run.  [default: run-001, run-002, …]")
@_WORKERS
@_FIGURES
@_CONTROL
@_JSON
def run(
    config: Path | None,
    name: str | None,
    workers: int,
    figures: bool,
    control: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Search for a rule; writes runs/NAME and reports/NAME."""
    from evolve.configuration import RunConfig, read_config
    from evolve.setup import prepare_run
    from evolve.store import create_free_run, create_run
    from evolve.verdicts.control import plan_control

    values = read_config(config) if config else {}
    values |= {key: value for key, value in flags.items() if value is not None}
    setup = prepare_run(RunConfig.from_json(values))
    resolved = setup.resolved()
    store = create_free_run(resolved) if name is None else create_run(name, resolved)
    if control:
        plan_control(store)
    _search_and_report(setup, store, workers, figures, as_json)


@click.command()
@click.argument("name", required=False)
@_WORKERS
@_FIGURES
@_JSON
def resume(name: str | None, workers: int, figures: bool, as_json: bool) -> None:
    """Continue a run that was interrupted or killed (default: the newest).

    A run that was started with --control goes on to its control search, and with that where it was left.
    """
    setup, store = _open(name)
    _search_and_report(setup, store, workers, figures, as_json)


@click.command()
@click.argument("name", required=False)
@_FIGURES
@_CONTROL
@_JSON
def report(name: str | None, figures: bool, control: bool, as_json: bool) -> None:
    """Write the report of a run again from its journal (default: the newest)."""
    from evolve.engine import recorded_outcome
    from evolve.reports.writer import write_report
    from evolve.verdicts.control import run_control

    setup, store = _open(name)
    with store.locked():
        if control:
            click.echo("searching the permuted control", err=True)
            run_control(store, setup)
        folder = write_report(store, setup, recorded_outcome(store), figures=figures)
    if as_json:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        print_json({"run": store.name, "report": str(folder / "report.md"), **told})
    else:
        click.echo(folder / "report.md")


@click.command()
@click.argument("name", required=False, metavar="RUN")
@_WORKERS
@_JSON
def verify(name: str | None, workers: int, as_json: bool) -> None:
    """Recompute every number of a run's journal and report, and say which differ.

    Every candidate is evaluated again and the search is asked again for the offspring it made; so is
    the control search of a run with --control. Exit status 1 if anything differs.
    """
    from evolve.cli.progress import SearchProgress
    from evolve.reports import verification

    setup, store = _open(name)
    snapshot = store.snapshot()
    generations = setup.config.generations if snapshot is None else snapshot.generation
    with SearchProgress(generations) as progress:
        differences = verification.verify(store, setup, workers=workers, observe=progress.show)
    if as_json:
        print_json({"run": store.name, "verified": not differences, "differences": list(differences)})
    else:
        for each in differences:
            click.echo(each)
        found = f"{len(differences)} differences" if differences else "every number holds"
        click.echo(f"{store.name}: {found}")
    if differences:
        raise click.exceptions.Exit(1)


def _open(name: str | None) -> tuple[Any, Any]:
    """Open a run and load what its configuration refers to, unchanged since it was started."""
    from evolve.setup import check_unchanged, prepare_run, stored_config
    from evolve.store import newest_run, open_run

    store = open_run(name or newest_run())
    stored = store.config()
    setup = prepare_run(stored_config(stored))
    check_unchanged(setup, stored)
    return setup, store


def _search_and_report(setup: Any, store: Any, workers: int, figures: bool, as_json: bool) -> None:
    from evolve.cli.progress import Interrupts, SearchProgress
    from evolve.engine import search
    from evolve.reports.writer import write_report
    from evolve.results import evaluate_rules
    from evolve.verdicts.control import planned_control, run_control

    for broken in setup.catalogue.broken:
        click.echo(f"left out: {broken.error}", err=True)
    snapshot = store.snapshot()
    done = 0 if snapshot is None else snapshot.generation
    with store.locked(), Interrupts() as interrupts:
        with SearchProgress(setup.config.generations, done) as progress:
            outcome = search(
                setup,
                store,
                workers=workers,
                observe=progress.show,
                should_stop=lambda: interrupts.requested,
            )
        store.write_manifest(workers=workers, seconds=progress.seconds, evaluations=progress.evaluations)
        finished = outcome.finished
        if finished and planned_control(store):
            click.echo("searching the permuted control", err=True)
            finished = run_control(store, setup, lambda: interrupts.requested)
        if not finished:
            click.echo(f"stopped; continue with 'evolve resume {store.name}'", err=True)
            raise KeyboardInterrupt
        folder = write_report(store, setup, outcome, figures=figures)
    champion = outcome.champion
    results = []
    if champion is not None:
        template = setup.problem.templates[champion.candidate.template]
        rules = {"champion": (champion.candidate, template)}
        results = evaluate_rules(rules, setup.dataset, setup.config.signals, setup.arena.budgets)
    if as_json:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        print_json(
            {
                "run": store.name,
                "report": str(folder / "report.md"),
                "champion": None
                if champion is None
                else {
                    "id": champion.candidate.id,
                    "name": "champion",
                    "source_file": str(folder / "champion.py"),
                },
                "results": [each.to_json() for each in results],
                "evaluations": outcome.generations[-1].total,
                "generations": len(outcome.generations),
                **told,
            }
        )
    else:
        print_results("", {"dataset": "champion on"}, [each.to_json() for each in results])
        click.echo(f"report: {folder / 'report.md'}\nrule:   {folder / 'champion.py'}")
    if champion is None:
        click.echo("error: every candidate failed; the report lists the reasons", err=True)
        raise click.exceptions.Exit(1)
