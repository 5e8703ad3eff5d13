"""The verb that measures a real network: profile."""

from __future__ import annotations

from pathlib import Path

import click

from evolve.cli.output import print_json, print_table
from evolve.errors import NetworkError
from evolve.outputs import check_output

#: How many layers the table shows.
_SHOWN = 10
#: The notes of a profile that people are told of, and the words before each.
_TOLD = {"broken": "", "not_measured": "not measured: "}


@click.command()
@click.argument("network", metavar="NETWORK")
@click.option("--data", type=click.Path(path_type=Path), help="The arrays of an ONNX model, a .npz file.")
@click.option("--formats", help="Formats, with commas between.  [default: nine, INT2_G32 to FP32]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The profile.  [default: NAME.json, .json.gz is smaller]",
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished profile of the same output.")
@click.option("--task", help="classification, language, embedding or regression.  [default: by the data]")
@click.option("--batch-size", default=64, show_default=True, help="Samples a batch of an ONNX model.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of random directions (Fisher, Hessian).",
)
@click.option(
    "--hessian-probes",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Probes of the Hessian trace, 0: none.",
)
@click.option(
    "--tie",
    "ties",
    multiple=True,
    help="Layers that share a format, with commas between; again for another group.  [default: as found]",
)
@click.option("--no-ties", is_flag=True, help="No layers share a format.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FOLDER", help="A page about it, with pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def profile(
    network: str,
    data: Path | None,
    formats: str | None,
    output: Path | None,
    resume: bool,
    task: str | None,
    batch_size: int,
    seed: int,
    hessian_probes: int,
    ties: tuple[str, ...],
    no_ties: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure every weight layer of a real network in every format.

    NETWORK is MODULE:FUNCTION or FILE.py:FUNCTION, a function that returns a PyTorch model and a loader
    of calibration batches; or an ONNX file, with --data. Every measurement is kept as it is made, in
    OUTPUT.journal: after a kill, --resume goes on from there and ends in the same profile.
    """
    from evolve.cli.progress import CellProgress
    from evolve.networks import DEFAULT_FORMATS, load_network, profile_network
    from evolve.networks.metrics import DIVERGENCES
    from evolve.profile_files import save_profile
    from evolve.reports.network_report import check_report_folder, profile_report, write_network_report

    if ties and no_ties:
        raise NetworkError("contradiction", field="--tie", cure="Give --tie or --no-ties.")
    loaded = load_network(network, data, task, batch_size)
    target = output or Path(f"{loaded.name}.json")
    journal = target.with_name(f"{target.name}.journal")
    check_output(target, (".json", ".json.gz"), overwrite=True, error=NetworkError)
    # Beside a journal it was written by a process that was killed before it removed that.
    if target.exists() and not journal.exists():
        raise NetworkError("exists already", file=target, cure="Choose another --output, or remove it.")
    if report is not None:
        check_report_folder(report)
    groups = [each.split(",") for each in ties] if ties or no_ties else None
    with CellProgress() as progress:
        made = profile_network(
            loaded,
            DEFAULT_FORMATS if formats is None else [each.strip() for each in formats.split(",")],
            ties=groups,
            seed=seed,
            hessian_probes=hessian_probes,
            journal=journal,
            resume=resume,
            progress=progress.show,
        )
    save_profile(made, target)
    # Another process may have gone on with it since, and written the same profile.
    journal.unlink(missing_ok=True)
    if report is not None:
        write_network_report(report, profile_report(made))
    for name, words in made.provenance["notes"].items():
        if name in _TOLD:
            click.echo(f"note: {_TOLD[name]}{words}", err=True)
    if as_json:
        print_json(
            {
                "output": str(target),
                **({"report": str(report)} if report else {}),
                "name": made.name,
                "layers": made.num_layers,
                "formats": list(made.format_names),
                "bits": made.bits.tolist(),
                "uniform_loss": made.loss.sum(axis=0).tolist(),
                "tied_layers": [[made.layer_names[at] for at in group] for group in made.tied_layers],
                "not_measured": made.provenance["not_measured"],
                "provenance": dict(made.provenance),
            }
        )
        return
    print_table(
        f"{made.name}: {made.num_layers} layers, {made.total_params:,} weights, {loaded.task}",
        ["format", "bits", f"sum of divergences ({DIVERGENCES[loaded.task]})"],
        [
            (name, float(bits), f"{loss:.3g}")
            for name, bits, loss in zip(made.format_names, made.bits, made.loss.sum(axis=0), strict=True)
        ],
    )
    worst = sorted(range(made.num_layers), key=lambda at: -made.loss[at, 0])[:_SHOWN]
    print_table(
        f"The most sensitive layers in {made.format_names[0]}",
        ["layer", "type", "weights", "divergence"],
        [
            (made.layer_names[at], made.layer_type[at], int(made.num_params[at]), f"{made.loss[at, 0]:.3g}")
            for at in worst
        ],
    )
    click.echo(f"wrote {target}")
    if report is not None:
        click.echo(f"wrote {report / 'report.md'}")
