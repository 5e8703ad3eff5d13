"""The verb that allocates within what people have: allocate."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from evolve.cli.output import print_json, print_table
from evolve.errors import BudgetError
from evolve.outputs import check_output

#: Seconds of silence before a live line says that it is still computing.
_PATIENCE = 2.0
#: Points of a front that the table shows.
_SHOWN = 20


@click.command()
@click.argument("model", metavar="PROFILE|DATASET[:MODEL]")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="COST=AMOUNT",
    help="The most it may cost: size=8.4MB, avg_bits=4.5, or a cost of the profile, as in latency=4.2ms; "
    "again for another cost.",
)
@click.option("--retention", type=float, metavar="FLOOR", help="The least accuracy to retain, at least cost.")
@click.option("--minimise", metavar="COST", help="That cost.  [default: size]")
@click.option("--front", is_flag=True, help="Every trade-off of the cost against the retention.")
@click.option("--rule", metavar="HEURISTIC", help="Allocate by a heuristic, a plugin file or a champion.")
@click.option("--sweep", metavar="PARAMETER", help="The rule's price.  [default: found by what it does]")
@click.option("--signals", default="curves", show_default=True, help="What the rule may read.")
@click.option(
    "--no-fallback", is_flag=True, help="Keep the rule's even where one format everywhere is better."
)
@click.option("--output", type=click.Path(path_type=Path), help="The allocation, .json; a front also .csv.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def allocate(
    model: str,
    budgets: tuple[str, ...],
    retention: float | None,
    minimise: str | None,
    front: bool,
    rule: str | None,
    sweep: str | None,
    signals: str,
    no_fallback: bool,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Find the best allocation of a model, with its proof.

    By default that is the highest fitness with its cliff; with --budget the best retention within it;
    with --retention the least cost above that floor. The best uniform format stands beside it.
    """
    from evolve.allocations import save_allocation
    from evolve.model_lookup import find_model
    from evolve.questions import answer_to_json, ask, ask_rule, solve_question
    from evolve.ruled import find_rule

    _check(front, rule, sweep)
    if output is not None:
        endings = (".json", ".csv") if front else (".json",)
        check_output(output, endings, overwrite, error=BudgetError, inputs=_files_read(model, rule))
    if front:
        _front(model, budgets, retention, minimise, output, as_json)
        return
    question = ask(find_model(model), budgets, retention, minimise)
    with _patience("finding the best allocation"), _no_stray_output():
        if rule is None:
            answer = solve_question(question)
        else:
            answer = ask_rule(question, find_rule(rule), signals, sweep, not no_fallback)
    if output is not None:
        save_allocation(answer.allocation(), output)
    found = answer_to_json(answer)
    found["notes"] += _doubts(question.profile, found["predicted"]["loss"])
    for note in found["notes"]:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({**found, **({"output": str(output)} if output else {})})
        return
    _print_answer(found)
    if output is not None:
        click.echo(f"wrote {output}")


def _doubts(profile: Any, predicted: float) -> list[str]:
    """Say so where what a measured profile predicts leaves the range in which its divergences add up."""
    from evolve.joint import additive_range

    end = additive_range(profile.layer_type)
    if "weights_sha256" not in profile.provenance or predicted <= end:
        return []
    where = "in a convolutional network " if end == additive_range(["Conv"]) else ""
    words = f"the sum of divergences is {predicted:.3g}, and beyond {end:g} {where}they need not add up"
    return [f"{words}: 'evolve check-network' measures the allocation"]


def _check(front: bool, rule: str | None, sweep: str | None) -> None:
    """Refuse what contradicts itself before anything is computed."""
    if front and rule is not None:
        raise BudgetError("contradiction", field="--front", cure="Give --front or --rule.")
    if sweep is not None and rule is None:
        raise BudgetError("no rule", field="--sweep", cure="Give --rule too.")


def _files_read(model: str, rule: str | None) -> Iterator[Path]:
    """Return the files that may be read: a profile, those of a data set, a champion."""
    from evolve.datasets import SPLITS, dataset_folders

    for spec in filter(None, (model, model.rpartition(":")[0])):
        yield Path(spec)
        for folder in (Path(spec), *(each / spec for each in dataset_folders())):
            for split in SPLITS:
                yield folder / f"{split}.json"
                yield from (folder / split).glob("*")
    if rule is not None:
        path = Path(rule)
        yield from (path, path / "champion.json")
        if path.suffix == ".py":
            yield path.with_suffix(".json")  # the bounds of its numbers


def _front(
    model: str,
    budgets: tuple[str, ...],
    retention: float | None,
    minimise: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    import json

    from evolve.model_lookup import find_model
    from evolve.pareto import front_to_csv, front_to_json
    from evolve.questions import ask_front
    from evolve.store import write_atomically

    profile = find_model(model)
    with _patience("finding the front"), _no_stray_output():
        front = ask_front(profile, budgets, retention, minimise)
    found = front_to_json(front, profile)
    if output is not None:
        text = front_to_csv(front, profile) if output.suffix == ".csv" else json.dumps(found, indent=1) + "\n"
        try:
            write_atomically(output, text)
        except OSError as fault:
            raise BudgetError(f"cannot be written ({fault.strerror})", file=output) from None
    if as_json:
        print_json({**found, **({"output": str(output)} if output else {})})
        return
    points = found["points"]
    steps = sorted({round(at * (len(points) - 1) / (_SHOWN - 1)) for at in range(_SHOWN)})
    shown = [points[at] for at in steps]
    heading = f"{found['cost']} [{found['unit']}]" if found["unit"] else found["cost"]
    click.echo(f"{found['model']}: {len(points)} trade-offs, {len(shown)} of them")
    print_table(
        "",
        [heading, "retention", "layers in each format"],
        [(each["cost"], each["retention"], _counts(each["formats"], profile.format_names)) for each in shown],
    )
    if found["complete"]:
        click.echo("These are all allocations that no other one beats.")
    else:
        click.echo("These are the corners of the convex hull: others may lie between them, none beyond.")
    if output is not None:
        click.echo(f"wrote {output}")


def _print_answer(found: dict[str, Any]) -> None:
    layers = found["layers"]
    total = sum(each["num_params"] for each in layers)
    rows = []
    for name in dict.fromkeys(each["format"] for each in sorted(layers, key=lambda each: each["bits"])):
        chosen = [each for each in layers if each["format"] == name]
        weights = sum(each["num_params"] for each in chosen)
        bits = sum(each["num_params"] * each["bits"] for each in chosen) / weights
        kinds = _counts([each["kind"] for each in chosen], dict.fromkeys(each["kind"] for each in chosen))
        rows.append((name, round(bits, 4), len(chosen), f"{weights / total:.2%}", kinds))
    click.echo(f"{found['model']}: {found['question']}")
    print_table("", ["format", "bits", "layers", "weights", "types"], rows)
    names = [*(["fitness"] if "fitness" in found["predicted"] else []), "retention", "avg_bits", "size_bytes"]
    names += [name for name in found["predicted"] if name not in (*names, "loss")]
    compared = [(label, *(each[name] for name in names)) for label, each in _compared(found)]
    print_table("", ["", *names], compared)
    for budget in found["budgets"]:
        side = "at least" if budget["name"] == "retention" else "at most"
        used, limit = (f"{budget[key]:.6g} {budget['unit']}".rstrip() for key in ("used", "limit"))
        click.echo(f"{budget['name']}: {used}, {side} {limit}")
    click.echo(_proof(found))


def _compared(found: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Return what the table sets side by side, each with its figures."""
    rule, uniform = found.get("rule"), found["uniform"]
    rows = [("allocation", found["predicted"])]
    if rule is not None:
        rows = [] if rule["handed_out"] else rows
        rows += [(rule["name"], rule["predicted"]), ("best at no more cost", found["optimum"]["predicted"])]
    if uniform is not None:
        rows.append((f"{uniform['format']} everywhere", uniform["predicted"]))
    return rows


def _proof(found: dict[str, Any]) -> str:
    optimum = found["optimum"]
    bound = f"{optimum['bound']:.6g} {optimum['unit']}".rstrip()
    if found["shortfall"] <= 1e-9:
        return f"proven: no allocation within the budgets has a better {optimum['goal']}"
    better = f"no allocation within the same limits has a better {optimum['goal']} than {bound}"
    return f"{better}: {found['shortfall']:.2%} short of it"


def _counts(names: Iterable[str], order: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"{listed.count(name)} {name}" for name in order if name in listed)


@contextmanager
def _patience(words: str) -> Iterator[None]:
    """Show on a terminal that something is being computed, once it takes longer than two seconds."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(words)
    timer = threading.Timer(_PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        status.stop()


@contextmanager
def _no_stray_output() -> Iterator[None]:
    """Keep off standard output what HiGHS prints there past Python, for JSON must stay JSON."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        with suppress(OSError, TypeError):
            ctypes.CDLL(None).fflush(None)  # C keeps what it prints until then
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
