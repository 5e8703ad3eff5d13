"""The verb that hands an allocation to the tools that run it: export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from evolve.cli.output import print_json, print_table
from evolve.errors import InputError

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("allocation", required=False, type=_FILE, metavar="ALLOCATION.json")
@click.option(
    "--to", "to", multiple=True, metavar="TARGET", help="A target; again, or with commas, for several."
)
@click.option("--output", type=_FILE, help="The file, or the folder of several.  [default: standard output]")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("--formats", help="The only quantized formats to write, with commas.  [default: the target's]")
@click.option("--network-names", type=_FILE, help="JSON: what the target calls a layer, by the layer's name.")
@click.option("--architecture", help="llama.cpp: the architecture, as llama, which gives names of tensors.")
@click.option("--network", type=_FILE, help="onnxruntime: the ONNX model, for names of nodes.")
@click.option("--list", "listing", is_flag=True, help="Show the targets and their formats.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def export(
    allocation: Path | None,
    to: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    formats: str | None,
    network_names: Path | None,
    architecture: str | None,
    network: Path | None,
    listing: bool,
    as_json: bool,
) -> None:
    """Write an allocation in the form of the tools that run it.

    Formats that a target does not have are rounded by one rule, never to codes of fewer bits unless
    nothing wider exists; what was rounded, and to what, is printed. Of several targets those that work
    are written, and the exit status is 2 if one does not.
    """
    from evolve.allocations import load_allocation
    from evolve.exporters import TARGETS, Export, Options, find_target
    from evolve.exporters.files import read_names, save_exports

    if listing:
        _print_targets(as_json)
        return
    wanted = list(dict.fromkeys(name.strip() for each in to for name in each.split(",")))
    if allocation is None or not wanted:
        missing = "ALLOCATION.json" if allocation is None else "--to"
        cure = f"Targets: {', '.join(TARGETS)}."
        raise InputError("missing", field=missing, expected="an allocation and a target", cure=cure)
    targets = [find_target(name) for name in wanted]
    if len(targets) > 1 and output is None and not as_json:
        raise InputError("missing", field="--output", expected="a folder for several targets, or --json")
    loaded = load_allocation(allocation)
    options = Options(
        formats=tuple(each.strip() for each in formats.split(",")) if formats else (),
        names=read_names(network_names) if network_names else {},
        architecture=architecture,
        network=network,
    )
    made: list[Export] = []
    failed: dict[str, InputError] = {}
    for target in targets:
        try:
            made.append(target.export(loaded, options))
        except InputError as error:
            if len(targets) == 1:
                raise
            failed[target.name] = error
    files = save_exports(made, output, overwrite, folder=len(targets) > 1) if output and made else {}
    if as_json:
        rows = {each.target: _to_json(each, files.get(each.target)) for each in made}
        faults = {name: {"target": name, "file": None, "error": str(each)} for name, each in failed.items()}
        print_json([(rows | faults)[target.name] for target in targets])
    else:
        for each in made:
            _show(each, loaded.avg_bits)
            if each.target in files:
                click.echo(f"wrote {files[each.target]}")
            else:
                click.echo("".join(each.documents.values()), nl=False)
    if failed:
        for name, fault in failed.items():
            click.echo(f"{name}: not written: {fault}", err=True)
        raise InputError(
            f"{len(failed)} of {len(targets)} targets not written", field="--to", found=[*failed]
        )


def _show(export: Any, asked_bits: float) -> None:
    average = f"{asked_bits:.3f} bits a weight asked for, {export.avg_bits:.3f} written"
    click.echo(f"{export.target}: {len(export.layers)} layers, {average}", err=True)
    for rounded in export.roundings:
        bits = f"{rounded.asked_bits:.2f} → {rounded.written_bits:.2f} bits"
        change = f"{rounded.asked} → {rounded.written}"
        click.echo(f"  rounded {rounded.layer}: {change} ({bits}): {rounded.why}", err=True)
    for note in export.notes:
        click.echo(f"  {note}", err=True)


def _to_json(export: Any, file: Path | None) -> dict[str, Any]:
    return {
        "target": export.target,
        "file": None if file is None else str(file),
        "documents": dict(export.documents),
        "avg_bits": export.avg_bits,
        "layers": [vars(each) for each in export.layers],
        "roundings": [vars(each) for each in export.roundings],
        "notes": list(export.notes),
    }


def _print_targets(as_json: bool) -> None:
    from evolve.exporters import TARGETS

    if as_json:
        print_json(
            [
                {
                    "target": each.name,
                    "formats": list(each.formats),
                    "kinds": list(each.kinds),
                    "file": each.file,
                    "extra": each.extra or None,
                    "usage": each.usage,
                }
                for each in TARGETS.values()
            ]
        )
        return
    print_table(
        "Targets",
        ["target", "file", "layer types", "formats", "needs"],
        [
            (each.name, each.file, ", ".join(each.kinds), _shortened(each.formats), each.extra or None)
            for each in TARGETS.values()
        ],
    )


def _shortened(formats: Sequence[str]) -> str:
    """Return names of formats; integers that differ only in their width stand together."""
    widths: dict[str, list[str]] = {}
    for name in formats:
        if name.startswith("INT"):
            widths.setdefault(name[4:], []).append(name[3])
    integers = [f"INT{'/'.join(each)}{suffix}" for suffix, each in widths.items()]
    return ", ".join([*integers, *(name for name in formats if not name.startswith("INT"))])
