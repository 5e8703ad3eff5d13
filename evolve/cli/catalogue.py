"""The verbs about what there is: heuristics and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from evolve.cli.output import print_json, print_table

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group()
def heuristics() -> None:
    """List, show, check and write plugins: heuristics, templates, operators and strategies."""


@heuristics.command("list")
@_JSON
def list_heuristics(as_json: bool) -> None:
    """List every heuristic, operators and strategies from plugins, and the plugins that are broken."""
    from evolve.plugins import load_catalogue

    catalogue = load_catalogue()
    rows = [
        (each.name, each.role, each.template.kind, each.summary) for each in catalogue.heuristics.values()
    ]
    extensions = catalogue.extensions.values()
    if as_json:
        described = [{"name": each.name, "summary": each.summary, "file": each.file} for each in extensions]
        kinds = [each.kind for each in extensions]
        print_json(
            {
                "heuristics": [
                    {"name": name, "role": role, "kind": kind, "summary": summary}
                    for name, role, kind, summary in rows
                ],
                "operators": [
                    each for each, kind in zip(described, kinds, strict=True) if kind == "operator"
                ],
                "strategies": [
                    each for each, kind in zip(described, kinds, strict=True) if kind == "strategy"
                ],
                "broken": [{"name": each.name, "reason": str(each.error)} for each in catalogue.broken],
            }
        )
        return
    others = [(each.name, "user", each.kind, each.summary) for each in extensions]
    print_table("", ["plugin", "role", "kind", "summary"], [*rows, *others])
    for broken in catalogue.broken:
        click.echo(f"broken: {broken.error}", err=True)


@heuristics.command("show")
@click.argument("name")
@_JSON
def show_heuristic(name: str, as_json: bool) -> None:
    """Show a plugin: of a heuristic its role, source, parameters and code."""
    from evolve.plugin_files import Heuristic
    from evolve.plugins import find_plugin, load_catalogue
    from evolve.reports.readable import shown_rule

    each = find_plugin(load_catalogue(), name)
    if not isinstance(each, Heuristic):
        if as_json:
            described = {"name": each.name, "kind": each.kind, "summary": each.summary}
            print_json({**described, "file": each.file, "code": each.text})
        else:
            click.echo(f"{each.name} ({each.kind}): {each.summary}\nfile:   {each.file}\n")
            click.echo(each.text.rstrip())
        return
    source = each.template.source(each.candidate)
    if as_json:
        described = {"name": each.name, "role": each.role, "source": each.source, "summary": each.summary}
        print_json({**described, "file": each.file, **each.candidate.to_json(), "code": source})
        return
    click.echo(f"{each.name} ({each.role}): {each.summary}\nsource: {each.source}\nfile:   {each.file}")
    for parameter in each.template.parameters_of(each.candidate):
        bounds = f"[{parameter.low:g}, {parameter.high:g}], {parameter.scale}"
        click.echo(f"p.{parameter.name} = {parameter.default:g} in {bounds}")
    click.echo("\n" + shown_rule(each.candidate, each.template).source.rstrip())


@heuristics.command("check")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.option("--datasets", default="reference", show_default=True, help="Check on this data set.")
@_JSON
def check_heuristics(names: tuple[str, ...], datasets: str, as_json: bool) -> None:
    """Run plugins (default: all) on a data set and say what is wrong, by file and line.

    A heuristic must allocate every model, a template also filled at random; an operator must make
    valid candidates, a strategy must be restored exactly, and both repeat themselves for a seed.
    """
    from evolve.errors import PluginError
    from evolve.plugins import find_plugin, load_catalogue

    catalogue = load_catalogue()
    left_out = [each.name for each in catalogue.broken]
    found: dict[str, list[str]] = {}
    for name in names or (*catalogue.heuristics, *catalogue.extensions, *left_out):
        try:
            found[name] = _problems(find_plugin(catalogue, name), catalogue, datasets)
        except PluginError as error:
            if name not in left_out and not Path(name).is_file():
                raise
            found[name] = [str(error)]
    if as_json:
        print_json([{"heuristic": name, "problems": problems} for name, problems in found.items()])
    else:
        for name, problems in found.items():
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            click.echo(f"{name}: {count if problems else 'good'}")
            for problem in problems:
                click.echo(f"  {problem}")
    if any(found.values()):
        raise click.exceptions.Exit(2)


def _problems(plugin: Any, catalogue: Any, datasets: str) -> list[str]:
    from evolve.datasets import find_dataset
    from evolve.extension_check import check_extension, check_template
    from evolve.plugin_check import check_plugin
    from evolve.plugin_files import Heuristic

    if not isinstance(plugin, Heuristic):
        return list(check_extension(plugin, catalogue, datasets))
    problems = check_plugin(plugin, [find_dataset(datasets)])
    return list(problems or check_template(plugin, catalogue, datasets))


@heuristics.command("new")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["function", "code", "template", "operator", "strategy"]),
    default="function",
    show_default=True,
    help="A rule as a function or as a code template; a form for rules; an operator; a strategy.",
)
@_JSON
def new_heuristic(
    name: str, kind: Literal["function", "code", "template", "operator", "strategy"], as_json: bool
) -> None:
    """Write a commented, working plugin into heuristics/."""
    from evolve.new_plugins import new_plugin

    file = new_plugin(name, Path("heuristics"), kind)
    check = f"evolve heuristics check {name}"
    if as_json:
        print_json({"name": name, "kind": kind, "file": str(file), "check": check})
    else:
        click.echo(f"{file}\ncheck it with: {check}")


@click.group()
def datasets() -> None:
    """List, show, check and generate data sets."""


@datasets.command("list")
@_JSON
def list_datasets(as_json: bool) -> None:
    """List every data set that has a name; suite:7 and suite-shift:7 are drawn with seed 7."""
    from evolve.datasets import available_datasets

    rows = available_datasets()
    if as_json:
        print_json([{"name": name, "location": location} for name, location in rows])
    else:
        print_table("", ["data set", "location"], rows)


@datasets.command("show")
@click.argument("spec", default="reference", metavar="[NAME|PATH]")
@_JSON
def show_dataset(spec: str, as_json: bool) -> None:
    """Show the models of a data set."""
    from evolve.datasets import find_dataset

    rows = [
        (split, each.name, each.num_layers, each.total_params, " ".join(each.format_names), each.description)
        for split, each in find_dataset(spec).splits()
    ]
    columns = ["split", "model", "layers", "weights", "formats", "description"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(f"Data set {spec}", columns, rows)


@datasets.command("check")
@click.argument("specs", nargs=-1, metavar="[NAME|PATH]...")
@_JSON
def check_datasets(specs: tuple[str, ...], as_json: bool) -> None:
    """Validate data sets or single profiles (default: every shipped data set)."""
    from evolve.datasets import available_datasets, find_dataset
    from evolve.errors import InputError

    found: dict[str, str | None] = {}
    for spec in specs or [name for name, where in available_datasets() if where != "generated"]:
        try:
            find_dataset(spec)
            found[spec] = None
        except InputError as error:
            found[spec] = str(error)
    if as_json:
        print_json([{"dataset": spec, "problem": problem} for spec, problem in found.items()])
    else:
        for spec, problem in found.items():
            click.echo(f"{spec}: {problem or 'good'}")
    if any(found.values()):
        raise click.exceptions.Exit(2)


@datasets.command("generate")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--train", type=click.IntRange(0, 100_000), default=4, show_default=True, help="Models in train."
)
@click.option(
    "--valid", type=click.IntRange(0, 100_000), default=2, show_default=True, help="Models in valid."
)
@click.option("--test", type=click.IntRange(0, 100_000), default=2, show_default=True, help="Models in test.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--families", help="Architecture families, with commas.  [default: all]")
@click.option("--formats", help="Number formats, with commas.  [default: the five published ones]")
@_JSON
def generate_dataset(
    folder: Path,
    train: int,
    valid: int,
    test: int,
    seed: int,
    families: str | None,
    formats: str | None,
    as_json: bool,
) -> None:
    """Generate synthetic models into FOLDER, with train, valid and test inside."""
    from evolve.datasets import SPLITS, write_dataset
    from evolve.datasets import generate_dataset as generate
    from evolve.formats import get_formats
    from evolve.synthetic import FAMILIES, PUBLISHED_FORMATS

    chosen = families.split(",") if families else list(FAMILIES)
    widths = get_formats(formats.split(",")) if formats else PUBLISHED_FORMATS
    dataset = generate(
        folder.name,
        {"train": train, "valid": valid, "test": test},
        seed,
        dict.fromkeys(SPLITS, chosen),
        sorted(widths, key=lambda each: each.bits),
    )
    write_dataset(dataset, folder)
    if as_json:
        print_json({"folder": str(folder), "models": [each.name for _, each in dataset.splits()]})
    else:
        click.echo(f"{folder}: {train} train, {valid} valid, {test} test")
