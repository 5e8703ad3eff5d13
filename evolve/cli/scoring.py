"""The verbs that score: evaluate, optimum, lineage."""

from __future__ import annotations

import click

from evolve.cli.output import print_json, print_results, print_table

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_DATASETS = click.option(
    "--datasets", help="Data set: a name, a folder or one profile.  [default: reference]"
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HEURISTIC]...")
@_DATASETS
@click.option("--signals", default="curves", show_default=True, help="What the rules may read.")
@click.option(
    "--objective",
    default="cliff",
    show_default=True,
    help="cliff, budgets:2.5,3,4 (average bits), or relaxed:2.5,3,4.",
)
@_JSON
def evaluate(
    names: tuple[str, ...], datasets: str | None, signals: str, objective: str, as_json: bool
) -> None:
    """Score heuristics (default: all) on every model, beside the optimum.

    A HEURISTIC is a name, or the path of a plugin file.
    """
    from evolve.datasets import find_dataset
    from evolve.objectives import parse_objective
    from evolve.plugins import find_heuristics, load_catalogue
    from evolve.results import evaluate_rules

    catalogue = load_catalogue()
    dataset = find_dataset(datasets)
    chosen = find_heuristics(catalogue, names)
    results = evaluate_rules(
        {each.name: (each.candidate, each.template) for each in chosen},
        dataset,
        signals,
        parse_objective(objective),
    )
    for broken in () if names else catalogue.broken:
        click.echo(f"left out: {broken.error}", err=True)
    if as_json:
        print_json([each.to_json() for each in results])
        return
    whose = {"heuristic": "heuristic", "dataset": "model"}
    print_results(f"Data set {dataset.name}", whose, [each.to_json() for each in results])
    for heuristic, failure in {each.heuristic: each.failure for each in results if each.failure}.items():
        click.echo(f"{heuristic} failed: {failure}", err=True)


@click.command()
@_DATASETS
@_JSON
def optimum(datasets: str | None, as_json: bool) -> None:
    """Compute the proven optimum of every model."""
    from evolve.datasets import find_dataset
    from evolve.evaluation import Arena

    dataset = find_dataset(datasets)
    profiles = list({each.name: each for _, each in dataset.splits()}.values())
    found = Arena(profiles).optima
    if as_json:
        print_json(
            [
                {
                    "dataset": profile.name,
                    "optimum": each.fitness,
                    "upper_bound": each.upper_bound,
                    "allocation": [profile.format_names[index] for index in each.allocation],
                }
                for profile, each in zip(profiles, found, strict=True)
            ]
        )
        return
    print_table(
        f"Data set {dataset.name}",
        ["model", "layers", "optimum", "upper bound", "compression", "retention"],
        [
            (
                profile.name,
                profile.num_layers,
                each.fitness,
                each.upper_bound,
                each.compression_ratio,
                each.accuracy_retention,
            )
            for profile, each in zip(profiles, found, strict=True)
        ],
    )


@click.command()
@click.argument("name", required=False, metavar="RUN")
@_JSON
def lineage(name: str | None, as_json: bool) -> None:
    """Show the champion's ancestry, from its seed heuristics (default: of the newest run).

    Refinements that follow one another are one step, but with --json.
    """
    from evolve.ancestry import refinements_folded
    from evolve.engine import recorded_outcome
    from evolve.store import newest_run, open_run, scored_to_json

    store = open_run(name or newest_run())
    steps = recorded_outcome(store).ancestry()
    if as_json:
        print_json([scored_to_json(each) for each in steps])
        return
    steps = refinements_folded(steps)
    print_table(
        f"Ancestry of the champion of {store.name}",
        ["id", "generation", "operator", "parents", "change", "train", "valid"],
        [
            (
                each.candidate.id,
                each.generation,
                each.offspring.operator,
                " ".join(each.offspring.parents),
                each.offspring.change,
                None if each.evaluation.train is None else each.evaluation.train.fitness,
                None if each.evaluation.valid is None else each.evaluation.valid.fitness,
            )
            for each in steps
        ],
    )
