"""The verbs that put an allocation on a real network: apply, check-network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from evolve.cli.output import print_json, print_table
from evolve.errors import NetworkError
from evolve.outputs import check_output

#: Exit status where the best uniform format is better than the allocation.
WORSE_THAN_UNIFORM = 3
#: Where measurements are kept, below the working directory.
CACHE = Path(".evolve_cache") / "measurements.jsonl"

#: From here on metrics are shown in three digits.
_HUGE = 1e6

_FILE = click.Path(path_type=Path)
_Command = Callable[..., None]


def _common(command: _Command) -> _Command:
    """Add the options of both verbs."""
    for option in reversed(
        (
            click.argument("spec", metavar="ALLOCATION.json|CHAMPION"),
            click.option(
                "--model",
                required=True,
                metavar="NETWORK",
                help="MODULE:FUNCTION, FILE.py:FUNCTION or a file that ends in .onnx.",
            ),
            click.option("--profile", "profile_file", type=_FILE, help="The network's profile."),
            click.option(
                "--budget",
                "budgets",
                multiple=True,
                metavar="COST=AMOUNT",
                help="What a rule has to keep, as in avg_bits=4.5; again for another cost.",
            ),
            click.option("--signals", default="curves", show_default=True, help="What a rule may read."),
            click.option("--overwrite", is_flag=True, help="Replace the output if it is there."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_common
@click.option("--output", type=_FILE, required=True, help="The network: .pt for a PyTorch state, or .onnx.")
def apply(
    spec: str,
    model: str,
    profile_file: Path | None,
    budgets: tuple[str, ...],
    signals: str,
    overwrite: bool,
    as_json: bool,
    output: Path,
) -> None:
    """Write a real network with its weights as an allocation's formats keep them.

    Weights are quantized and dequantized: the file has the network's own types and layout, and the values
    that the formats can hold. A CHAMPION is a rule, which is run on --profile: a heuristic's name, a plugin
    file, a champion.json or champion.py, or the folder of a run or report.
    """
    from evolve.networks.applying import check_place, files_of, formats_for, save_quantized, size_bits
    from evolve.networks.network import left_out_words
    from evolve.networks.sources import load_to_write

    allocation, notes = _find(spec, profile_file, budgets, signals)
    network = load_to_write(model)
    check_place(network, output, overwrite, _files_read(spec, model, profile_file))
    formats = formats_for(network, allocation)
    signal = save_quantized(network, formats, output)
    left = left_out_words(network)
    if left is not None:
        notes = (*notes, f"not counted, and kept as they are: {left}")
    weights = sum(layer.num_params for layer in network.layers)
    bits = size_bits(network, formats)
    _tell(notes)
    if as_json:
        print_json(
            {
                "output": str(output),
                "files": [str(each) for each in files_of(output)],
                "model": network.name,
                "layers": len(formats),
                "avg_bits": bits / weights,
                "size_bytes": bits / 8,
                "sqnr_db": signal if math.isfinite(signal) else None,
                "formats": formats,
                "notes": list(notes),
            }
        )
        return
    loud = f"{signal:.1f} dB" if math.isfinite(signal) else "no noise"
    click.echo(f"{network.name}: {len(formats)} layers, {bits / weights:.3f} bits a weight, {loud}")
    for path in files_of(output):
        click.echo(f"wrote {path}")


@click.command("check-network")
@_common
@click.option("--data", type=_FILE, help="The held-out arrays of an ONNX model, a .npz file.")
@click.option("--calibration", type=_FILE, help="The arrays that a search of an ONNX model measures on.")
@click.option(
    "--search",
    type=click.IntRange(min=0),
    metavar="N",
    help="Look at N allocations of that size on the network itself.  [default: 100 with --output where "
    "adding up does not hold, else 0]",
)
@click.option("--output", type=_FILE, help="The allocation that is handed out, .json.")
@click.option("--report", type=_FILE, metavar="FOLDER", help="A page about it, with pictures.")
@click.option(
    "--cache", type=_FILE, default=CACHE, show_default=True, help="Where measurements are kept, by content."
)
@click.option("--task", help="classification, language, embedding or regression.  [default: the profile's]")
@click.option("--batch-size", default=64, show_default=True, help="Samples a batch of an ONNX model.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resamples of intervals."
)
def check_network(
    spec: str,
    model: str,
    profile_file: Path | None,
    budgets: tuple[str, ...],
    signals: str,
    overwrite: bool,
    as_json: bool,
    data: Path | None,
    calibration: Path | None,
    search: int | None,
    output: Path | None,
    report: Path | None,
    cache: Path,
    task: str | None,
    batch_size: int,
    seed: int,
) -> None:
    """Measure an allocation on a real network, beside what was predicted and the best uniform format.

    Held-out data are what the function of a PyTorch model returns third, (model, calibration loader,
    held-out loader), and what --data names for an ONNX model. A CHAMPION is a rule, as for 'apply'.

    An allocation that is worse there than the best uniform format of its size or less is never handed
    out: --output then has that format. Exit status: 0 good, 3 worse than that uniform format, 2 the input
    is wrong. After a kill the same command goes on where it was, from --cache.
    """
    from evolve.allocations import save_allocation
    from evolve.cli.progress import CellProgress
    from evolve.networks.handing_out import judge
    from evolve.networks.measurement_cache import MeasurementCache
    from evolve.networks.sources import load_networks
    from evolve.reports.network_report import check_report_folder

    if output is not None:
        inputs = _files_read(spec, model, profile_file)
        check_output(output, (".json",), overwrite, error=NetworkError, inputs=inputs)
    if report is not None:
        check_report_folder(report, overwrite)
    allocation, notes = _find(spec, profile_file, budgets, signals)
    measured = _profile(profile_file)
    networks = load_networks(model, data, calibration, _task(task, measured), batch_size)
    with CellProgress("allocation") as progress:
        verdict = judge(
            networks,
            allocation,
            measured,
            evaluations=search if search is not None else (None if output else 0),
            cache=MeasurementCache(cache),
            seed=seed,
            progress=progress.show,
        )
    if output is not None:
        save_allocation(verdict.allocation, output)
    found = verdict.to_json()
    found["notes"] = [*notes, *found["notes"]]
    written = {"output": output, "report": report}
    if report is not None:
        _write_report(report, found, networks.judging, measured)
    _tell(found["notes"])
    if as_json:
        print_json({**found, **{name: str(path) for name, path in written.items() if path}})
    else:
        _print(found)
        for path in filter(None, (output, report and report / "report.md")):
            click.echo(f"wrote {path}")
    if verdict.is_uniform:
        raise click.exceptions.Exit(WORSE_THAN_UNIFORM)


def _files_read(spec: str, model: str, profile_file: Path | None) -> list[Path]:
    """Return the files that may be read, so that none of them is written over."""
    read = [Path(spec), Path(spec, "champion.json"), Path(model), Path(f"{model}.data")]
    return read if profile_file is None else [*read, profile_file]


def _find(spec: str, profile_file: Path | None, budgets: tuple[str, ...], signals: str) -> tuple[Any, Any]:
    from evolve.networks.choosing import find_allocation

    return find_allocation(spec, _profile(profile_file), budgets, signals)


def _task(wanted: str | None, measured: Any) -> str | None:
    """Return the task: that of the profile, so that what it predicts is what is measured."""
    from evolve.networks.metrics import TASKS

    known = None if measured is None else measured.provenance.get("task")
    if known not in TASKS:
        return wanted
    if wanted not in (None, known):
        raise NetworkError("another task than the profile's", field="--task", expected=known, found=wanted)
    return str(known)


def _profile(file: Path | None) -> Any:
    from evolve.profile_files import load_profile

    return None if file is None else load_profile(file)


def _write_report(folder: Path, found: dict[str, Any], network: Any, profile: Any) -> None:
    """Write what was measured as a page; without a profile the layers' statistics are measured now."""
    import numpy as np

    from evolve.networks.applying import size_bits, uniform
    from evolve.networks.signals import layer_statistics
    from evolve.reports.network_facts import STATISTICS, NetworkLayers, layers_of
    from evolve.reports.network_report import check_report, provenance_words, write_network_report

    if profile is not None:
        layers, words = layers_of(profile), provenance_words(profile)
    else:
        values = layer_statistics(network)
        used = {name for each in found["measured"] for name in each["formats"].values()}
        layers, words = (
            NetworkLayers(
                network.name,
                tuple(each.name for each in network.layers),
                tuple(each.kind for each in network.layers),
                np.array([each.num_params for each in network.layers]),
                {name: np.array([each[name] for each in values.values()]) for name in STATISTICS},
                tuple(sorted(used, key=lambda name: (size_bits(network, uniform(network, name)), name))),
                None,
            ),
            {},
        )
    write_network_report(folder, check_report(found, layers, words))


def _tell(notes: tuple[str, ...] | list[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _print(found: dict[str, Any]) -> None:
    rows = [found["unchanged"], *found["measured"]]
    metrics = [name for name in ("accuracy", "loss", "perplexity") if rows[0][name] is not None]
    click.echo(f"{found['model']}: {found['num_units']} {found['unit']}, 95 % intervals")
    calibrated = ["on calibration"] if any(each.get("on_calibration") is not None for each in rows) else []
    print_table(
        "",
        ["", "bits", "bytes", "predicted", *calibrated, "divergence", *metrics],
        [
            (
                each["label"],
                f"{each['avg_bits']:.3f}",
                f"{each['size_bytes']:,.0f}",
                _figure(each["predicted"]),
                *(_figure(each.get("on_calibration")) for _ in calibrated),
                _interval(each["divergence"], ".3g"),
                *(_interval(each[name], ".4f") for name in metrics),
            )
            for each in rows
        ],
    )
    for step in (found["search"] or {}).get("improvements", []):
        click.echo(f"search {step['evaluation']}: {step['divergence']:.4g}  {step['change']}")
    if found["change_by_search"]:
        change = found["change_by_search"]
        ends = f"{change['low']:+.3g} to {change['high']:+.3g}"
        click.echo(f"the search changes the held-out divergence by {change['estimate']:+.3g} ({ends})")
    broken = ", which breaks the network" if found["handed_out_broken"] else ""
    click.echo(f"handed out: {found['handed_out']}{broken}")
    click.echo(f"network run for {found['runs']} allocations, {found['cached']} known from before")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval(found: dict[str, float], form: str) -> str:
    # What broken outputs measure has many digits, none of which says anything.
    form = ".3g" if found["high"] >= _HUGE else form
    return f"{found['estimate']:{form}} ({found['low']:{form}}–{found['high']:{form}})"
